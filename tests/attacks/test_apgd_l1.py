"""Auto-PGD for L1: the best a linear model allows, the balls and the sparsity by hand, what always holds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support.helpers import Binary, Passes, assert_untouched, batch, cnn, interior, mlp, snapshot
from uiat import L2, Linf
from uiat.attacks.apgd_l1 import SparseAPGD
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import Search, advance, join, select
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import L1

LOSSES = ["ce", "dlr", "targeted-dlr"]
every_loss = pytest.mark.parametrize("loss", LOSSES)


def begin(attack, model, x, y, *, attempt=0, index=None):
    index = torch.arange(len(y)) if index is None else index
    with frozen(model):
        return attack.start(model, x, y, keys(0, index), attempt=attempt)


def run(attack, model, x, y, **how):
    points = begin(attack, model, x, y, **how)
    with frozen(model):
        for i in range(attack.iterations):
            points = attack.iterate(model, points, i)
    return points


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
    ("iterations", "shrinking", "edges"),
    [
        (100, True, [(0, 3.0), (30, 2.0), (60, 1.0)]),
        (10, True, [(0, 3.0), (3, 2.0), (6, 1.0)]),
        (3, True, [(0, 3.0), (1, 2.0), (2, 1.0)]),
        (2, True, [(0, 1.0)]),
        (1, True, [(0, 1.0)]),
        (100, False, [(0, 1.0)]),
    ],
)
def test_the_balls_are_those_of_the_paper(iterations, shrinking, edges):
    assert SparseAPGD(threat=L1(1.0), iterations=iterations, shrinking=shrinking)._edges() == edges


def test_a_ball_is_begun_anew_from_the_best_point_of_the_last():
    model, b = mlp(), batch()
    attack = SparseAPGD(threat=L1(0.05), iterations=10)
    points = begin(attack, model, b.x, b.y)
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
    points = begin(SparseAPGD(threat=L1(900), iterations=10), mlp(), x, torch.tensor([0, 1]))
    assert points["step"].tolist() == [999.0, 999.0]


def test_a_step_changes_the_share_of_pixels_that_it_is_told():
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
    after = SparseAPGD(threat=L1(1.0), shrinking=False)._checked(points, 0)
    assert after["step"].item() == pytest.approx(expected[0])
    assert torch.equal(after["x_t"], best if expected[1] else points["x_t"])
    assert after["gradient"][0, 0].item() == float(expected[1])
    assert after["share"].item() == pytest.approx(pixels / 15)


attacks = st.builds(
    SparseAPGD,
    threat=st.sampled_from([0.01, 1.0, 30.0]).map(L1),
    loss=st.sampled_from(LOSSES),
    iterations=st.integers(1, 6),
    shrinking=st.booleans(),
)


@settings(max_examples=15)
@given(attacks, st.sampled_from([mlp, cnn]), st.sampled_from([2, 3, 4]), st.integers(1, 4))
def test_always_in_the_ball_finite_broken_for_good_and_the_model_untouched(attack, make, classes, n):
    model, x, y = make(classes=classes), batch(n).x, torch.arange(n) % classes
    before = snapshot(model)
    points = begin(attack, model, x, y)
    for i in range(attack.iterations):
        with frozen(model):
            after = attack.iterate(model, points, i)
            wrong = model(after["x_adv"]).argmax(1) != y
        assert (wrong | ~after["broken"]).all()
        assert (after["broken"] | ~points["broken"]).all()
        assert torch.equal(after["x_adv"][points["broken"]], points["x_adv"][points["broken"]])
        assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())
        assert {key: (v.dtype, v.shape) for key, v in after.items()} == {
            key: (v.dtype, v.shape) for key, v in points.items()
        }
        for place in (after["x_adv"], after["x_t"]):
            assert 0 <= place.min() <= place.max() <= 1
        distance = attack.threat.length(after["x_adv"].double() - x.double())
        assert (distance <= float(attack.threat.epsilon) * (1 + 1e-5) + 1e-5).all()
        points = after
    assert_untouched(model, before)


def test_a_point_goes_the_same_way_alone_in_a_batch_and_after_packing():
    model, b = mlp().double().eval(), batch(8)
    x, y, attack = b.x.double(), b.y, SparseAPGD(threat=L1(0.5), iterations=9)
    whole = run(attack, model, x, y)
    alone = join([run(attack, model, x[i : i + 1], y[i : i + 1], index=torch.tensor([i])) for i in range(8)])
    packed = begin(attack, model, x, y)
    for i in range(9):
        even = torch.arange(8) % 2 == 0
        packed = join([attack.iterate(model, select(packed, part), i) for part in (~even, even)])
    packed = select(packed, torch.stack([(packed["key"] == k).nonzero()[0, 0] for k in whole["key"]]))
    for other in (alone, packed):
        assert other.keys() == whole.keys()
        assert torch.equal(other["broken"], whole["broken"])
        torch.testing.assert_close(other["x_adv"], whole["x_adv"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "forwards", "backwards"),
    [({}, 13, 10), ({"shrinking": False}, 11, 10), ({"loss": "targeted-dlr"}, 14, 10), ({"draws": 3}, 39, 39)],
)
def test_what_an_attempt_costs(changes, forwards, backwards):
    model, b = Passes(mlp()), batch()
    run(SparseAPGD(threat=L1(0.01), iterations=10, **changes), model, b.x, b.y)
    assert dict(model.forwards) == {"crafting": forwards}
    assert dict(model.backwards) == {"crafting": backwards}


def test_it_is_a_search_with_the_names_and_attempts_of_the_others():
    attack = SparseAPGD(threat=L1(12), loss="targeted-dlr", targets=5)
    assert isinstance(attack, Search)
    assert (attack.name, [attack.attempts(k) for k in (1, 2, 10)]) == ("apgd-t", [0, 1, 5])
    assert SparseAPGD(threat=L1(12), restarts=5).attempts(10) == 5


@every_loss
@pytest.mark.parametrize("classes", [2, 3])
def test_constant_logits_are_left_standing(loss, classes):
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1).sum(1, keepdim=True) + torch.zeros(classes)

    points = run(SparseAPGD(threat=L1(1.0), loss=loss, iterations=6), Constant(), batch(3).x, torch.zeros(3).long())
    assert not points["broken"].any()
    assert all(value.isfinite().all() for value in points.values() if value.is_floating_point())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threat": Linf(0.1)}, "for Linf use APGD"),
        ({"threat": L2(0.1)}, "for L2 use APGD"),
        ({"threat": "L1:12"}, "threat must be a threat model"),
        ({"loss": "dlt"}, "did you mean 'dlr'"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"draws": 0}, "draws must be at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        SparseAPGD(**{"threat": L1(1.0), **changes})


def test_points_that_leave_when_they_break_are_the_same():
    model, b = mlp(), batch(10)
    attack = SparseAPGD(threat=L1(1.0), iterations=9)
    whole = run(attack, model, b.x, b.y)
    with frozen(model):
        packed = advance(attack, model, begin(attack, model, b.x, b.y), 0, 9)
    assert torch.equal(packed["broken"], whole["broken"])
