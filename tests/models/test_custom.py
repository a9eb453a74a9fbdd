"""Models from the user's own code."""

import sys

import pytest
import torch
from torch import nn

from support.models import digits, refusal

OWN = """
from dataclasses import dataclass
from torch import nn
import helper_beside

@dataclass
class Options:
    width: "int" = 4

def make(num_classes, image_shape):
    c, h, w = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, num_classes))

class Net(nn.Linear):
    def __init__(self, *, num_classes, image_shape):
        super().__init__(image_shape[-1], num_classes)

def late(num_classes, image_shape):
    import helper_late
    return helper_late.net

def number(num_classes, image_shape): return 3
def unmade(num_classes, image_shape): return Net
def fewer(num_classes): return Net
def broken(num_classes, image_shape): raise ZeroDivisionError("mine")
constant = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a model file and the files beside it, as working folder; imports are forgotten afterwards."""
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "helper_beside.py").write_text("value = 1\n")
    (tmp_path / "helper_late.py").write_text("from torch import nn\nnet = nn.Identity()\n")
    (tmp_path / "wrong_syntax.py").write_text("def make(:\n")
    (tmp_path / "wrong_import.py").write_text("import no_such_package_anywhere\n")
    (tmp_path / "wrong_run.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize("how", ["own_net.py", "./own_net.py", "{folder}/own_net.py", "own_net"])
def test_own_model(own, how):
    source = how.format(folder=own)
    model = digits(f"{source}:make")
    assert isinstance(model, nn.Sequential)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert digits(f"{source}:Net").out_features == 10
    assert isinstance(digits(f"{source}:late"), nn.Identity)


def test_own_file_elsewhere(own, monkeypatch):
    (own / "empty").mkdir()
    monkeypatch.chdir(own / "empty")
    assert isinstance(digits("../own_net.py:late"), nn.Identity)


def test_own_file_is_read_again(own):
    (own / "net.py").write_text("from torch import nn\ndef make(num_classes, image_shape): return nn.Identity()\n")
    assert isinstance(digits("net.py:make"), nn.Identity)
    (own / "net.py").write_text(
        "from torch import nn\ndef make(num_classes, image_shape): return nn.Flatten()  # new\n"
    )
    assert isinstance(digits("net.py:make"), nn.Flatten)


def test_own_model_normalises_itself(own):
    assert isinstance(digits("own_net.py:make", mean=(0.5,), std=(0.5,)), nn.Sequential)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such.py:make", "there is no file 'no_such.py'"),
        ("no_such_module:make", "there is no module 'no_such_module'"),
        ("torch.no_such_part:make", "there is no module 'torch.no_such_part'"),
        ("own_net.py:mak", "unknown function in own_net.py 'mak'; did you mean 'make'"),
        ("own_net:mak", "did you mean 'make'"),
        ("own_net.py:constant", "unknown function in own_net.py 'constant'"),
        ("own_net.py:number", "returned an object of type int; it must return a torch.nn.Module"),
        ("own_net.py:unmade", "returned the class Net; it must return a torch.nn.Module"),
        ("own_net.py:fewer", "takes (num_classes); it is called as fewer(num_classes=, image_shape=)"),
        ("wrong_syntax.py:make", "'wrong_syntax.py' could not be imported: SyntaxError"),
        ("wrong_syntax:make", "'wrong_syntax' could not be imported: SyntaxError"),
        ("wrong_import.py:make", "No module named 'no_such_package_anywhere'"),
        ("wrong_import:make", "No module named 'no_such_package_anywhere'"),
        ("wrong_run.py:make", "ZeroDivisionError: division by zero"),
        (":make", "write path/to/file.py:FUNCTION"),
        ("own_net.py:", "write path/to/file.py:FUNCTION"),
    ],
)
def test_own_model_refused(own, name, message):
    assert message in refusal(digits, name)


def test_an_error_in_ones_own_function_is_passed_on(own):
    with pytest.raises(ZeroDivisionError, match="mine"):
        digits("own_net.py:broken")
