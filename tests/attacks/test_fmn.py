"""FMN: distances that are known in closed form, what always holds, the accuracy that follows, FAB beside it."""

import pytest
import torch

from support.helpers import Blocks, interior
from support.searches import constant, linear, start
from uiat import L2
from uiat.attacks import FMN, minimum_norm
from uiat.errors import UserError
from uiat.threat import NORMS

every_norm = pytest.mark.parametrize("norm", NORMS)


# --- distances in closed form


@every_norm
def test_the_distance_to_a_plane(norm):
    model, x, y, distances = linear()
    expected = distances[norm]
    found = minimum_norm(model, x, y, norm=norm, steps=100)
    assert (found >= expected * (1 - 1e-4)).all()
    assert (found <= expected * 1.03).all()


def test_the_first_radius_is_a_linear_models_guess_and_a_little_more():
    model, x, y, distances = linear()
    attack = FMN(threat=L2(1e-6), iterations=10)
    points = attack.iterate(model, start(attack, model, x, y), 0)
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
    model, x, y, _ = linear(8)
    ours = minimum_norm(model, x, y, norm="L2", steps=100)
    theirs = minimum_norm(model, x, y, norm="L2", method="fab-t", steps=30)
    torch.testing.assert_close(ours, theirs, rtol=0.03, atol=0)


# --- what always holds


def test_what_is_misclassified_already_is_at_no_distance():
    model, x, y, _ = linear()
    assert (minimum_norm(model, x, 1 - y, steps=2) == 0).all()
    assert start(FMN(threat=L2(0.1)), model, x, 1 - y)["broken"].all()


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_constant_logits_have_no_boundary(classes):
    x, y = interior(3), torch.zeros(3, dtype=torch.int64)
    assert minimum_norm(constant(classes), x, y, steps=5).isinf().all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"step_size": 0.0}, "step_size must be above 0"),
        ({"step_size": float("nan")}, "step_size must be above 0"),
        ({"gamma": 1.0}, "gamma must be below 1"),
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
    model, x, y, _ = linear()
    with pytest.raises(UserError, match=says):
        minimum_norm(model, x, y, **changes)
    with pytest.raises(UserError, match="divide by 255"):
        minimum_norm(model, 255 * x, y)
