"""Attacks of other libraries: names and arguments, and what each of them is called with."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from support.helpers import interior, mlp
from uiat import L2, Linf, UserError
from uiat.evaluation import libraries
from uiat.evaluation.libraries import library_attack, parse_call


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("PGD", ("PGD", {})),
        (" PGD() ", ("PGD", {})),
        ("PGD(steps=20, alpha=2/255)", ("PGD", {"steps": 20, "alpha": 2 / 255})),
        ("A(b='c', d=[1, 2], e=None, f=True, g=-1)", ("A", {"b": "c", "d": [1, 2], "e": None, "f": True, "g": -1})),
    ],
)
def test_calls_are_read(text, call):
    assert parse_call(text) == call


@pytest.mark.parametrize(
    "text", ["", "a.b", "PGD(20)", "PGD(steps=", "PGD(a=b)", "PGD(a=__import__('os'))", "(x for x in y)", "A(b=1/0)"]
)
def test_what_is_no_call_is_refused_and_not_run(text):
    with pytest.raises(UserError, match="is no attack: write NAME or NAME"):
        parse_call(text)


@pytest.fixture
def fakes(monkeypatch):
    """Modules in place of the libraries', with attacks that note what they are given."""
    seen = {}

    class Class:
        def __init__(self, model, eps=0.3, steps=10, norm="Linf"):
            seen.update(model=model, eps=eps, steps=steps, norm=norm)

        def __call__(self, x, y):
            return x + seen["eps"]

    def function(model, inputs, labels, ε, steps=40):
        seen.update(epsilon=ε, steps=steps)
        return inputs

    monkeypatch.setitem(sys.modules, "torchattacks", SimpleNamespace(PGD=Class))
    monkeypatch.setitem(sys.modules, "adv_lib.attacks", SimpleNamespace(pgd_linf=function))
    monkeypatch.setattr(libraries, "import_module", lambda name: sys.modules[name])
    return seen


def test_the_radius_and_the_norm_are_passed_on_and_the_users_arguments_count(fakes):
    x, y, model = interior(2), torch.tensor([0, 1]), mlp()
    found = library_attack("torchattacks:PGD(steps=3)", L2(0.5))(model, x, y)
    assert fakes == {"model": model, "eps": 0.5, "steps": 3, "norm": "L2"}
    assert torch.equal(found, x + 0.5)
    library_attack("torchattacks:PGD(eps=0.1)", Linf(0.2))(model, x, y)
    assert fakes["eps"] == 0.1
    library_attack("advlib:pgd_linf(steps=7)", Linf(0.2))(model, x, y)
    assert (fakes["epsilon"], fakes["steps"]) == (0.2, 7)


def test_an_attack_that_the_library_lacks(fakes):
    with pytest.raises(UserError, match="unknown attack of torchattacks 'PDG'; did you mean 'PGD'"):
        library_attack("torchattacks:PDG", Linf(0.2))


@pytest.mark.parametrize("library", list(libraries.LIBRARIES))
def test_a_library_that_is_not_installed_is_named_with_its_package(library, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(libraries, "import_module", missing)
    package = libraries.LIBRARIES[library][1]
    with pytest.raises(UserError, match=f"needs {package} .*: pip install {package}"):
        library_attack(f"{library}:PGD", Linf(0.2))


def test_art_gets_images_of_the_models_dtype():
    cast = libraries._Cast(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.float32)
    assert cast(torch.rand(1, 1, 2, 2, dtype=torch.float64)).dtype == torch.float32
