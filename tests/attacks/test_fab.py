"""FAB-T: closed forms on linear models, what always holds, what it costs, and that the reference says the same."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from support.helpers import Binary, Blocks, Passes, assert_untouched, batch, cnn, interior, mlp, snapshot
from uiat import L2, Linf, data, override, recipes, train
from uiat.attacks.fab import FAB
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import Search, advance, join, select
from uiat.errors import UserError
from uiat.models.modes import frozen


def fab(iterations=5, **settings):
    return FAB(**{"threat": Linf(0.1), "iterations": iterations, **settings})


def begin(attack, model, x, y, *, attempt=0, seed=0):
    return attack.start(model, x, y, keys(seed, torch.arange(len(x))), attempt=attempt)


def search(attack, model, x, y, *, classes, seed=0):
    """All attempts, each on the points that still stand: (broken, x_adv)."""
    broken, x_adv = torch.zeros(len(x), dtype=torch.bool), x.clone()
    key = keys(seed, torch.arange(len(x)))
    with frozen(model):
        for attempt in range(attack.attempts(classes)):
            left = (~broken).nonzero().flatten()
            if len(left) == 0:
                break
            points = attack.start(model, x[left], y[left], key[left], attempt=attempt)
            points = advance(attack, model, points, 0, attack.iterations)
            broken[left], x_adv[left] = points["broken"], points["x_adv"]
    return broken, x_adv


def binary(n=6):
    """A linear model of two classes, images that it classifies correctly, labels, and the planes' distances."""
    model, x = Binary(torch.randn(64) / 20), interior(n)
    with torch.no_grad():
        logits = model(x)
    gap = (logits[:, 1] - logits[:, 0]).abs()
    return model, x, logits.argmax(1), {"Linf": gap / model.w.abs().sum(), "L2": gap / model.w.norm()}


# --- closed form on a linear model


@pytest.mark.parametrize("threat", [Linf(1e-6), L2(1e-6)], ids=["Linf", "L2"])
def test_the_first_step_goes_eta_of_the_way_and_later_ones_come_back_to_the_plane(threat):
    model, x, y, distances = binary()
    distance = distances[threat.norm].detach()
    points = begin(fab(30, threat=threat), model, x, y)
    assert torch.equal(points["x_t"], x)
    assert points["distance"].isinf().all()
    points = fab(1, threat=threat).iterate(model, points, 0)
    torch.testing.assert_close(points["distance"], 1.05 * distance, rtol=1e-4, atol=0)
    points = advance(fab(30, threat=threat), model, begin(fab(30, threat=threat), model, x, y), 0, 30)
    assert (points["distance"] >= distance * (1 - 1e-4)).all()
    assert (points["distance"] <= distance * 1.01).all()


@pytest.mark.parametrize(("alpha_max", "alpha"), [(0.01, 0.01), (1.0, 0.055 / 1.055)])
def test_the_image_pulls_by_how_much_nearer_the_iterate_is_up_to_alpha_max(alpha_max, alpha):
    """After the first step and beta, the iterate is at 1.05 x 0.9 = 0.945 of the way, so 0.055 of it is left."""
    model, x, y, distances = binary()
    attack = fab(2, threat=Linf(1e-6), alpha_max=alpha_max)
    points = advance(attack, model, begin(attack, model, x, y), 0, 2)
    share = (1 - alpha) * (0.945 + 1.05 * 0.055) + alpha * 1.05
    torch.testing.assert_close(points["distance"], share * distances["Linf"].detach(), rtol=1e-4, atol=0)


def test_what_breaks_a_point_is_what_the_threat_model_left_of_the_iterate(monkeypatch):
    model, x, y, _ = binary()
    real, left = Linf.project, []
    monkeypatch.setattr(Linf, "project", lambda *images: left.append(real(*images)) or left[-1])
    broken, x_adv = search(fab(5, threat=Linf(0.3)), model, x, y, classes=2)
    assert broken.all()
    assert all(any(torch.equal(image, other) for batch in left for other in batch) for image in x_adv)
    monkeypatch.setattr(Linf, "project", lambda self, x_adv, x: x)  # nothing is left, so nothing breaks
    assert not search(fab(5, threat=Linf(0.3)), model, x, y, classes=2)[0].any()


@pytest.mark.parametrize("kind", [Linf, L2])
def test_a_point_breaks_when_the_plane_is_within_epsilon(kind):
    model, x, y, distances = binary(3)
    for distance, image, label in zip(distances[kind.__name__].tolist(), x.split(1), y.split(1), strict=True):
        assert search(fab(30, threat=kind(distance * 1.01)), model, image, label, classes=2)[0].item()
        assert not search(fab(30, threat=kind(distance * 0.999)), model, image, label, classes=2)[0].item()


def test_it_aims_at_one_class_after_the_other_in_the_order_of_the_images_logits():
    model, x = Blocks(4), interior(5)
    order = model(x).detach().argsort(dim=1, descending=True)
    aims = [begin(fab(), model, x, order[:, 0], attempt=j)["target"] for j in range(3)]
    assert torch.equal(torch.stack(aims, dim=1), order[:, 1:])


@pytest.mark.parametrize(
    ("settings", "classes", "attempts"),
    [({}, 10, 9), ({}, 100, 9), ({}, 3, 2), ({}, 2, 1), ({}, 1, 0), ({"targets": 4, "restarts": 3}, 10, 12)],
)
def test_there_are_as_many_attempts_as_targets(settings, classes, attempts):
    assert fab(**settings).attempts(classes) == attempts


def test_what_is_misclassified_already_is_broken_as_it_is():
    model, x, y, _ = binary()
    points = begin(fab(), model, x, 1 - y)
    assert points["broken"].all()
    assert torch.equal(points["x_adv"], x)
    assert (points["distance"] == 0).all()
    assert torch.equal(points["target"], y)


@pytest.mark.parametrize("kind", [Linf, L2])
def test_later_rounds_start_at_random_within_half_of_epsilon(kind):
    model, x = Blocks(4), interior(40)
    y, attack = model(x).argmax(1), fab(threat=kind(0.1), restarts=2)
    points = begin(attack, model, x, y, attempt=3)
    delta = points["x_t"] - x
    torch.testing.assert_close(attack.threat.length(delta), torch.full((40,), 0.05))
    assert abs(delta.mean()) < 0.01
    assert torch.equal(points["target"], begin(attack, model, x, y, attempt=0)["target"])
    assert torch.equal(begin(attack, model, x, y, attempt=3)["x_t"], points["x_t"])
    for other in ({"attempt": 4}, {"attempt": 3, "seed": 1}):
        assert not torch.equal(begin(attack, model, x, y, **other)["x_t"], points["x_t"])


# --- what always holds

MODELS = {"linear": lambda: Blocks(4), "mlp": mlp, "cnn": cnn}
settings = st.builds(
    FAB,
    threat=st.one_of(st.sampled_from([0.001, 8 / 255, 0.3]).map(Linf), st.sampled_from([0.05, 0.5, 3.0]).map(L2)),
    iterations=st.integers(1, 4),
    targets=st.integers(1, 9),
    restarts=st.integers(1, 2),
    alpha_max=st.sampled_from([0.0, 0.1, 1.0]),
    eta=st.sampled_from([1.0, 1.05, 3.0]),
    beta=st.sampled_from([0.0, 0.9, 1.0]),
)


@given(settings, st.sampled_from(sorted(MODELS)), st.sampled_from([torch.float32, torch.float64]), st.integers(1, 9))
def test_what_is_broken_is_misclassified_in_the_ball_and_in_range(attack, name, dtype, n):
    model = MODELS[name]().to(dtype)
    x, y = batch(n).x.to(dtype), batch(n).y
    before, image = snapshot(model), x.clone()
    broken, x_adv = search(attack, model, x, y, classes=4)
    assert_untouched(model, before)
    assert torch.equal(x, image)
    assert (x_adv.dtype, x_adv.requires_grad) == (dtype, False)
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert (attack.threat.length(x_adv - x) <= float(attack.threat.epsilon) * (1 + 1e-6) + 1e-7).all()
    again = attack.threat.project(x_adv, x)
    torch.testing.assert_close(again, x_adv, rtol=0, atol=1e-7)
    assert torch.equal(x_adv[~broken], x[~broken])
    with frozen(model), torch.no_grad():
        logits = model(x_adv)
    wrong = logits.argmax(1) != y
    close = logits.topk(2).values.diff(dim=1).abs().squeeze(1) < 1e-5  # another batch may round the other way
    assert (wrong == broken)[~close].all()


@given(settings, st.sampled_from(sorted(MODELS)))
def test_verdicts_stay_and_every_tensor_is_finite(attack, name):
    model, b = MODELS[name](), batch(8)
    attack = replace(attack, iterations=6)
    with frozen(model):
        points = begin(attack, model, b.x, b.y)
        for i in range(6):
            old, points = points, attack.iterate(model, points, i)
            assert points["broken"][old["broken"]].all()
            for kept in ("x_adv", "distance"):
                assert torch.equal(points[kept][old["broken"]], old[kept][old["broken"]])
            assert (points["distance"] <= old["distance"]).all()
            assert all(v.isfinite().all() for k, v in points.items() if k != "distance" and v.is_floating_point())
            assert 0 <= points["x_t"].min() <= points["x_t"].max() <= 1


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.3)], ids=["Linf", "L2"])
@pytest.mark.parametrize("attempt", [0, 3])
def test_a_point_goes_the_same_way_alone_in_a_batch_and_after_packing(threat, attempt):
    model, b = mlp().double().eval(), batch(10)
    x, y = b.x.double(), b.y
    attack = fab(8, threat=threat, restarts=2)
    key = keys(0, torch.arange(10))

    def run(part):
        points = attack.start(model, x[part], y[part], key[part], attempt=attempt)
        for i in range(8):
            points = attack.iterate(model, points, i)
        return points

    whole = run(torch.arange(10))
    alone = join([run(torch.tensor([i])) for i in range(10)])
    packed = attack.start(model, x, y, key, attempt=attempt)
    for i in range(8):  # every boundary: the points fall apart and are joined in another order
        even = torch.arange(10) % 2 == 0
        packed = join([attack.iterate(model, select(packed, part), i) for part in (~even, even)])
    packed = select(packed, torch.stack([(packed["key"] == k).nonzero()[0, 0] for k in whole["key"]]))
    for other in (alone, packed):
        assert other.keys() == whole.keys()
        assert torch.equal(other["broken"], whole["broken"])
        torch.testing.assert_close(other["x_adv"], whole["x_adv"], rtol=0, atol=1e-9)
        torch.testing.assert_close(other["distance"], whole["distance"], rtol=0, atol=1e-9)


def test_it_is_a_search_that_keeps_all_it_knows_with_the_points():
    model, b = cnn().eval(), batch(5)
    assert isinstance(fab(), Search)
    with frozen(model):
        points = begin(fab(), model, b.x, b.y)
        after = fab().iterate(model, points, 0)
    assert points.keys() == after.keys()
    assert all(len(v) == 5 for v in after.values())
    assert all(v.dtype == points[k].dtype and v.shape == points[k].shape for k, v in after.items())


# --- models that give little to go by


class Odd(nn.Module):
    """Two or more logits made from the sum of an image's pixels by a function."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        return self.change(x.flatten(1).sum(1, keepdim=True))


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
        points = begin(attack, Odd(STILL[name]), x, y, attempt=attempt)
        points = advance(attack, Odd(STILL[name]), points, 0, 5)
        assert not points["broken"].any()
        assert all(not v.isnan().any() for v in points.values())
        assert points["distance"].isinf().all()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("n", [1, 4])
def test_few_classes_and_a_batch_of_one(classes, n):
    model, x = Blocks(classes), interior(n)
    y = model(x).argmax(1)
    broken, x_adv = search(fab(10, threat=Linf(0.3)), model, x, y, classes=classes)
    assert broken.all()
    assert (model(x_adv).argmax(1) != y).all()


def test_a_single_class_cannot_be_attacked():
    model = Odd(lambda s: s)
    assert not search(fab(), model, interior(2), torch.zeros(2, dtype=torch.int64), classes=1)[0].any()
    with pytest.raises(UserError, match="only one class"):
        begin(fab(), model, interior(2), torch.zeros(2, dtype=torch.int64))


def test_a_model_that_detaches_its_input_is_refused():
    with pytest.raises(UserError, match="no gradient with respect to its input"):
        begin(fab(), Odd(lambda s: torch.cat([s, -s], 1).detach()), interior(2), torch.tensor([0, 1]))


# --- cost


@pytest.mark.parametrize(("attempt", "forwards", "backwards"), [(0, 20, 10), (3, 21, 11)])
def test_what_an_attempt_costs(attempt, forwards, backwards):
    model, x = Passes(cnn()), batch().x
    attack = fab(10, threat=Linf(1e-6), restarts=2)
    with frozen(model):
        points = begin(attack, model, x, model.inner(x).argmax(1), attempt=attempt)
        advance(attack, model, points, 0, 10)
    assert dict(model.forwards) == {"crafting": forwards}
    assert dict(model.backwards) == {"crafting": backwards}


# --- what is refused


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"threat": 0.1}, "threat must be a threat model"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"targets": 0}, "targets must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"alpha_max": -0.1}, "alpha_max is a share"),
        ({"beta": 1.1}, "beta is a share"),
        ({"eta": 0.9}, "eta must be at least 1"),
        ({"eta": float("nan")}, "eta must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        fab(**settings)


# --- against the reference


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network trained for a few seconds against PGD, and 150 digits that it gets right."""
    words = [("optimisation.epochs", "6"), ("model.width", "8")]
    run = override(recipes.get("digits-pgd-at"), words)
    model = train(run, run_dir=tmp_path_factory.mktemp("fab") / "run").model.eval()
    x, y = data.tensors("digits", "test")
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return model, x[right][:150], y[right][:150]


@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.5)], ids=["Linf", "L2"])
def test_the_reference_breaks_the_same_points(trained, threat):
    reference = pytest.importorskip("pyautoattack.fab_pt").FABAttack_PT
    model, x, y = trained
    with frozen(model):
        theirs = reference(
            model, norm=threat.norm, n_restarts=1, n_iter=12, eps=float(threat.epsilon), targeted=True, device="cpu"
        ).perturb(x, y)
        near = threat.length(theirs - x) <= float(threat.epsilon)
        expected = (model(theirs).argmax(1) != y) & near
    broken, _ = search(FAB(threat=threat, iterations=12), model, x, y, classes=10)
    assert 0.2 < expected.float().mean() < 0.9
    assert abs(int(broken.sum()) - int(expected.sum())) <= 2
    assert (broken == expected).float().mean() > 0.98


def test_the_reference_comes_as_near_in_one_attempt(trained):
    reference = pytest.importorskip("pyautoattack.fab_pt").FABAttack_PT
    model, x, y = trained
    attack = reference(model, norm="L2", n_iter=20, eps=1e-6, targeted=True, device="cpu", n_target_classes=1)
    attack.target_class = 2
    with frozen(model):
        theirs = L2(1e-6).length(attack.attack_single_run(x, y, is_targeted=True) - x)
        tiny = FAB(threat=L2(1e-6), iterations=20)
        ours = advance(tiny, model, begin(tiny, model, x, y), 0, 20)["distance"]
    assert ((ours - theirs).abs() <= 0.02 * theirs).float().mean() > 0.9
    assert (ours <= 1.02 * theirs).float().mean() > 0.95
