"""What every test shares: shape checking, one thread per worker, a fixed seed, the folder of real data."""

import os
import signal
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; subprocesses inherit it
os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

# The hook only sees imports that come after it, so an earlier one would silently switch the shape checks off.
assert "uiat" not in sys.modules, "uiat was imported before tests/conftest.py could install the shape checks"
install_import_hook("uiat", "shapecheck.check")

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

from support.trained import evaluated_run, trained_runs  # noqa: F401 - fixtures of all tests

# Whatever has started the tests may ignore these (nohup, a shell's background job), and commands would inherit that.
for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _default)

torch.set_num_threads(1)  # the workers of pytest-xdist share the cores; threads on top only contend
hypothesis.settings.register_profile("uiat", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("uiat")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch the shape checks off, so that the package's own check of bad input answers, as it does for a user."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; the test is skipped where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "unpack.py").is_file():
        pytest.skip("needs the real data sets of ../shared/data, which are not on this machine")
    return folder
