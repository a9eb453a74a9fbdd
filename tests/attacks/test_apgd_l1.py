"""Auto-PGD for L1: the best a linear model allows, the balls and the sparsity by hand, what always holds."""

import logging

import pytest
import torch

from support.helpers import Binary, assert_as_strong, batch, interior, mlp
from support.searches import LOSSES, robust_images, run, start
from uiat import L2, Linf
from uiat.attacks.apgd_l1 import SparseAPGD
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import L1

every_loss = pytest.mark.parametrize("loss", LOSSES)


def best_rise(slope, x, epsilon):
    """How far a linear function can rise: the steepest pixels use up their room, one after the other."""
    rows = torch.where(slope > 0, 1 - x, x).flatten(1)
    order = slope.flatten(1).abs().argsort(dim=1, descending=True)
    room, steepness = rows.gather(1, order), slope.flatten(1).abs().gather(1, order)
    used = torch.minimum(room, (epsilon - (room.cumsum(1) - room)).clamp_min(0))
    return (used * steepness).sum(1)


@every_loss
@pytest.mark.parametrize("shrinking", [True, False])
def test_it_breaks_what_a_linear_model_lets_break(loss, shrinking):
    model, x = Binary(torch.randn(64)), interior(40)
    logits = model(x).detach()
    y, gap = logits.argmax(1), (logits[:, 1] - logits[:, 0]).abs()
    slope = torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1) * model.w.detach().view(1, 1, 8, 8)
    epsilon = next(
        e for e in torch.linspace(0.05, 9, 200).tolist() if (best_rise(slope, x, e) > gap).float().mean() > 0.5
    )
    reach = best_rise(slope, x, epsilon)
    attack = SparseAPGD(threat=L1(epsilon), loss=loss, iterations=40, shrinking=shrinking)
    broken = run(attack, model, x, y)["broken"]
    assert broken[gap < 0.97 * reach].all()
    assert not broken[gap > 1.001 * reach].any()


@pytest.mark.parametrize(
    ("iterations", "shrinking", "phases"),
    [
        (100, True, [(0, 3.0), (30, 2.0), (60, 1.0)]),
        (10, True, [(0, 3.0), (3, 2.0), (6, 1.0)]),
        (3, True, [(0, 3.0), (1, 2.0), (2, 1.0)]),
        (2, True, [(0, 1.0)]),
        (1, True, [(0, 1.0)]),
        (100, False, [(0, 1.0)]),
    ],
)
def test_the_phases_are_those_of_the_paper(iterations, shrinking, phases):
    assert SparseAPGD(threat=L1(1.0), iterations=iterations, shrinking=shrinking)._phases() == phases


def test_a_phase_begins_at_the_best_iterate_of_the_last():
    model, b = mlp(), batch()
    attack = SparseAPGD(threat=L1(0.05), iterations=10)
    points = start(attack, model, b.x, b.y)
    with frozen(model):
        for i in range(10):
            radius = [0.15, 0.1, 0.05][min(i // 3, 2)]
            before, points = points, attack.iterate(model, points, i)
            distance = attack.threat.length(points["x_t"] - b.x)
            assert (distance <= radius * (1 + 1e-5)).all()
            if i in (3, 6):
                expected = L1(radius).project(before["x_best"], b.x)
                assert (attack.threat.length(points["x_t"] - expected) <= radius * (1 + 1e-4)).all()
    assert (points["step"] <= 0.05 * (1 + 1e-6)).all()


def test_the_largest_radius_has_no_larger_ball():
    x = interior(2)
    points = start(SparseAPGD(threat=L1(900), iterations=10), mlp(), x, torch.tensor([0, 1]))
    assert points["step"].tolist() == [999.0, 999.0]


def test_a_step_changes_the_fraction_of_pixels_in_the_state():
    attack = SparseAPGD(threat=L1(1.0))
    gradient = torch.tensor([[4.0, -3.0, 2.0, -1.0, 0.0]])
    points = {"x": torch.zeros(1, 5), "gradient": gradient, "step": torch.tensor([0.6]), "share": torch.tensor([0.4])}
    torch.testing.assert_close(attack._step(points), torch.tensor([[0.3, -0.3, 0.0, 0.0, 0.0]]))
    everything = attack._step(points | {"share": torch.tensor([1.0])})
    torch.testing.assert_close(everything, torch.tensor([[0.15, -0.15, 0.15, -0.15, 0.0]]))
    assert torch.equal(attack._step(points | {"gradient": 0 * gradient}), torch.zeros(1, 5))


@pytest.mark.parametrize(
    ("pixels", "before", "step", "expected"),
    [
        (6, 8, 0.5, (1.0, True)),  # sparser: a whole step, from the best point
        (8, 8, 0.6, (0.4, False)),
        (8, 8, 0.11, (0.1, False)),  # no shorter than a tenth
    ],
)
def test_when_a_perturbation_has_become_sparser(pixels, before, step, expected):
    x = torch.zeros(1, 10)
    best = (torch.arange(10) < pixels).float()[None] / 10
    points = {
        "x": x,
        "x_t": torch.full((1, 10), 0.1),
        "x_best": best,
        "gradient": torch.zeros(1, 10),
        "gradient_best": torch.ones(1, 10),
        "pixels": torch.tensor([float(before)]),
        "share": torch.tensor([0.2]),
        "step": torch.tensor([step]),
        "broken": torch.tensor([False]),
    }
    after = SparseAPGD(threat=L1(1.0), shrinking=False)._adapt_step(points, 0)
    assert after["step"].item() == pytest.approx(expected[0])
    assert torch.equal(after["x_t"], best if expected[1] else points["x_t"])
    assert after["gradient"][0, 0].item() == float(expected[1])
    assert after["share"].item() == pytest.approx(pixels / 15)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threat": Linf(0.1)}, "for Linf use APGD"),
        ({"threat": L2(0.1)}, "for L2 use APGD"),
        ({"loss": "dlt"}, "did you mean 'dlr'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        SparseAPGD(**{"threat": L1(1.0), **changes})


# --- the reference


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted-dlr"])
def test_apgd_breaks_what_the_reference_breaks(digits, loss):
    module = pytest.importorskip("pyautoattack.autopgd_base")
    model, x, y = digits
    options = {"n_iter": 40, "norm": "L1", "eps": 1.3, "device": torch.device("cpu"), "use_largereps": True}
    options["logger"] = logging.getLogger("reference")  # told of zero gradients, which would be warnings without it

    def reference(seed):
        if loss == "targeted-dlr":
            theirs = module.APGDAttack_targeted(model, n_target_classes=2, seed=seed, **options)
        else:
            theirs = module.APGDAttack(model, loss=loss, seed=seed, **options)
        return model(theirs.perturb(x, y)).argmax(1) == y

    theirs = torch.stack([reference(seed) for seed in range(5)])
    attack = SparseAPGD(threat=L1(1.3), loss=loss, iterations=40, targets=2)
    ours = torch.stack([robust_images(attack, model, x, y, seed=seed) for seed in range(5)])
    assert 0.1 < theirs.float().mean() < 0.9
    within = (theirs == theirs.roll(1, 0)).float().mean()  # random starts decide about a tenth of the images
    assert_as_strong(ours, theirs, weaker=0.04, agree=within - 0.04)
    assert (ours[:, None] == theirs).float().mean() > within - 0.04
