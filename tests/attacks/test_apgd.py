"""Auto-PGD: closed forms, the schedule by hand, what always holds, what a batch has no say in, the reference."""

import logging
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from support.balls import length, slack
from support.helpers import (
    Binary,
    Blocks,
    Passes,
    assert_as_strong,
    assert_untouched,
    batch,
    cnn,
    interior,
    mlp,
    snapshot,
)
from uiat import L1, L2, PGD, Linf, data, losses, models
from uiat.attacks.apgd import APGD, checkpoint_steps
from uiat.attacks.apgd_loss import loss_values
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, join, select, split, target_class
from uiat.errors import UserError
from uiat.models.modes import frozen

LOSSES = ["ce", "dlr", "targeted-dlr"]
THREATS = [Linf(0.1), L2(0.5)]
every_loss = pytest.mark.parametrize("loss", LOSSES)
every_threat = pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)


def begin(attack, model, x, y, *, attempt=0, seed=0, index=None):
    index = torch.arange(len(y)) if index is None else index
    with frozen(model):
        return attack.start(model, x, y, keys(seed, index), attempt=attempt)


def run(attack, model, x, y, **how):
    """One attempt, no point leaving the batch."""
    points = begin(attack, model, x, y, **how)
    with frozen(model):
        for i in range(attack.iterations):
            points = attack.iterate(model, points, i)
    return points


def survivors(attack, model, x, y, *, seed=0):
    """Which points still stand after every attempt, each on those that stood before it."""
    stands = torch.ones(len(y), dtype=torch.bool)
    with frozen(model), torch.no_grad():
        for attempt in range(attack.attempts(model(x[:1]).shape[1])):
            left = stands.nonzero().flatten()
            points = attack.start(model, x[left], y[left], keys(seed, left), attempt=attempt)
            points = advance(attack, model, points, 0, attack.iterations)
            stands[left[points["broken"]]] = False
    return stands


# --- closed form on linear models


def binary(n=40):
    """A linear model, interior images, their predictions, and how far each score is from the boundary."""
    model, x = Binary(torch.randn(64)), interior(n)
    logits = model(x).detach()
    return model, x, logits.argmax(1), (logits[:, 1] - logits[:, 0]).abs()


@every_loss
@every_threat
def test_it_breaks_exactly_the_points_that_a_linear_model_lets_break(threat, loss):
    """The score moves by at most epsilon times the dual norm of the weights."""
    model, x, y, distance = binary()
    w = model.w.detach()
    reach = float(threat.epsilon) * (w.abs().sum() if threat.norm == "Linf" else w.norm())
    scaled = replace(threat, epsilon=float(threat.epsilon) * float(distance.median() / reach))
    reach = distance.median() * torch.tensor([0.995, 1.005])
    broken = run(APGD(threat=scaled, loss=loss, iterations=25), model, x, y)["broken"]
    assert broken[distance < reach[0]].all()
    assert not broken[distance > reach[1]].any()


def test_one_step_of_twice_epsilon_reaches_the_corner():
    model, x = Blocks(4), interior(4)
    y = torch.arange(4)
    points = run(APGD(threat=Linf(0.1), loss="ce", iterations=1), model, x, y)
    start = begin(APGD(threat=Linf(0.1), loss="ce"), model, x, y)
    expected = torch.where(start["broken"].view(-1, 1, 1, 1), start["x_adv"], x + 0.1 * model.w[y].view_as(x).sign())
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
    points = begin(attack, Fixed(), torch.full((1, 1), 0.5), torch.tensor([0]))
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
    after = APGD(threat=Linf(0.1))._checked(state(**changes), steps=20)
    assert after["halved"].item() == halves
    assert after["step"].item() == pytest.approx(0.4 if halves else 0.8)
    assert after["x_adv"].item() == pytest.approx(0.7 if halves else 0.2)
    assert after["gradient"].item() == (2.0 if halves else 1.0)
    assert after["loss"].item() == (3.0 if halves else 1.0)
    assert after["loss_best_then"].item() == 3.0
    assert after["rises"].item() == 0


def test_a_broken_point_does_not_go_back():
    after = APGD(threat=Linf(0.1))._checked(state(rises=[0], broken=[True]), steps=20)
    assert after["x_adv"].item() == pytest.approx(0.2)


def test_the_checkpoints_are_where_steps_are_halved():
    """A constant loss never rises, so each checkpoint halves: the powers of two show where they are."""
    attack = APGD(threat=Linf(0.25), loss="ce", iterations=100)
    points = begin(attack, Fixed(0.0), torch.full((1, 1), 0.5), torch.tensor([0]))
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
        points = begin(APGD(threat=threat), Blocks(4), x, y)
        distance = length(threat, points["x_adv"].double() - x.double())
        torch.testing.assert_close(distance, torch.full_like(distance, float(threat.epsilon)), rtol=1e-4, atol=0)
        assert torch.equal(points["x_adv"], points["x_old"])
        assert (points["step"] == 2 * float(threat.epsilon)).all()


def test_targets_are_the_likeliest_wrong_classes_in_order():
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0], [9.0, 1.0, 2.0, 3.0]])
    y = torch.tensor([1, 3])  # the second is misclassified: its label is left out all the same
    aims = [target_class(logits, y, attempt, targets=9).tolist() for attempt in range(4)]
    assert aims == [[2, 0], [3, 2], [0, 1], [2, 0]]
    assert [target_class(logits, y, attempt, targets=2)[0].item() for attempt in range(4)] == [2, 3, 2, 3]


def test_the_targeted_attack_raises_the_ratio_of_its_target():
    model, x = Blocks(4), interior(8)
    logits = model(x).detach()
    y, order = logits.argmax(1), logits.argsort(dim=1, descending=True)
    for attempt in range(3):
        points = run(APGD(threat=Linf(0.02), loss="targeted-dlr", iterations=5), model, x, y, attempt=attempt)
        assert torch.equal(points["target"], order[:, attempt + 1])
        assert (points["loss_best"] > losses.dlr_targeted(logits, y, points["target"]))[~points["broken"]].all()


@pytest.mark.parametrize(
    ("settings", "classes", "expected"),
    [
        ({}, 10, 1),
        ({"restarts": 5}, 10, 5),
        ({"loss": "targeted-dlr"}, 10, 9),
        ({"loss": "targeted-dlr"}, 1_000, 9),
        ({"loss": "targeted-dlr"}, 4, 3),
        ({"loss": "targeted-dlr"}, 2, 1),
        ({"loss": "targeted-dlr", "targets": 3, "restarts": 2}, 10, 6),
        ({"loss": "targeted-dlr"}, 1, 0),
        ({"loss": "ce", "restarts": 2}, 1, 0),
    ],
)
def test_how_many_attempts_there_are(settings, classes, expected):
    assert APGD(threat=Linf(0.1), **settings).attempts(classes) == expected


def test_names():
    assert [APGD(threat=Linf(0.1), loss=loss).name for loss in LOSSES] == ["apgd-ce", "apgd-dlr", "apgd-t"]


# --- what always holds

attacks = st.builds(
    APGD,
    threat=st.one_of(st.sampled_from([0.001, 8 / 255, 0.3]).map(Linf), st.sampled_from([0.05, 0.5, 3.0]).map(L2)),
    loss=st.sampled_from(LOSSES),
    iterations=st.integers(1, 8),
    rho=st.sampled_from([0.5, 0.75, 1.0]),
)
MODELS = {"linear": Blocks, "mlp": lambda k: mlp(classes=k), "cnn": lambda k: cnn(classes=k)}
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@given(attacks, st.sampled_from(sorted(MODELS)), st.sampled_from([2, 3, 4, 10]), st.integers(1, 5), dtypes)
def test_always_in_the_ball_finite_broken_for_good_and_the_model_untouched(attack, name, classes, n, dtype):
    model = MODELS[name](classes).to(dtype)
    x, y = batch(n).x.to(dtype), torch.arange(n) % classes
    before, image = snapshot(model), x.clone()
    points = begin(attack, model, x, y)
    for i in range(attack.iterations):
        with frozen(model):
            after = attack.iterate(model, points, i)
            wrong = model(after["x_adv"]).argmax(1) != y
        assert (wrong | ~after["broken"]).all()
        assert (after["broken"] | ~points["broken"]).all()
        assert torch.equal(after["x_adv"][points["broken"]], points["x_adv"][points["broken"]])
        assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())
        assert after["x_adv"].dtype == after["gradient"].dtype == dtype
        assert {key: (v.dtype, v.shape) for key, v in after.items()} == {
            key: (v.dtype, v.shape) for key, v in points.items()
        }
        for place in (after["x_adv"], after["x_best"]):
            assert 0 <= place.min() <= place.max() <= 1
            distance = length(attack.threat, place.double() - x.double())
            assert (distance <= float(attack.threat.epsilon) + slack(attack.threat, x)).all()
        points = after
    assert_untouched(model, before)
    assert torch.equal(x, image)


@given(attacks, st.integers(0, 2**31))
def test_the_best_loss_is_the_loss_at_the_best_place_and_never_falls(attack, seed):
    model, b = mlp(), batch()
    points = begin(attack, model, b.x, b.y, seed=seed)
    for i in range(attack.iterations):
        with frozen(model):
            after = attack.iterate(model, points, i)
            value = loss_values(attack.loss, model(after["x_best"]), after)
        assert (after["loss_best"] >= points["loss_best"]).all()
        torch.testing.assert_close(value, after["loss_best"], rtol=1e-4, atol=1e-5)
        points = after


@every_loss
@every_threat
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_constant_logits_are_left_standing(loss, threat, classes):
    x = batch(3).x
    model = lambda x: 0 * x.flatten(1).sum(1, keepdim=True) + torch.zeros(classes)  # noqa: E731
    points = begin(APGD(threat=threat, loss=loss, iterations=6), model_of(model), x, torch.zeros(3, dtype=torch.int64))
    for i in range(6):
        points = APGD(threat=threat, loss=loss, iterations=6).iterate(model, points, i)
    assert not points["broken"].any()
    assert all(value.isfinite().all() for value in points.values() if value.is_floating_point())


def model_of(function):
    class Model(nn.Module):
        def forward(self, x):
            return function(x)

    return Model()


@every_threat
def test_gradients_that_are_not_numbers_break_nothing(threat):
    """The root has an infinite slope at zero, and zero times infinity is not a number."""

    def root(x):
        score = (0 * x.flatten(1).sum(1, keepdim=True)).sqrt()
        return torch.cat([1 + score, -score], dim=1)

    x, y = batch(4).x, torch.zeros(4, dtype=torch.int64)
    points = run(APGD(threat=threat, loss="dlr", iterations=4), model_of(root), x, y)
    assert points["x_adv"].isfinite().all()
    assert not points["broken"].any()


def test_dlr_attacks_a_model_whose_cross_entropy_has_no_gradient():
    """Logits a thousand times as large leave no gradient of cross entropy in single precision, and DLR as it was."""
    model, x = Blocks(4), interior(30)
    y = model(x).argmax(1)
    loud = Blocks(4)
    loud.u.data = 1e3 * model.u.data
    of = {loss: APGD(threat=Linf(0.1), loss=loss, iterations=10) for loss in LOSSES}
    stands = {loss: survivors(attack, loud, x, y) for loss, attack in of.items()}
    assert torch.equal(stands["dlr"], survivors(of["dlr"], model, x, y))
    assert torch.equal(stands["targeted-dlr"], survivors(of["targeted-dlr"], model, x, y))
    assert stands["targeted-dlr"].sum() <= stands["dlr"].sum() < stands["ce"].sum()


# --- independence of the batch, determinism


class Rowwise(nn.Module):
    """A curved model whose sums are taken row by row, so that a point's bits do not depend on the batch's size."""

    def __init__(self, classes=5):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.randn(6, 64)), nn.Parameter(torch.randn(classes, 6))

    def forward(self, x):
        hidden = (x.flatten(1)[:, None] * self.u).sum(-1)
        return ((hidden + hidden.square() / 8)[:, None] * self.v).sum(-1)


def curved(n=12):
    model = Rowwise()
    x = interior(n)
    return model, x, model(x).argmax(1)


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@every_loss
@every_threat
def test_a_point_alone_is_what_it_is_in_a_batch(threat, loss):
    model, x, y = curved()
    attack = APGD(threat=replace(threat, epsilon=float(threat.epsilon) / 2), loss=loss, iterations=12)
    together = run(attack, model, x, y)
    alone = [run(attack, model, x[i : i + 1], y[i : i + 1], index=torch.tensor([i])) for i in range(len(y))]
    assert same(together, join(alone))
    assert 0 < together["broken"].sum() < len(y)


@settings(max_examples=6)
@given(st.sampled_from(LOSSES), st.sampled_from(THREATS), st.lists(st.integers(1, 7), min_size=12, max_size=12))
def test_packing_at_any_iteration_changes_nothing(loss, threat, sizes):
    torch.manual_seed(0)
    model, x, y = curved()
    attack = APGD(threat=replace(threat, epsilon=float(threat.epsilon) / 2), loss=loss, iterations=12)
    expected = run(attack, model, x, y)
    points = begin(attack, model, x, y) | {"where": torch.arange(len(y))}
    with frozen(model):
        for i, size in enumerate(sizes):
            points = select(points, torch.randperm(len(y)))
            points = join([attack.iterate(model, part, i) for part in split(points, size)])
    points = select(points, points["where"].argsort())
    assert same({name: value for name, value in points.items() if name != "where"}, expected)


def test_points_that_leave_when_they_break_are_the_same():
    model, x, y = curved(20)
    attack = APGD(threat=Linf(0.05), iterations=12)
    whole = run(attack, model, x, y)
    with frozen(model):
        packed = advance(attack, model, begin(attack, model, x, y), 0, 12)
    assert torch.equal(packed["broken"], whole["broken"])
    assert torch.equal(packed["x_adv"], whole["x_adv"])


def test_the_key_decides_and_torchs_generator_does_not():
    model, x, y = curved()
    attack = APGD(threat=Linf(0.05), iterations=3)
    state = torch.get_rng_state()
    first = run(attack, model, x, y)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert same(first, run(attack, model, x, y))
    for other in (begin(attack, model, x, y, seed=1), begin(attack, model, x, y, attempt=1)):
        assert not torch.equal(other["x_adv"], begin(attack, model, x, y)["x_adv"])


def test_it_works_under_no_grad():
    model, x, y = curved()
    attack = APGD(threat=Linf(0.05), iterations=3)
    with torch.no_grad():
        points = run(attack, model, x, y)
    assert same(points, run(attack, model, x, y))
    assert not any(value.requires_grad for value in points.values())


# --- cost and bad input


@pytest.mark.parametrize(("loss", "forwards"), [("ce", 11), ("dlr", 11), ("targeted-dlr", 12)])
def test_what_an_attempt_costs(loss, forwards):
    model, b = Passes(mlp()), batch()
    run(APGD(threat=Linf(0.1), loss=loss, iterations=10), model, b.x, b.y)
    assert dict(model.forwards) == {"crafting": forwards}
    assert dict(model.backwards) == {"crafting": 10}  # the last step's gradient is not asked for


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threat": "Linf:8/255"}, "threat must be a threat model"),
        ({"threat": L1(12)}, "none for L1: see SparseAPGD"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"loss": "dlt"}, "did you mean 'dlr'"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"targets": 0}, "targets must be at least 1"),
        ({"rho": 0.0}, "rho is a share"),
        ({"rho": 1.5}, "rho is a share"),
        ({"rho": float("nan")}, "rho is a share"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        APGD(**{"threat": Linf(0.1), **changes})


def test_a_model_without_a_gradient_is_refused():
    with pytest.raises(UserError, match="detaches or quantises"):
        begin(APGD(threat=Linf(0.1)), model_of(lambda x: x.detach().flatten(1)), batch().x, batch().y)


@pytest.mark.parametrize("loss", ["dlr", "targeted-dlr"])
def test_a_model_of_one_class_is_refused(loss):
    one = model_of(lambda x: x.flatten(1).sum(1, keepdim=True))
    with pytest.raises(UserError, match=r"only one apart|compares two classes"):
        begin(APGD(threat=Linf(0.1), loss=loss), one, batch().x, torch.zeros_like(batch().y))


# --- parity with the reference implementation


@pytest.fixture(scope="session")
def digits():
    """A small adversarially trained model, and test images that it classifies correctly."""
    torch.manual_seed(0)
    x, y = data.tensors("digits", "train")
    model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)
    attack = PGD(threat=Linf(0.2), step_size=0.1, steps=3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(6):
        for part in torch.randperm(len(x)).split(64):
            if len(part) == 64:
                loss = nn.functional.cross_entropy(model.train()(attack.perturb(model, x[part], y[part])), y[part])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    x, y = data.tensors("digits", "test")
    with torch.no_grad():
        right = (model.eval()(x).argmax(1) == y).nonzero().flatten()[:150]
    return model, x[right], y[right]


@pytest.mark.parametrize("threat", [Linf(0.15), L2(0.6)], ids=lambda threat: threat.norm)
@every_loss
def test_verdicts_are_those_of_the_reference(digits, threat, loss):
    reference = pytest.importorskip("pyautoattack.autopgd_base")
    model, x, y = digits
    targets = {"targets": 2} if loss == "targeted-dlr" else {}
    stands = survivors(APGD(threat=threat, loss=loss, iterations=20, **targets), model, x, y)
    settings = {"n_iter": 20, "norm": threat.norm, "eps": float(threat.epsilon), "device": torch.device("cpu")}
    settings["logger"] = logging.getLogger("reference")  # told of zero gradients, which would be warnings without it
    if loss == "targeted-dlr":
        theirs = reference.APGDAttack_targeted(model, n_target_classes=2, **settings)
    else:
        theirs = reference.APGDAttack(model, loss=loss, **settings)
    with frozen(model):
        expected = model(theirs.perturb(x, y)).argmax(1) == y
    assert 0.2 < expected.float().mean() < 0.9
    assert_as_strong(stands, expected, weaker=0.035, agree=0.93)
