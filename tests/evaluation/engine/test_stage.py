"""One stage: which images an attack is spent on, its random numbers, and what counts as correct."""

import math

import pytest
import torch
from torch import nn

from support.evaluations import correct_images, evaluate, network
from uiat import L2, Linf
from uiat.attacks.random_numbers import KeyedNumbers, keys
from uiat.evaluation import correct_under
from uiat.threat import L1


def test_an_answer_that_is_nan_is_no_answer():
    """NaN wins every argmax, and would count as class 0."""

    class Fragile(nn.Module):
        def forward(self, x):
            logits = torch.stack([x.mean(dim=(1, 2, 3)), 1 - x.mean(dim=(1, 2, 3)), 0 * x.sum(dim=(1, 2, 3))], dim=1)
            return torch.where((x == 0.25).all(dim=(1, 2, 3))[:, None], math.nan, logits)

    x = torch.full((5, 1, 4, 4), 0.75)
    x[4] = 0.25
    assert correct_under(Fragile(), x, torch.tensor([0, 0, 0, 0, 0]), None).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("threat", [Linf(0.2), L2(1.0), L1(3.0)], ids=lambda threat: threat.norm)
def test_starts_by_key_are_distributed_as_those_of_a_generator(threat):
    x = torch.full((4_000, 1, 2, 2), 0.5)
    ours, theirs = threat.noise_from(x, KeyedNumbers(keys(0, torch.arange(4_000)))), threat.noise(x)
    assert (threat.length(ours) <= float(threat.epsilon) * (1 + 1e-6)).all()
    for of in (lambda d: threat.length(d), lambda d: d.abs().flatten(1)[:, 0], lambda d: d.flatten(1)[:, 1]):
        a, b = of(ours), of(theirs)
        assert a.mean().item() == pytest.approx(b.mean().item(), abs=0.05 * float(threat.epsilon))
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.1)


@pytest.mark.usefixtures("short")
def test_memory_that_runs_out_is_a_warning():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            if len(x) > 11:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.inner(x)

    model = Small()
    x, y = correct_images(network())
    one = evaluate(model, x, y, threat=Linf(0.1), attacks=["pgd-2", "apgd-ce"])
    other = evaluate(network(), x, y, threat=Linf(0.1), attacks=["pgd-2", "apgd-ce"])
    assert one.broken_by == other.broken_by
    assert one.warnings == ["memory ran out: no more than 10 images went through the model at once"]
