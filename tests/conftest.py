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

from collections import Counter
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


# Tests of many seconds with many cases: so many cases are run by `make test`, the others by `make test-all`.
CASES_AT_ONCE = {
    "test_a_broken_defence_is_flagged": 3,
    "test_a_kill_while_any_file_is_written_loses_nothing": 2,
    "test_a_resumed_run_is_bit_identical": 4,
    "test_a_sound_model_is_not_flagged": 0,  # its models are trained first
    "test_a_sweep_killed_in_its_first_moments_goes_on": 1,
    "test_compiles_in_one_graph": 1,
    "test_ctrl_c_saves_and_says_how_to_resume": 0,
    "test_equal_tensors_and_facts_are_equal_files": 0,
    "test_every_study_writes_its_data_a_figure_and_what_the_numbers_say": 2,
    "test_it_breaks_what_the_reference_breaks": 1,
    "test_it_is_resumed_in_another_number_of_processes": 1,
    "test_it_learns": 12,
    "test_notebooks_show_it_as_html": 2,
    "test_several_processes_hold_what_one_would": 0,  # four sets of processes
    "test_surroundings_change_no_verdict_and_are_as_they_were": 2,
    "test_torchscript_is_evaluated_as_the_module_is": 1,
    "test_what_an_older_version_left_stops_no_sweep": 1,
    "test_wherever_it_is_stopped_it_is_resumed_to_the_same_verdicts": 1,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow the cases beyond those in `CASES_AT_ONCE`."""
    seen = Counter[str]()
    for item in items:
        name = getattr(item, "originalname", None) or item.name
        if name in CASES_AT_ONCE:
            seen[name] += 1
            if seen[name] > CASES_AT_ONCE[name]:
                item.add_marker(pytest.mark.slow)


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
