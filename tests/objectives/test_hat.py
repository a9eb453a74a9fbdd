"""HAT by its formula: the helper example beyond the ball, and the teacher's label for it."""

import torch
import torch.nn.functional as F

from support.helpers import cnn
from support.objectives import KL_ATTACK, assert_formula, divergence, double, state_of
from uiat import HAT


def test_hat_by_formula():
    model, b = double()
    teacher = cnn(seed=7).double().eval()
    objective = HAT(attack=KL_ATTACK, weight=2.5, helper_weight=0.7, reach=3.0, label_smoothing=0.1)
    state = state_of(objective, teacher=teacher)
    examples = objective.perturb(model, b, state, epoch=0)
    x_adv = examples.x_adv
    assert 0 < (x_adv - b.x).abs().max() <= objective.threat.epsilon + 1e-6
    y_help = teacher(x_adv).argmax(1)
    assert (y_help != b.y).any()  # it is the teacher's label, not the data's
    natural, adv, beyond = model(b.x), model(x_adv), model(b.x + 3.0 * (x_adv - b.x))
    expected = (
        F.cross_entropy(natural, b.y, label_smoothing=0.1, reduction="none")
        + 2.5 * divergence(natural.softmax(1), adv.softmax(1))
        + 0.7 * F.cross_entropy(beyond, y_help, reduction="none")
    )
    assert_formula(objective, model, examples, expected)


def test_the_defaults_are_the_authors():
    objective = HAT()
    assert (objective.weight, objective.helper_weight, objective.reach) == (2.5, 0.5, 2.0)
    assert (objective.attack.loss, objective.attack.steps, objective.teacher_method) == ("kl", 10, "standard")


def test_the_teacher_is_asked_in_eval_mode_and_left_as_it_was():
    model, b = double()
    teacher = cnn(seed=7).double().train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    state = state_of(HAT(attack=KL_ATTACK), teacher=teacher)
    HAT(attack=KL_ATTACK).perturb(model, b, state, epoch=0)
    assert not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not list(state.state_dict())  # no checkpoint holds a teacher
