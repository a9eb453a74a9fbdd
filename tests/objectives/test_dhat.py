"""DHAT by its formula: the background's logits are taken from the inverse example's, and its residual is small."""

import pytest
import torch
import torch.nn.functional as F

from support.helpers import cnn, pgd
from support.objectives import INSTANCE, assert_formula, assert_statistics_of, divergence, double, state_of
from uiat import DHAT, InstanceInverse, UserError
from uiat.models.grad_cam import grad_cam

INVERSE = InstanceInverse(radius=INSTANCE.radius, step_size=INSTANCE.step_size, steps=3, regulariser="logit")


def test_dhat_by_formula():
    model, b = double()
    objective = DHAT(attack=pgd(), inverse=INVERSE, weight=2.0, orthogonal_weight=0.5, threshold=0.3)
    teacher = cnn(seed=7).double().eval()
    examples = objective.perturb(model, b, state_of(objective, teacher=teacher), epoch=0)
    foreground = grad_cam(teacher, b.x, b.y) > 0.3
    assert 0.02 < foreground.double().mean() < 0.98
    expected_background = torch.where(foreground, torch.zeros_like(b.x), examples.x_inv)
    torch.testing.assert_close(examples.x_background, expected_background)
    adv, inv, background = (model(x) for x in (examples.x_adv, examples.x_inv, examples.x_background))
    kl = divergence(adv.softmax(1), (inv - background).softmax(1))
    gram = background @ background.t()
    residual = inv - inv @ background.t() / gram.square().sum().sqrt() @ background
    batch_term = residual.square().sum().sqrt() / 12
    ce = F.cross_entropy(adv, b.y, reduction="none")
    assert_formula(objective, model, examples, ce + 2.0 * kl + 0.5 * batch_term)


def test_masked_images_do_not_move_the_statistics():
    model, b = double()
    objective = DHAT(attack=pgd(), inverse=INVERSE)
    examples = objective.perturb(model, b, state_of(objective, teacher=cnn(seed=7).double().eval()), epoch=0)
    assert_statistics_of(objective, model, examples, examples.x_adv, examples.x_inv)


def test_the_inverse_example_is_surer_and_within_its_radius():
    model, b = double()
    objective = DHAT(attack=pgd(), inverse=INVERSE)
    examples = objective.perturb(model, b, state_of(objective, teacher=cnn(seed=7).double()), epoch=0)
    assert (examples.x_inv - b.x).abs().max() <= INVERSE.radius + 1e-6
    ce = [F.cross_entropy(model(x), b.y, reduction="none").mean() for x in (examples.x_inv, b.x, examples.x_adv)]
    assert ce[0] < ce[1] < ce[2]


def test_a_teacher_without_places_is_refused():
    model, b = double()
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)).double()
    objective = DHAT(attack=pgd(), inverse=INVERSE)
    with pytest.raises(UserError, match="needs a network with convolutional layers"):
        objective.perturb(model, b, state_of(objective, teacher=linear), epoch=0)
