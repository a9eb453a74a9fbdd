"""What tells an evaluation from others: everything that its verdicts depend on, and nothing else."""

import pytest
import torch
from torch import nn

from uiat import Linf
from uiat.evaluation.engine.identity import identify

X, Y = torch.linspace(0, 1, 32).reshape(8, 1, 2, 2), torch.arange(8) % 2


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def identity(**changed):
    how = {"model": model(), "x": X, "y": Y, "threat": Linf(0.1), "attacks": ["fgsm"]} | changed
    return identify(how.pop("model"), how.pop("x"), how.pop("y"), **how)


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"model": model(1)}, {"weights"}),
        ({"x": X.flip(0)}, {"images"}),
        ({"y": 1 - Y}, {"labels"}),
        ({"seed": 1}, {"seed"}),
        ({"attacks": ["pgd-2"]}, {"attacks", "order"}),
        ({"threat": Linf(0.2)}, {"threat", "attacks"}),
        ({"keep_examples": True}, {"examples"}),
        ({}, set()),
    ],
)
def test_each_thing_that_counts_is_told(changed, names):
    usual, other = identity(), identity(**changed)
    assert {name for name in usual if usual[name] != other[name]} in (names, names - {"attacks"})
