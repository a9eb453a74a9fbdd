"""FMN: distances that are known in closed form, what always holds, the accuracy that follows, FAB beside it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support.helpers import Binary, Blocks, Passes, assert_untouched, batch, cnn, interior, mlp, snapshot
from uiat import L2, Linf
from uiat.attacks import FMN, minimum_norm
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import Search, advance, join, select
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import L1

BALL = {"Linf": Linf, "L2": L2, "L1": L1}
every_norm = pytest.mark.parametrize("norm", BALL)


def begin(attack, model, x, y, *, attempt=0, index=None):
    index = torch.arange(len(y)) if index is None else index
    with frozen(model):
        return attack.start(model, x, y, keys(0, index), attempt=attempt)


def binary(n=20):
    """A linear model, interior images, what it says of them, and how far the plane is from each in every norm."""
    model, x = Binary(torch.randn(64) / 20), interior(n)
    w = model.w.detach()
    # Close to the plane: in L1 one pixel goes the whole way, and should not meet the end of its range.
    x = x - 0.9 * ((x.flatten(1) @ w) / w.square().sum()).view(-1, 1, 1, 1) * w.view(1, 1, 8, 8)
    logits = model(x).detach()
    gap, w = (logits[:, 1] - logits[:, 0]).abs(), model.w.detach()
    return model, x, logits.argmax(1), {"Linf": gap / w.abs().sum(), "L2": gap / w.norm(), "L1": gap / w.abs().amax()}


# --- distances in closed form


@every_norm
def test_the_distance_to_a_plane(norm):
    model, x, y, distances = binary()
    expected = distances[norm]
    found = minimum_norm(model, x, y, norm=norm, steps=100)
    assert (found >= expected * (1 - 1e-4)).all()
    assert (found <= expected * 1.03).all()


@every_norm
def test_a_point_breaks_when_the_plane_is_within_epsilon(norm):
    model, x, y, distances = binary()
    distance = distances[norm]
    nearest = distance.argmin()
    radius = distance[nearest].item()
    for scale, breaks in ((1.04, True), (0.99, False)):
        attack = FMN(threat=BALL[norm](radius * scale), iterations=60)
        points = begin(attack, model, x[nearest : nearest + 1], y[nearest : nearest + 1])
        points = advance(attack, model, points, 0, 60)
        assert points["broken"].item() == breaks
        assert (attack.threat.length(points["x_adv"] - x[nearest]) <= radius * scale * (1 + 1e-5)).all()


def test_the_first_radius_is_a_linear_models_guess_and_a_little_more():
    model, x, y, distances = binary()
    attack = FMN(threat=L2(1e-6), iterations=10)
    points = attack.iterate(model, begin(attack, model, x, y), 0)
    torch.testing.assert_close(points["radius"], 1.05 * distances["L2"], rtol=1e-3, atol=0)


def test_several_classes_are_reached_by_the_nearest_way():
    """Disjoint supports: the plane between y and k has the normal u_k - u_y, and its distance is known."""
    model, x = Blocks(4), interior(10)
    logits = model(x).detach()
    y = logits.argmax(1)
    u = model.u.detach()
    gaps = logits.gather(1, y[:, None]) - logits
    distance = gaps / torch.linalg.vector_norm(u[None] - u[y][:, None], dim=2)
    expected = distance.scatter(1, y[:, None], float("inf")).amin(1)
    found = minimum_norm(model, x, y, norm="L2", steps=100)
    # Gaps between logits are known to a rounding of the logits, which is all that there is next to a boundary.
    assert (found >= expected * (1 - 1e-4) - 1e-6).all()
    assert (found <= 1.1 * expected).float().mean() > 0.8


def test_fab_finds_the_same_distances():
    model, x, y, _ = binary(8)
    ours = minimum_norm(model, x, y, norm="L2", steps=100)
    theirs = minimum_norm(model, x, y, norm="L2", method="fab-t", steps=30)
    torch.testing.assert_close(ours, theirs, rtol=0.03, atol=0)


# --- what always holds


attacks = st.builds(
    FMN,
    threat=st.one_of(st.sampled_from([0.001, 0.1]).map(Linf), st.sampled_from([0.05, 3.0]).map(L2), st.just(L1(2.0))),
    iterations=st.integers(1, 5),
    restarts=st.just(2),
    step_size=st.sampled_from([0.1, 1.0]),
    gamma=st.sampled_from([0.05, 0.3]),
)


@settings(max_examples=15)
@given(attacks, st.sampled_from([mlp, cnn]), st.integers(2, 4), st.integers(0, 1), st.integers(1, 4))
def test_broken_for_good_in_the_ball_finite_and_the_model_untouched(attack, make, classes, attempt, n):
    model, x, y = make(classes=classes), batch(n).x, torch.arange(n) % classes
    before = snapshot(model)
    points = begin(attack, model, x, y, attempt=attempt)
    for i in range(attack.iterations):
        with frozen(model):
            after = attack.iterate(model, points, i)
            wrong = model(after["x_adv"]).argmax(1) != y
        assert (wrong | ~after["broken"]).all()
        assert (after["broken"] | ~points["broken"]).all()
        assert torch.equal(after["x_adv"][points["broken"]], points["x_adv"][points["broken"]])
        assert (after["distance"] <= points["distance"]).all()
        assert all(v.isfinite().all() for k, v in after.items() if v.is_floating_point() and k != "distance")
        assert after.keys() == points.keys()
        for place in (after["x_adv"], after["x_t"]):
            assert 0 <= place.min() <= place.max() <= 1
        distance = attack.threat.length(after["x_adv"] - x)
        assert (distance <= float(attack.threat.epsilon) * (1 + 1e-5) + 1e-6).all()
        points = after
    assert_untouched(model, before)


def test_a_point_goes_the_same_way_alone_in_a_batch_and_after_packing():
    model, b = mlp().double().eval(), batch(8)
    x, y, attack = b.x.double(), b.y, FMN(threat=L2(0.05), iterations=8)
    whole = begin(attack, model, x, y)
    packed = whole
    for i in range(8):
        whole = attack.iterate(model, whole, i)
        even = torch.arange(8) % 2 == 0
        packed = join([attack.iterate(model, select(packed, part), i) for part in (~even, even)])
    packed = select(packed, torch.stack([(packed["key"] == k).nonzero()[0, 0] for k in whole["key"]]))
    for name in ("broken", "distance", "x_adv"):
        torch.testing.assert_close(packed[name], whole[name], rtol=0, atol=1e-9)


def test_what_is_misclassified_already_is_at_no_distance():
    model, x, y, _ = binary()
    assert (minimum_norm(model, x, 1 - y, steps=2) == 0).all()
    assert begin(FMN(threat=L2(0.1)), model, x, 1 - y)["broken"].all()


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_constant_logits_have_no_boundary(classes):
    class Constant(nn.Module):
        def forward(self, x):
            return 0 * x.flatten(1).sum(1, keepdim=True) + torch.zeros(classes)

    x, y = interior(3), torch.zeros(3, dtype=torch.int64)
    assert minimum_norm(Constant(), x, y, steps=5).isinf().all()


def test_what_an_attempt_costs():
    model, x = Passes(cnn()), batch().x
    attack = FMN(threat=Linf(1e-6), iterations=10)
    points = begin(attack, model, x, model.inner.eval()(x).argmax(1))
    with frozen(model):
        advance(attack, model, points, 0, 10)
    assert dict(model.forwards) == {"crafting": 11}
    assert dict(model.backwards) == {"crafting": 10}


def test_it_is_a_search():
    attack = FMN(threat=L2(0.5), restarts=3)
    assert isinstance(attack, Search)
    assert (attack.name, attack.iterations, [attack.attempts(k) for k in (1, 2, 10)]) == ("fmn", 100, [0, 3, 3])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threat": 0.1}, "threat must be a threat model"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"step_size": 0.0}, "step_size must be a positive number"),
        ({"step_size": float("nan")}, "step_size must be a positive number"),
        ({"gamma": 1.0}, "gamma is a share"),
    ],
)
def test_settings_out_of_range_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        FMN(**{"threat": L2(0.5), **changes})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [({"norm": "L3"}, "unknown norm 'L3'"), ({"method": "fnm"}, "did you mean 'fmn'"), ({"steps": 0}, "at least 1")],
)
def test_distances_that_cannot_be_meant_are_refused(changes, says):
    model, x, y, _ = binary()
    with pytest.raises(UserError, match=says):
        minimum_norm(model, x, y, **changes)
    with pytest.raises(UserError, match="divide by 255"):
        minimum_norm(model, 255 * x, y)
