"""Auto-PGD: closed forms, the schedule by hand, what always holds, what a batch has no say in, the reference."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from support.balls import length
from support.helpers import (
    Blocks,
    assert_as_strong,
    batch,
    interior,
    mlp,
)
from support.searches import LOSSES, Function, robust_images, run, start
from uiat import L1, L2, Linf, losses
from uiat.attacks.apgd import APGD, checkpoint_steps
from uiat.attacks.apgd_loss import loss_values
from uiat.errors import UserError
from uiat.models.modes import frozen

THREATS = [Linf(0.1), L2(0.5)]
every_loss = pytest.mark.parametrize("loss", LOSSES)
every_threat = pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)


# --- closed form on linear models


def test_one_step_of_twice_epsilon_reaches_the_corner():
    model, x = Blocks(4), interior(4)
    y = torch.arange(4)
    points = run(APGD(threat=Linf(0.1), loss="ce", iterations=1), model, x, y)
    first = start(APGD(threat=Linf(0.1), loss="ce"), model, x, y)
    expected = torch.where(first["broken"].view(-1, 1, 1, 1), first["x_adv"], x + 0.1 * model.w[y].view_as(x).sign())
    assert torch.equal(points["x_adv"], expected)


class Fixed(nn.Module):
    """Images (B, 1): the loss is their only pixel, so what the attack does can be worked out by hand."""

    def __init__(self, slope=1.0):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return torch.cat([100 - self.slope * x, 0 * x], dim=1)


def test_momentum_by_hand():
    """At a constant gradient: the first step is whole, later ones three quarters and a quarter of the last move."""
    attack = APGD(threat=Linf(0.3), loss="dlr", iterations=100)
    points = start(attack, Fixed(), torch.full((1, 1), 0.5), torch.tensor([0]))
    points |= {"x_adv": torch.full((1, 1), 0.4), "step": torch.tensor([0.08])}
    points = attack.iterate(Fixed(), points, 0)
    assert points["x_adv"][0].item() == pytest.approx(0.48)
    points = attack.iterate(Fixed(), points, 1)
    assert points["x_adv"][0].item() == pytest.approx(0.48 + 0.75 * 0.08 + 0.25 * 0.08)
    points = attack.iterate(Fixed(), points | {"step": torch.tensor([0.04])}, 2)
    assert points["x_adv"][0].item() == pytest.approx(0.56 + 0.75 * 0.04 + 0.25 * 0.08)


# --- the schedule


def test_checkpoints_of_the_paper():
    assert checkpoint_steps(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoint_steps(1_000)[:3] == (220, 410, 570)
    assert checkpoint_steps(10) == (3, 5, 6, 7, 8, 9)
    assert checkpoint_steps(1) == ()


@given(st.integers(1, 300))
def test_checkpoints_rise_and_lie_within_the_budget(iterations):
    found = checkpoint_steps(iterations)
    assert list(found) == sorted(set(found))
    assert all(0 < at < iterations for at in found)


def state(**changes):
    """A point at a checkpoint after twenty steps: 0.7 its best place, 0.2 where it is."""
    points = {
        "x_adv": torch.tensor([[0.2]]),
        "x_best": torch.tensor([[0.7]]),
        "gradient": torch.tensor([[1.0]]),
        "gradient_best": torch.tensor([[2.0]]),
        "loss": torch.tensor([1.0]),
        "loss_best": torch.tensor([3.0]),
        "loss_best_then": torch.tensor([2.0]),
        "rises": torch.tensor([20]),
        "step": torch.tensor([0.8]),
        "halved": torch.tensor([True]),
        "broken": torch.tensor([False]),
    }
    return points | {name: torch.tensor(value) for name, value in changes.items()}


@pytest.mark.parametrize(
    ("changes", "halves"),
    [
        ({}, False),
        ({"rises": [15]}, False),  # three quarters of them is enough
        ({"rises": [14]}, True),
        ({"loss_best_then": [3.0]}, False),  # no better, but the step was halved at the last checkpoint
        ({"loss_best_then": [3.0], "halved": [False]}, True),
        ({"halved": [False]}, False),
    ],
)
def test_when_a_step_is_halved(changes, halves):
    after = APGD(threat=Linf(0.1))._adapt_step(state(**changes), steps=20)
    assert after["halved"].item() == halves
    assert after["step"].item() == pytest.approx(0.4 if halves else 0.8)
    assert after["x_adv"].item() == pytest.approx(0.7 if halves else 0.2)
    assert after["gradient"].item() == (2.0 if halves else 1.0)
    assert after["loss"].item() == (3.0 if halves else 1.0)
    assert after["loss_best_then"].item() == 3.0
    assert after["rises"].item() == 0


def test_a_broken_point_does_not_go_back():
    after = APGD(threat=Linf(0.1))._adapt_step(state(rises=[0], broken=[True]), steps=20)
    assert after["x_adv"].item() == pytest.approx(0.2)


def test_the_checkpoints_are_where_steps_are_halved():
    """A constant loss never rises, so each checkpoint halves: the powers of two show where they are."""
    attack = APGD(threat=Linf(0.25), loss="ce", iterations=100)
    points = start(attack, Fixed(0.0), torch.full((1, 1), 0.5), torch.tensor([0]))
    halvings = []
    for i in range(100):
        after = attack.iterate(Fixed(0.0), points, i)
        if after["step"] < points["step"]:
            halvings.append(i + 1)
        points = after
    assert halvings == list(checkpoint_steps(100))
    assert points["step"].item() == 0.5 / 2**8


# --- starts and targets


def test_starts_lie_on_the_sphere():
    x, y = torch.full((50, 1, 8, 8), 0.5), torch.zeros(50, dtype=torch.int64)
    for threat in THREATS:
        points = start(APGD(threat=threat), Blocks(4), x, y)
        distance = length(threat, points["x_adv"].double() - x.double())
        torch.testing.assert_close(distance, torch.full_like(distance, float(threat.epsilon)), rtol=1e-4, atol=0)
        assert torch.equal(points["x_adv"], points["x_old"])
        assert (points["step"] == 2 * float(threat.epsilon)).all()


def test_the_targeted_attack_raises_the_ratio_of_its_target():
    model, x = Blocks(4), interior(8)
    logits = model(x).detach()
    y, order = logits.argmax(1), logits.argsort(dim=1, descending=True)
    for attempt in range(3):
        points = run(APGD(threat=Linf(0.02), loss="targeted-dlr", iterations=5), model, x, y, attempt=attempt)
        assert torch.equal(points["target"], order[:, attempt + 1])
        assert (points["loss_best"] > losses.dlr_targeted(logits, y, points["target"]))[~points["broken"]].all()


# --- what always holds

attacks = st.builds(
    APGD,
    threat=st.one_of(st.sampled_from([0.001, 8 / 255, 0.3]).map(Linf), st.sampled_from([0.05, 0.5, 3.0]).map(L2)),
    loss=st.sampled_from(LOSSES),
    iterations=st.integers(1, 8),
    rho=st.sampled_from([0.5, 0.75, 1.0]),
)


@given(attacks, st.integers(0, 2**31))
def test_the_best_loss_is_the_loss_at_the_best_place_and_never_falls(attack, seed):
    model, b = mlp(), batch()
    points = start(attack, model, b.x, b.y, seed=seed)
    for i in range(attack.iterations):
        with frozen(model):
            after = attack.iterate(model, points, i)
            value = loss_values(attack.loss, model(after["x_best"]), after)
        assert (after["loss_best"] >= points["loss_best"]).all()
        torch.testing.assert_close(value, after["loss_best"], rtol=1e-4, atol=1e-5)
        points = after


@every_threat
def test_gradients_that_are_not_numbers_break_nothing(threat):
    """The root has an infinite slope at zero, and zero times infinity is not a number."""

    def root(x):
        score = (0 * x.flatten(1).sum(1, keepdim=True)).sqrt()
        return torch.cat([1 + score, -score], dim=1)

    x, y = batch(4).x, torch.zeros(4, dtype=torch.int64)
    points = run(APGD(threat=threat, loss="dlr", iterations=4), Function(root), x, y)
    assert points["x_adv"].isfinite().all()
    assert not points["broken"].any()


def test_dlr_attacks_a_model_whose_cross_entropy_has_no_gradient():
    """Logits a thousand times as large leave no gradient of cross entropy in single precision, and DLR as it was."""
    model, x = Blocks(4), interior(30)
    y = model(x).argmax(1)
    loud = Blocks(4)
    loud.u.data = 1e3 * model.u.data
    of = {loss: APGD(threat=Linf(0.1), loss=loss, iterations=10) for loss in LOSSES}
    robust = {loss: robust_images(attack, loud, x, y) for loss, attack in of.items()}
    assert torch.equal(robust["dlr"], robust_images(of["dlr"], model, x, y))
    assert torch.equal(robust["targeted-dlr"], robust_images(of["targeted-dlr"], model, x, y))
    assert robust["targeted-dlr"].sum() <= robust["dlr"].sum() < robust["ce"].sum()


# --- independence of the batch, determinism


# --- cost and bad input


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threat": L1(12)}, "none for L1: see SparseAPGD"),
        ({"loss": "dlt"}, "did you mean 'dlr'"),
        ({"rho": 0.0}, "rho must be above 0"),
        ({"rho": 1.5}, "rho must be at most 1"),
        ({"rho": float("nan")}, "rho must be above 0, but is nan"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        APGD(**{"threat": Linf(0.1), **changes})


# --- parity with the reference implementation


@pytest.mark.parametrize("threat", [Linf(0.15), L2(0.6)], ids=lambda threat: threat.norm)
@every_loss
def test_verdicts_are_those_of_the_reference(digits, threat, loss):
    reference = pytest.importorskip("pyautoattack.autopgd_base")
    model, x, y = digits
    targets = {"targets": 2} if loss == "targeted-dlr" else {}
    robust = robust_images(APGD(threat=threat, loss=loss, iterations=20, **targets), model, x, y)
    settings = {"n_iter": 20, "norm": threat.norm, "eps": float(threat.epsilon), "device": torch.device("cpu")}
    settings["logger"] = logging.getLogger("reference")  # told of zero gradients, which would be warnings without it
    if loss == "targeted-dlr":
        theirs = reference.APGDAttack_targeted(model, n_target_classes=2, **settings)
    else:
        theirs = reference.APGDAttack(model, loss=loss, **settings)
    with frozen(model):
        expected = model(theirs.perturb(x, y)).argmax(1) == y
    assert 0.2 < expected.float().mean() < 0.9
    assert_as_strong(robust, expected, weaker=0.035, agree=0.93)
