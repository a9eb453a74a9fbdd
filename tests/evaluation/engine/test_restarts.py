"""PGD batch by batch: restarts are for survivors, and batches change nothing."""

from dataclasses import replace

import pytest
import torch

from support.evaluations import Threshold, correct_images, evaluate, network, ramp
from uiat import L2, Linf, UserError
from uiat.attacks import PGD
from uiat.attacks.random_numbers import keys, rekey
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
