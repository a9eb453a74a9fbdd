"""The public interface, and what it works without."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml

import uiat
from support.paths import ROOT, SRC

# Packages of the extras, which somebody who installs `uiat` alone does not have.
EXTRAS = (
    "torchvision sklearn scipy matplotlib PIL jinja2 markupsafe jaxtyping beartype timm tensorboard huggingface_hub"
)
CORE = """
import sys

BLOCKED = set({extras!r}.split())

class Without:  # a finder that does not find these packages, as if they were not installed

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
from uiat.cli import main
assert main(["--help"]) == 0
assert main(["--version"]) == 0
import uiat
assert "torch" not in sys.modules, "a help text waits for torch"

import torch
torch.manual_seed(0)
x = torch.rand(64, 1, 4, 4)
y = (x.mean((1, 2, 3)) > 0.5).long()
x[y == 1] = 1 - (1 - x[y == 1]) / 2
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
objective = uiat.UIAT(attack=uiat.PGD(threat="Linf:0.02", steps=2))
trained = uiat.fit(model, (x, y), objective=objective, optimisation=uiat.Optimisation(epochs=20), batch_size=16)
result = uiat.evaluate(trained.model, x, y, threat=uiat.Linf(0.02), attacks=["clean", "pgd-5", "fab"])
assert result.accuracy["clean"] > 0.9 and result.accuracy["worst"] > 0.5, result.accuracy

for words in (["train", "digits-uiat"], ["report", "runs/a"]):
    assert main(words) == 2
try:
    with uiat.analyse.figures.styled():
        pass
except uiat.UserError as error:
    print(error, file=sys.stderr)
assert not BLOCKED & {{name.partition(".")[0] for name in sys.modules}}
"""


def test_the_core_trains_and_evaluates_without_any_extra(tmp_path):
    script = CORE.format(extras=EXTRAS)
    environment = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: uiat")
    assert [line for line in done.stderr.splitlines() if "pip install" in line] == [
        "uiat: error: digits needs scikit-learn, which is not installed: pip install 'uiat[data]'",
        "uiat: error: a report needs jinja2, which is not installed: pip install 'uiat[report]'",
        "a figure needs matplotlib, which is not installed: pip install 'uiat[report]'",
    ]


def test_every_public_name_is_there_and_listed():
    assert set(uiat.api.__all__) <= set(dir(uiat))
    for name in uiat.api.__all__:
        assert getattr(uiat, name) is getattr(uiat.api, name)
    assert uiat.__all__ == uiat.api.__all__
    assert uiat.threat.Linf is uiat.Linf  # a module is an attribute too
    assert uiat.__version__ == uiat.api.__version__


@pytest.mark.parametrize("name", ["Uiat", "_private", "__wrapped__"])
def test_a_name_that_is_not_there_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'uiat' has no attribute '{name}'"):
        getattr(uiat, name)


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    assert f"version = {{{version}}}" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[0] == version
