"""One stage: which images an attack is spent on, its random numbers, and what counts as correct."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from support.evaluations import Threshold, correct_images, evaluate, network, ramp
from uiat import L2, Linf, UserError
from uiat.attacks import PGD
from uiat.attacks.random_numbers import KeyedNumbers, keys, rekey
from uiat.evaluation import attack, correct_under
from uiat.threat import L1


def test_an_image_that_is_misclassified_is_not_attacked_and_restarts_are_for_survivors():
    x, y = ramp(11)
    y[:5] = 1  # five wrong as they are; at 0.12 three of the other six are broken
    model = Threshold()
    correct = correct_under(model, x, y, None)
    assert correct.sum() == 6
    seen = []
    craft = PGD.perturb

    class Spy(PGD):
        def perturb(self, model, x, y, *, generator=None, key=None):
            assert self.restarts == 1
            seen.append(len(x))
            return craft(self, model, x, y, key=key)

    settings = Spy(threat=Linf(0.12), step_size=0.05, steps=5, restarts=3)
    after = correct_under(model, x, y, settings, mask=correct)
    assert seen == [6, 3, 3]
    assert after.sum() == 3
    assert not (after & ~correct).any()
    assert correct.sum() == 6  # what was passed in is as it was


def test_an_answer_that_is_nan_is_no_answer():
    """NaN wins every argmax, and would count as class 0."""

    class Fragile(nn.Module):
        def forward(self, x):
            logits = torch.stack([x.mean(dim=(1, 2, 3)), 1 - x.mean(dim=(1, 2, 3)), 0 * x.sum(dim=(1, 2, 3))], dim=1)
            return torch.where((x == 0.25).all(dim=(1, 2, 3))[:, None], math.nan, logits)

    x = torch.full((5, 1, 4, 4), 0.75)
    x[4] = 0.25
    assert correct_under(Fragile(), x, torch.tensor([0, 0, 0, 0, 0]), None).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.25), L1(0.6)], ids=lambda threat: threat.norm)
def test_random_starts_do_not_depend_on_the_batch_size(threat):
    model = network()
    x, y = correct_images(model)
    attacks = ["pgd-2", "cw-2", "pgd-1-3"]
    one, other = (evaluate(model, x, y, threat=threat, attacks=attacks, batch_size=b, seed=3) for b in (7, 40))
    assert one.broken_by == other.broken_by
    assert 0 < one.accuracy["worst"] < 1
    pgd = attack("pgd-1", threat=threat)
    key = keys(0, torch.arange(40))
    whole = pgd(model, x, y, key=key)
    assert torch.equal(whole[5:9], pgd(model, x[5:9], y[5:9], key=key[5:9]))
    assert not torch.allclose(whole, pgd(model, x, y, key=rekey(key, 1)))
    gaussian = replace(pgd, start="gaussian", steps=1, step_size=0)(model, x, y, key=key) - x
    assert 0 < gaussian.std() < 0.0011
    with pytest.raises(UserError, match="not from both"):
        pgd(model, x, y, key=key, generator=torch.Generator())


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
