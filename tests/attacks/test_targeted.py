"""Targeted PGD: towards the class that it says, by the optimal step on a linear model, and one class an attempt."""

import pytest
import torch
from torch import nn

from support.evaluations import evaluate, images, net
from support.helpers import Passes, interior, mlp
from support.searches import run
from uiat import L2, Linf, TargetedPGD
from uiat.attacks import APGD
from uiat.errors import UserError
from uiat.threat import L1

every_threat = pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(2.0)], ids=lambda threat: threat.norm)


def linear(gaps):
    """Class 0 wins at grey images by these gaps over the others, each of which has pixels of its own to raise it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, len(gaps) + 1)).double()
    with torch.no_grad():
        weight, bias = model[1].weight.zero_(), model[1].bias.zero_()
        for k, gap in enumerate(gaps, start=1):
            weight[k, 8 * k : 8 * k + 8] = 1.0
            bias[k] = -4.0 - gap
    return model.eval()


def test_each_attempt_reaches_the_class_it_aims_at_where_the_ball_allows_it():
    """Eight pixels move by 0.1 each, so that a class is reached if and only if its gap is below 0.8."""
    model, x = linear([0.7, 0.9, 0.5]), torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    reached = []
    for attempt in range(3):
        points = run(TargetedPGD(threat=Linf(0.1), iterations=10), model, x, torch.tensor([0]), attempt=attempt)
        reached.append((int(points["target"]), bool(points["broken"]), int(model(points["x_t"]).argmax())))
    assert reached == [(3, True, 3), (1, True, 1), (2, False, 0)]  # the likeliest class first


@every_threat
def test_a_given_target_is_aimed_at_and_its_own_images_are_left(threat):
    model, x = mlp().eval(), interior(12)
    y = model(x).argmax(1)
    target = int(y[0])
    points = run(TargetedPGD(threat=threat, iterations=8, target=target), model, x, y)
    own = y == target
    with torch.no_grad():
        wrong = model(points["x_adv"]).argmax(1) != y
        nearer = model(points["x_t"]).log_softmax(1)[:, target] - model(x).log_softmax(1)[:, target]
    assert torch.equal(wrong, points["broken"])
    assert not points["broken"][own].any()
    assert torch.equal(points["x_t"][own], x[own])
    assert (nearer[~own] > 0).all()
    assert (threat.length(points["x_adv"] - x) <= float(threat.epsilon) * (1 + 1e-5)).all()


def test_what_it_costs():
    model, x = Passes(mlp()), interior(4)
    run(TargetedPGD(threat=Linf(1e-6), iterations=6), model, x, model.inner.eval()(x).argmax(1))
    assert (sum(model.forwards.values()), sum(model.backwards.values())) == (8, 6)


@pytest.mark.parametrize(("classes", "attempts"), [(1, 0), (2, 1), (4, 3), (12, 9)])
def test_targets_are_at_most_the_wrong_classes(classes, attempts):
    assert TargetedPGD(threat=Linf(0.1)).attempts(classes) == attempts


def test_a_target_that_the_model_does_not_have_is_refused_before_any_attack():
    x, y = images()
    calls = []
    with pytest.raises(
        UserError, match=r"^aimed: target 3 is out of range: the model tells 3 classes apart, .* 0 to 2"
    ):
        evaluate(
            net(),
            x,
            y,
            threat=Linf(0.1),
            attacks=[("aimed", TargetedPGD(threat=Linf(0.1), target=3))],
            progress=lambda *done: calls.append(done),
        )
    assert not calls


def test_auto_pgd_aims_by_cross_entropy_too():
    """The loss that it raises is minus the cross entropy of the target."""
    model, x = linear([0.3]), torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    attack = APGD(threat=Linf(0.1), loss="targeted-ce", iterations=4)
    points = run(attack, model, x, torch.tensor([0]))
    assert points["broken"].all()
    with torch.no_grad():
        expected = -nn.functional.cross_entropy(model(points["x_best"]), torch.tensor([1]))
    assert float(points["loss_best"]) == pytest.approx(float(expected))
