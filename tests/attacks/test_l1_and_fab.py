"""FAB and Square under L1, and FAB without targets: closed forms, what always holds, the reference's verdicts."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support.helpers import Binary, Blocks, Passes, assert_as_strong, batch, cnn, interior, mlp
from uiat import L2, PGD, Linf, data, models
from uiat.attacks import FAB, SparseAPGD, Square, square
from uiat.attacks.boundary import nearest_boundary
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, join, select
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import L1


def begin(attack, model, x, y, *, attempt=0, seed=0, index=None):
    index = torch.arange(len(y)) if index is None else index
    return attack.start(model, x, y, keys(seed, index), attempt=attempt)


def survivors(attack, model, x, y, *, seed=0, classes=10):
    """Which points still stand after every attempt; those that do not are broken in the ball."""
    stands = torch.ones(len(y), dtype=torch.bool)
    for attempt in range(attack.attempts(classes)):
        left = stands.nonzero().flatten()
        points = begin(attack, model, x[left], y[left], attempt=attempt, seed=seed, index=left)
        points = advance(attack, model, points, 0, attack.iterations)
        assert (attack.threat.length(points["x_adv"] - x[left]) <= float(attack.threat.epsilon) * (1 + 1e-4)).all()
        stands[left[points["broken"]]] = False
    return stands


# --- FAB under L1 and without targets, on linear models


def near(n=12):
    """A linear model and images close to its plane, so that one pixel's way to it stays in [0, 1]."""
    model, x = Binary(torch.randn(64) / 20), interior(n)
    w = model.w.detach()
    x = x - 0.9 * ((x.flatten(1) @ w) / w.square().sum()).view(-1, 1, 1, 1) * w.view(1, 1, 8, 8)
    logits = model(x).detach()
    return model, x, logits.argmax(1), (logits[:, 1] - logits[:, 0]).abs()


@pytest.mark.parametrize("targeted", [True, False])
def test_fab_finds_the_way_of_a_single_pixel(targeted):
    model, x, y, gap = near()
    distance = gap / model.w.detach().abs().amax()
    attack = FAB(threat=L1(1e-6), iterations=20, targeted=targeted)
    points = advance(attack, model, begin(attack, model, x, y), 0, 20)
    assert (points["distance"] >= distance * (1 - 1e-4)).all()
    assert (points["distance"] <= distance * 1.01).all()
    for i, scale in ((0, 1.02), (1, 0.99)):
        ball = FAB(threat=L1(distance[i].item() * scale), iterations=20, targeted=targeted)
        assert survivors(ball, model, x[i : i + 1], y[i : i + 1], classes=2).item() == (scale < 1)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_nearest_boundary_of_several(norm):
    """Against all pairs of classes, one after the other."""
    model, x = mlp(classes=5).double().eval(), interior(8).double()
    y = model(x).argmax(1)
    here = nearest_boundary(model, x, y, norm=norm)
    x = x.clone().requires_grad_(True)
    logits = model(x)
    order = {"Linf": 1, "L2": 2, "L1": float("inf")}[norm]
    for i in range(8):
        ways = []
        for k in range(5):
            gap = logits[i, k] - logits[i, y[i]]
            (slope,) = torch.autograd.grad(gap, x, retain_graph=True)
            steepness = torch.linalg.vector_norm(slope[i].flatten(), ord=order)
            ways.append((float("inf") if k == y[i] else (gap.abs() / steepness).item(), k, gap.detach(), slope[i]))
        _, _, gap, slope = min(ways, key=lambda way: way[0])
        torch.testing.assert_close(here.values[i], gap)
        torch.testing.assert_close(here.gradient[i], slope)
    torch.testing.assert_close(here.logits, logits.detach())
    assert not here.values.requires_grad


def test_without_targets_the_nearest_of_several_planes_is_reached():
    model, x = Blocks(4), interior(12)
    logits, u = model(x).detach(), model.u.detach()
    y = logits.argmax(1)
    way = (logits.gather(1, y[:, None]) - logits) / torch.linalg.vector_norm(u[None] - u[y][:, None], dim=2)
    expected = way.scatter(1, y[:, None], float("inf")).amin(1)
    attack = FAB(threat=L2(1e-6), iterations=30, targeted=False)
    found = advance(attack, model, begin(attack, model, x, y), 0, 30)["distance"]
    assert (found >= expected * (1 - 1e-4)).all()
    assert (found <= expected * 1.05).float().mean() > 0.8  # where [0, 1] is not in the way


def test_fab_without_targets_has_a_name_attempts_and_a_cost_of_its_own():
    attack = FAB(threat=Linf(1e-6), targeted=False, restarts=5, iterations=4)
    assert (attack.name, [attack.attempts(k) for k in (1, 2, 10)]) == ("fab", [0, 5, 5])
    for attempt, passes in ((0, (8, 16)), (1, (9, 20))):
        model, x = Passes(cnn()), batch().x
        y = model.inner.eval()(x).argmax(1)
        with frozen(model):
            points = begin(attack, model, x, y, attempt=attempt)
            assert torch.equal(points["x_t"], x) == (attempt == 0)
            advance(attack, model, points, 0, 4)
        assert (model.forwards["crafting"], model.backwards["crafting"]) == passes


@pytest.mark.parametrize("targeted", [True, False])
def test_a_single_class_cannot_be_attacked(targeted):
    model, y = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(UserError, match="only one class"):
        begin(FAB(threat=L1(1.0), targeted=targeted), model, interior(2), y)


def test_a_model_that_detaches_its_input_is_refused():
    with pytest.raises(UserError, match="detaches or quantises"):
        nearest_boundary(lambda x: x.detach().flatten(1), interior(2), torch.tensor([0, 1]), norm="L2")


@settings(max_examples=10)
@given(st.sampled_from([0.01, 1.0, 30.0]), st.booleans(), st.sampled_from([mlp, cnn]), st.integers(0, 1))
def test_what_fab_breaks_is_misclassified_in_the_ball_and_in_range(epsilon, targeted, make, attempt):
    model, b = make(), batch(6)
    attack = FAB(threat=L1(epsilon), iterations=3, targets=1, restarts=2, targeted=targeted)
    with frozen(model):
        points = advance(attack, model, begin(attack, model, b.x, b.y, attempt=attempt), 0, 3)
        wrong = model(points["x_adv"]).argmax(1) != b.y
    assert (wrong | ~points["broken"]).all()
    assert 0 <= points["x_adv"].min() <= points["x_adv"].max() <= 1
    assert (attack.threat.length(points["x_adv"] - b.x) <= epsilon * (1 + 1e-5) + 1e-5).all()
    assert all(not value.isnan().any() for value in points.values())


# --- Square under L1


@pytest.mark.parametrize("pixels", range(1, 10))
def test_an_l1_bump_has_length_one_and_two_halves(pixels):
    bump = square._bump(pixels, torch.zeros(1, dtype=torch.float64), 1)
    assert bump.abs().sum().item() == pytest.approx(1)
    assert (bump[: pixels // 2] > 0).all()
    assert (bump[pixels // 2 :] < 0).all()


def test_an_l1_bump_falls_with_the_fourth_power():
    value = [1 + 1 / 16 + 1 / 81, 1 / 16 + 1 / 81, 1 / 81]
    upper = torch.tensor(value)[torch.tensor([[2, 1, 1, 1, 2], [2, 1, 0, 1, 2]])]
    torch.testing.assert_close(square._bump(5, torch.zeros(1), 1)[:2], upper / upper.sum() / 2)


@pytest.mark.parametrize("epsilon", [0.5, 10.0, 60.0])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 10, 10)])
def test_square_starts_and_stays_at_the_full_radius(epsilon, shape):
    threat, x = L1(epsilon), torch.full((6, *shape), 0.5, dtype=torch.float64)
    most = min(epsilon, 0.5 * x[0].numel())  # all there is of [0, 1]
    x_adv = square._bumps(x, keys(0, torch.arange(6)), threat)
    assert (threat.length(x_adv - x) <= most * (1 + 1e-6)).all()
    assert (threat.length(x_adv - x) >= 0.7 * most).all()
    for i in range(5):
        x_adv = square._transfer(x, x_adv, keys(i, torch.arange(6)), 3, threat)
        assert (threat.length(x_adv - x) <= most * (1 + 1e-6)).all()


def test_l1_follows_algorithm_three():
    """One example by hand, with plain slices."""
    threat, x = L1(2.0), 0.4 + 0.2 * torch.rand(1, 2, 8, 8, dtype=torch.float64)
    delta = 0.02 * torch.randn_like(x)
    key = keys(0, torch.tensor([5]))
    u = square.uniform(key, (7,))[0].double()
    top, left, top2, left2 = (int(v * 6) for v in u[:4])
    bump = square._bump(3, x, 1)
    bump = bump if u[4] < 0.5 else bump.t()
    expected, window = delta.clone(), (slice(top, top + 3), slice(left, left + 3))
    union = torch.zeros(8, 8, dtype=torch.bool)
    union[window] = union[top2 : top2 + 3, left2 : left2 + 3] = True
    expected[:, :, union] = 0
    for i in range(2):
        old = delta[0, i][window]
        new = (1 if u[5 + i] >= 0.5 else -1) * bump + old / old.abs().sum()
        available = delta[0, i][union].abs().sum() + (2.0 - delta.abs().sum()).clamp_min(0) / 2
        expected[0, i][window] = new / new.abs().sum() * available * 2
    after = square._transfer(x, x + delta, key, 3, threat)
    torch.testing.assert_close(after, threat.project(x + expected, x))


def test_square_goes_its_own_way_under_l1():
    model, b = mlp().double().eval(), batch(6)
    x, attack = b.x.double(), Square(threat=L1(3.0), iterations=6)
    whole = packed = begin(attack, model, x, b.y)
    for i in range(6):
        whole = attack.iterate(model, whole, i)
        packed = join([attack.iterate(model, select(packed, part), i) for part in torch.arange(6).split(4)])
    torch.testing.assert_close(packed["x_adv"], whole["x_adv"], rtol=0, atol=1e-9)
    assert torch.equal(packed["broken"], whole["broken"])


@pytest.mark.parametrize(("stretched", "small"), [(True, 1), (False, 3)])
def test_a_schedule_that_is_not_stretched_stops_early(monkeypatch, stretched, small):
    seen, real = [], square.window_side
    monkeypatch.setattr(square, "side", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
    attack = Square(threat=Linf(0.1), iterations=5_000, stretched=stretched)
    x = torch.rand(1, 1, 32, 32)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, 2))
    points = begin(attack, model, x, torch.tensor([0]))
    attack.iterate(model, points, 4_999)
    assert seen == [small]


def test_pgd_works_under_l1():
    model, x, y, gap = near(20)
    reach = 0.5 * gap.median().item() / model.w.detach().abs().topk(4).values.mean().item() * 2
    attack = PGD(threat=L1(reach), step_size=reach / 4, steps=10)
    x_adv = attack(model, x, y)
    assert (attack.threat.length(x_adv - x) <= reach * (1 + 1e-5)).all()
    assert 0.2 < (model(x_adv).argmax(1) != y).float().mean() < 0.8


# --- the reference


@pytest.fixture(scope="module")
def digits():
    """A small adversarially trained model, and test images that it classifies correctly."""
    torch.manual_seed(0)
    x, y = data.tensors("digits", "train")
    model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
    attack = PGD(threat=Linf(0.2), step_size=0.1, steps=3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(6):
        for part in torch.randperm(len(x)).split(64)[:19]:
            loss = nn.functional.cross_entropy(model.train()(attack.perturb(model, x[part], y[part])), y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval().requires_grad_(False)
    x, y = data.tensors("digits", "test")
    right = (model(x).argmax(1) == y).nonzero().flatten()[:100]
    return model, x[right], y[right]


def close(stands, expected, *, agree):
    assert 0.1 < expected.float().mean() < 0.9
    assert_as_strong(stands, expected, weaker=0.05, agree=agree)


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

    expected, again = reference(0), reference(1)
    attack = SparseAPGD(threat=L1(1.3), loss=loss, iterations=40, targets=2)
    within = (expected == again).float().mean()  # random starts decide about a tenth of the points
    close(survivors(attack, model, x, y), expected, agree=within - 0.04)


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
    close(survivors(attack, model, x, y), expected, agree=0.96)


def test_square_breaks_what_the_reference_breaks(digits):
    module = pytest.importorskip("pyautoattack.square")
    model, x, y = digits
    theirs = []
    for seed in range(2):
        other = module.SquareAttack(model, norm="L1", n_queries=150, eps=2.0, seed=seed, p_init=0.8)
        # Windows at the last row and column too, as the paper has them.
        other.random_int = lambda low=0, high=1: torch.randint(low, high + 1, ())
        theirs.append(model(other.perturb(x, y)).argmax(1) == y)
    within = (theirs[0] == theirs[1]).float().mean().item()
    ours = survivors(Square(threat=L1(2.0), iterations=150), model, x, y)
    expected = torch.stack(theirs).float().mean().item()
    assert 0.1 < expected < 0.9
    assert abs(ours.float().mean().item() - expected) < 0.06
    assert (ours[None] == torch.stack(theirs)).float().mean().item() > within - 0.05
