"""ARD and RSLAD by their formulas, and what their attacks maximise."""

import pytest
import torch
import torch.nn.functional as F

from support.helpers import cnn, pgd
from support.objectives import KL_ATTACK, assert_formula, divergence, double, state_of
from uiat import ARD, RSLAD


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_ard_by_formula(alpha):
    model, b = double()
    teacher = cnn(seed=7).double().eval()
    objective = ARD(attack=pgd(), alpha=alpha, temperature=5.0, weight=0.3)
    examples = objective.perturb(model, b, state_of(objective, teacher=teacher), epoch=0)
    with torch.no_grad():
        p = (teacher(b.x) / 5.0).softmax(1)
    kl = divergence(p, (model(examples.x_adv) / 5.0).softmax(1))
    ce = F.cross_entropy(model(b.x), b.y, reduction="none")
    assert_formula(objective, model, examples, 0.3 * alpha * 25.0 * kl + (1 - alpha) * ce)
    assert ("ce" in objective.loss(model, examples)) == (alpha < 1)


def test_rslad_by_formula():
    model, b = double()
    teacher = cnn(seed=7).double().eval()
    objective = RSLAD(attack=KL_ATTACK, weight=0.3)
    examples = objective.perturb(model, b, state_of(objective, teacher=teacher), epoch=0)
    with torch.no_grad():
        p = teacher(b.x).softmax(1)
    adv, natural = (divergence(p, model(x).softmax(1)) for x in (examples.x_adv, b.x))
    assert_formula(objective, model, examples, 0.3 * (5 / 6 * adv + 1 / 6 * natural))


def test_rslad_attacks_the_distance_from_the_teacher_and_not_from_the_model():
    model, b = double()
    teacher = cnn(seed=7).double().eval()
    objective = RSLAD(attack=pgd(10, step_size=0.02, loss="kl", start="gaussian"))
    ours = objective.perturb(model, b, state_of(objective, teacher=teacher), epoch=0).x_adv
    theirs = objective.attack(model, b.x, b.y)
    p = teacher(b.x).softmax(1)
    from_teacher = [divergence(p, model(x).softmax(1)).mean() for x in (b.x, theirs, ours)]
    assert from_teacher[0] < from_teacher[2]
    assert from_teacher[1] < from_teacher[2]
    assert (ours - b.x).abs().max() <= 0.1 + 1e-6


def test_the_teacher_of_distillation_is_a_robust_one():
    assert (ARD().teacher_method, RSLAD().teacher_method) == ("pgd-at", "pgd-at")
