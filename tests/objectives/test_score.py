"""SCORE by its formula, and the clipping of examples that are fitted."""

import pytest
import torch
import torch.nn.functional as F

from support.helpers import gradients, pgd
from support.objectives import assert_formula, double, state_of
from uiat import Score, total

ATTACK = pgd(3, loss="squared", start="gaussian")


@pytest.mark.parametrize("clip", [0.0, 0.62])
def test_score_by_formula(clip):
    model, b = double()
    objective = Score(attack=ATTACK, weight=4.0, clip=clip, label_smoothing=0.2)
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    p, p_adv = model(b.x).softmax(1), model(examples.x_adv).softmax(1)
    labels = 0.8 * F.one_hot(b.y, 4).double() + 0.05
    whole = ((p - labels) ** 2).sum(1) + 4.0 * ((p - p_adv) ** 2).sum(1)
    # The loss of (1 - c, c/3, c/3, c/3) against (1, 0, 0, 0).
    bound = clip**2 + 3 * (clip / 3) ** 2
    assert (whole < bound).any() == (clip > 0)
    assert (whole > bound).any()
    assert_formula(objective, model, examples, torch.where(whole < bound, bound, whole))


def test_an_example_that_is_fitted_gives_no_gradient():
    model, b = double()
    objective = Score(attack=ATTACK, clip=0.999, weight=0.0)
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    values = total(objective.loss(model, examples))
    fitted = values < 0.999**2 * 4 / 3 + 1e-6
    assert fitted.any()
    assert all(not g.any() for g in gradients(values[fitted].sum(), model))


def test_the_attack_raises_the_squared_distance():
    model, b = double()
    start = ATTACK.draw_start(b.x)
    moved = ATTACK(model, b.x, b.y)
    distance = [((model(x).softmax(1) - model(b.x).softmax(1)) ** 2).sum(1) for x in (start, moved)]
    assert (distance[1] > 10 * distance[0]).all()
    assert (moved - b.x).abs().max() <= ATTACK.threat.epsilon + 1e-6
