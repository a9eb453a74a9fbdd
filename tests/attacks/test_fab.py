"""FAB-T: closed forms on linear models, what always holds, what it costs, and that the reference says the same."""

import pytest
import torch

from support.helpers import Blocks, assert_as_strong, interior
from support.searches import Function, attacked, linear, robust_images, start
from uiat import L2, Linf
from uiat.attacks.fab import FAB
from uiat.attacks.search import advance
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import L1


def fab(iterations=5, **settings):
    return FAB(**{"threat": Linf(0.1), "iterations": iterations, **settings})


# --- closed form on a linear model


@pytest.mark.parametrize("threat", [Linf(1e-6), L2(1e-6)], ids=["Linf", "L2"])
def test_the_first_step_goes_eta_of_the_way_and_later_ones_come_back_to_the_plane(threat):
    model, x, y, distances = linear()
    distance = distances[threat.norm].detach()
    points = start(fab(30, threat=threat), model, x, y)
    assert torch.equal(points["x_t"], x)
    assert points["distance"].isinf().all()
    points = fab(1, threat=threat).iterate(model, points, 0)
    torch.testing.assert_close(points["distance"], 1.05 * distance, rtol=1e-4, atol=0)
    points = advance(fab(30, threat=threat), model, start(fab(30, threat=threat), model, x, y), 0, 30)
    assert (points["distance"] >= distance * (1 - 1e-4)).all()
    assert (points["distance"] <= distance * 1.01).all()


@pytest.mark.parametrize(("alpha_max", "alpha"), [(0.01, 0.01), (1.0, 0.055 / 1.055)])
def test_the_image_pulls_by_how_much_nearer_the_iterate_is_up_to_alpha_max(alpha_max, alpha):
    """After the first step and beta, the iterate is at 1.05 x 0.9 = 0.945 of the way, so 0.055 of it is left."""
    model, x, y, distances = linear()
    attack = fab(2, threat=Linf(1e-6), alpha_max=alpha_max)
    points = advance(attack, model, start(attack, model, x, y), 0, 2)
    share = (1 - alpha) * (0.945 + 1.05 * 0.055) + alpha * 1.05
    torch.testing.assert_close(points["distance"], share * distances["Linf"].detach(), rtol=1e-4, atol=0)


def test_what_breaks_a_point_is_what_the_threat_model_left_of_the_iterate(monkeypatch):
    model, x, y, _ = linear()
    real, left = Linf.project, []
    monkeypatch.setattr(Linf, "project", lambda *images: left.append(real(*images)) or left[-1])
    broken, x_adv = attacked(fab(5, threat=Linf(0.3)), model, x, y)
    assert broken.all()
    assert all(any(torch.equal(image, other) for batch in left for other in batch) for image in x_adv)
    monkeypatch.setattr(Linf, "project", lambda self, x_adv, x: x)  # nothing is left, so nothing breaks
    assert not attacked(fab(5, threat=Linf(0.3)), model, x, y)[0].any()


def test_it_aims_at_one_class_after_the_other_in_the_order_of_the_images_logits():
    model, x = Blocks(4), interior(5)
    order = model(x).detach().argsort(dim=1, descending=True)
    aims = [start(fab(), model, x, order[:, 0], attempt=j)["target"] for j in range(3)]
    assert torch.equal(torch.stack(aims, dim=1), order[:, 1:])


def test_what_is_misclassified_already_is_broken_as_it_is():
    model, x, y, _ = linear()
    points = start(fab(), model, x, 1 - y)
    assert points["broken"].all()
    assert torch.equal(points["x_adv"], x)
    assert (points["distance"] == 0).all()
    assert torch.equal(points["target"], y)


@pytest.mark.parametrize("kind", [Linf, L2])
def test_later_rounds_start_at_random_within_half_of_epsilon(kind):
    model, x = Blocks(4), interior(40)
    y, attack = model(x).argmax(1), fab(threat=kind(0.1), restarts=2)
    points = start(attack, model, x, y, attempt=3)
    delta = points["x_t"] - x
    torch.testing.assert_close(attack.threat.length(delta), torch.full((40,), 0.05))
    assert abs(delta.mean()) < 0.01
    assert torch.equal(points["target"], start(attack, model, x, y, attempt=0)["target"])
    assert torch.equal(start(attack, model, x, y, attempt=3)["x_t"], points["x_t"])
    for other in ({"attempt": 4}, {"attempt": 3, "seed": 1}):
        assert not torch.equal(start(attack, model, x, y, **other)["x_t"], points["x_t"])


# --- several classes, without targets


def test_without_targets_the_nearest_of_several_planes_is_reached():
    model, x = Blocks(4), interior(12)
    logits, u = model(x).detach(), model.u.detach()
    y = logits.argmax(1)
    way = (logits.gather(1, y[:, None]) - logits) / torch.linalg.vector_norm(u[None] - u[y][:, None], dim=2)
    expected = way.scatter(1, y[:, None], float("inf")).amin(1)
    attack = FAB(threat=L2(1e-6), iterations=30, targeted=False)
    found = advance(attack, model, start(attack, model, x, y), 0, 30)["distance"]
    assert (found >= expected * (1 - 1e-4)).all()
    assert (found <= expected * 1.05).float().mean() > 0.8  # where [0, 1] is not in the way


# --- models that give little to go by


def of_sum(change):
    """A model whose logits are a function of the sum of an image's pixels."""
    return Function(lambda x: change(x.flatten(1).sum(1, keepdim=True)))


STILL = {
    "constant": lambda s: torch.cat([0 * s, 0 * s, 0 * s], 1),
    "flat": lambda s: torch.cat([1 + 0 * s, 0 * s], 1),
    "infinite gradient": lambda s: torch.cat([1 + (s - s.detach()).abs().sqrt(), 0 * s], 1),
    "huge": lambda s: torch.cat([1e30 + 1e30 * s, 0 * s], 1),
    "tiny": lambda s: torch.cat([1e-38 * s, -1e-38 * s], 1),
}


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=["Linf", "L2"])
@pytest.mark.parametrize("name", STILL)
def test_logits_that_cannot_change_class_break_nothing_and_make_no_nan(name, threat):
    x, y = interior(3), torch.zeros(3, dtype=torch.int64)
    attack = fab(5, threat=threat, restarts=2)
    for attempt in range(2):
        points = start(attack, of_sum(STILL[name]), x, y, attempt=attempt)
        points = advance(attack, of_sum(STILL[name]), points, 0, 5)
        assert not points["broken"].any()
        assert all(not v.isnan().any() for v in points.values())
        assert points["distance"].isinf().all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("n", [1, 4])
def test_few_classes_and_a_batch_of_one(classes, n):
    model, x = Blocks(classes), interior(n)
    y = model(x).argmax(1)
    broken, x_adv = attacked(fab(10, threat=Linf(0.3)), model, x, y)
    assert broken.all()
    assert (model(x_adv).argmax(1) != y).all()


# --- what is refused


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"alpha_max": -0.1}, "alpha_max must be at least 0"),
        ({"beta": 1.1}, "beta must be at most 1"),
        ({"eta": 0.9}, "eta must be at least 1"),
        ({"eta": float("nan")}, "eta must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        fab(**settings)


# --- against the reference


def test_the_reference_comes_as_near_in_one_attempt(digits):
    reference = pytest.importorskip("pyautoattack.fab_pt").FABAttack_PT
    model, x, y = digits
    attack = reference(model, norm="L2", n_iter=20, eps=1e-6, targeted=True, device="cpu", n_target_classes=1)
    attack.target_class = 2
    with frozen(model):
        theirs = L2(1e-6).length(attack.attack_single_run(x, y, is_targeted=True) - x)
        tiny = FAB(threat=L2(1e-6), iterations=20)
        ours = advance(tiny, model, start(tiny, model, x, y), 0, 20)["distance"]
    assert ((ours - theirs).abs() <= 0.02 * theirs).float().mean() > 0.9
    assert (ours <= 1.02 * theirs).float().mean() > 0.95


@pytest.mark.parametrize(
    ("threat", "targeted"), [(L1(1.3), True), (L1(1.3), False), (L2(0.6), False), (Linf(0.2), False)]
)
def test_fab_breaks_what_the_reference_breaks(digits, threat, targeted):
    module = pytest.importorskip("pyautoattack.fab_pt")
    model, x, y = digits
    other = module.FABAttack_PT(
        model,
        norm=threat.norm,
        n_iter=12,
        eps=float(threat.epsilon),
        targeted=targeted,
        device="cpu",
        n_target_classes=3,
    )
    theirs = other.perturb(x, y)
    expected = ~((model(theirs).argmax(1) != y) & (threat.length(theirs - x) <= float(threat.epsilon)))
    attack = FAB(threat=threat, iterations=12, targeted=targeted, targets=3)
    assert 0.1 < expected.float().mean() < 0.9
    assert_as_strong(robust_images(attack, model, x, y), expected, weaker=0.05, agree=0.96)
