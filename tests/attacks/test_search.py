"""Search attacks: what all of them owe, and that images which leave a batch or are packed again lose nothing."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.balls import length, slack
from support.helpers import Blocks, Passes, assert_untouched, batch, cnn, interior, mlp, snapshot
from support.searches import (
    KINDS,
    Function,
    constant,
    curved,
    iterated,
    linear,
    run,
    same,
    start,
)
from uiat import L1, L2, Linf
from uiat.attacks import APGD, FAB, FMN, Noise, Search, SparseAPGD, Square, Transfer
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, begin, join, select, split, target_class, unbreak
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import NORMS

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
WITH_THREATS = [(kind, threat) for kind in KINDS.values() for threat in kind.threats]
every_kind_and_threat = pytest.mark.parametrize(
    ("kind", "threat"), WITH_THREATS, ids=[f"{kind.make.__name__}-{threat.norm}" for kind, threat in WITH_THREATS]
)
MODELS = {"linear": Blocks, "mlp": lambda k: mlp(classes=k), "cnn": lambda k: cnn(classes=k)}


# --- every search: names, attempts, settings


@pytest.mark.parametrize(
    ("attack", "name", "attempts"),
    [
        (APGD(threat=Linf(0.1)), "apgd-ce", [0, 1, 1]),
        (APGD(threat=Linf(0.1), loss="dlr", restarts=5), "apgd-dlr", [0, 5, 5]),
        (APGD(threat=Linf(0.1), loss="targeted-dlr"), "apgd-t", [0, 1, 9]),
        (APGD(threat=Linf(0.1), loss="targeted-dlr", targets=3, restarts=2), "apgd-t", [0, 2, 6]),
        (SparseAPGD(threat=L1(12), restarts=5), "apgd-ce", [0, 5, 5]),
        (SparseAPGD(threat=L1(12), loss="targeted-dlr", targets=5), "apgd-t", [0, 1, 5]),
        (FAB(threat=Linf(0.1)), "fab-t", [0, 1, 9]),
        (FAB(threat=Linf(0.1), targets=4, restarts=3), "fab-t", [0, 3, 12]),
        (FAB(threat=Linf(0.1), targeted=False, restarts=5), "fab", [0, 5, 5]),
        (FMN(threat=L2(0.5), restarts=3), "fmn", [0, 3, 3]),
        (Noise(threat=L2(0.5)), "noise", [0, 1, 1]),
        (Square(threat=L2(0.5), restarts=4), "square", [0, 4, 4]),
        (Transfer(source=mlp(), threat=L2(0.5)), "transfer", [0, 2, 2]),
    ],
)
def test_names_and_numbers_of_attempts(attack, name, attempts):
    assert isinstance(attack, Search)
    assert attack.name == name
    assert [attack.attempts(k) for k in (1, 2, 10)] == attempts
    assert attack.attempts(1_000) == attempts[-1]


REFUSED = [
    ({"threat": 8 / 255}, "threat must be a threat model"),
    ({"iterations": 0}, "iterations must be at least 1, but is 0"),
    ({"restarts": 0}, "restarts must be at least 1"),
    ({"targets": 0}, "targets must be at least 1"),
    ({"draws": 0}, "draws must be at least 1"),
    ({"loss": "no-such"}, "unknown loss 'no-such'"),
]


@pytest.mark.usefixtures("unchecked")
@every_kind
def test_settings_that_cannot_be_meant_are_refused(kind):
    attack = kind(kind.threats[0], 5)
    refused = [(changes, says) for changes, says in REFUSED if set(changes) <= set(vars(attack))]
    assert len(refused) >= 2
    for changes, says in refused:
        with pytest.raises(UserError, match=says):
            replace(attack, **changes)


# --- every search: what always holds


@pytest.mark.parametrize("name", KINDS)
def test_always_in_the_ball_true_finite_and_broken_for_good(name):
    kind = KINDS[name]

    @settings(max_examples=20)
    @given(
        kind.anything,
        st.sampled_from(sorted(MODELS)),
        st.sampled_from([2, 3, 4]),
        st.integers(1, 5),
        st.integers(0, 1),
        st.sampled_from(kind.dtypes),
    )
    def check(attack, model_name, classes, n, attempt, dtype):
        if name == "transfer":
            classes = 4  # as the second model has
        attempt = attempt * attack.attempts(classes) // 2 if kind.later else 0
        model, x, y = MODELS[model_name](classes).to(dtype), batch(n).x.to(dtype), torch.arange(n) % classes
        if name == "transfer":
            attack.source.to(dtype)
        before, image = snapshot(model), x.clone()
        points = start(attack, model, x.clone().requires_grad_(True), y, attempt=attempt)
        for i in range(attack.iterations):
            kept = {key: value.clone() for key, value in points.items()}
            after = iterated(attack, model, points, i, i + 1)
            assert same(points, kept)  # new tensors, not changed ones
            check_iteration(attack, model, points, after, kind)
            points = after
        assert_untouched(model, before)
        assert torch.equal(points["x"], image)

    check()


def check_iteration(attack, model, points, after, kind):
    x, y, x_adv = after["x"], after["y"], after["x_adv"]
    with frozen(model), torch.no_grad():
        wrong = model(x_adv).argmax(1) != y
    assert (wrong | ~after["broken"]).all()
    assert (after["broken"] | ~points["broken"]).all()
    assert torch.equal(x_adv[points["broken"]], points["x_adv"][points["broken"]])
    if kind.starts_at_image:
        assert torch.equal(x_adv[~after["broken"]], x[~after["broken"]])
    layout = [{key: (v.dtype, v.shape) for key, v in state.items()} for state in (points, after)]
    assert layout[0] == layout[1]
    assert all(len(v) == len(y) for v in after.values())
    assert not any(v.requires_grad for v in after.values())
    numbers = {key: v for key, v in after.items() if v.is_floating_point()}
    assert all(v.isfinite().all() for key, v in numbers.items() if key != "distance")
    for place in {"x_adv", "x_best", "x_t"} & after.keys():
        assert 0 <= after[place].min() <= after[place].max() <= 1
    assert (
        length(attack.threat, x_adv.double() - x.double()) <= float(attack.threat.epsilon) + slack(attack.threat, x)
    ).all()
    if "distance" in after:
        assert not after["distance"].isnan().any()
        assert (after["distance"] <= points["distance"]).all()
        assert torch.equal(after["distance"][points["broken"]], points["distance"][points["broken"]])


@every_kind_and_threat
@pytest.mark.parametrize("classes", [2, 3])
def test_constant_logits_are_left_robust(kind, threat, classes):
    attack = kind(threat, 4)
    if isinstance(attack, Transfer):
        attack = replace(attack, source=constant(classes))
    x, y, model = interior(3), torch.zeros(3, dtype=torch.int64), constant(classes)
    points = advance(attack, model, start(attack, model, x, y), 0, 4)
    assert not points["broken"].any()
    assert all(v.isfinite().all() for key, v in points.items() if v.is_floating_point() and key not in INFINITE)
    assert points.get("distance", torch.tensor(float("inf"))).isinf().all()


INFINITE = {"distance", "radius"}


@pytest.mark.parametrize("loss", ["dlr", "targeted-dlr", "fab-t", "fab"])
def test_a_model_of_one_class_is_refused(loss):
    attack = FAB(threat=Linf(0.1), targeted=loss == "fab-t") if "fab" in loss else APGD(threat=Linf(0.1), loss=loss)
    model = Function(lambda x: x.flatten(1).sum(1, keepdim=True))
    with pytest.raises(UserError, match=r"only one (class|apart)|compares two classes"):
        start(attack, model, interior(2), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("name", ["apgd", "apgd-l1", "fab", "fmn"])
def test_a_model_without_a_gradient_is_refused(name):
    attack = KINDS[name](KINDS[name].threats[0], 5)
    with pytest.raises(UserError, match="detaches or quantises"):
        start(attack, Function(lambda x: x.detach().flatten(1)), batch().x, batch().y)


# --- every search: the closed form on a linear model


@pytest.mark.parametrize(
    ("make", "settings", "norms", "within", "beyond"),
    [
        (APGD, {"loss": "ce", "iterations": 25}, "Linf L2", 0.995, 1.005),
        (APGD, {"loss": "dlr", "iterations": 25}, "Linf L2", 0.995, 1.005),
        (APGD, {"loss": "targeted-dlr", "iterations": 25}, "Linf L2", 0.995, 1.005),
        (FAB, {"iterations": 30}, "Linf L2 L1", 0.99, 1.001),
        (FAB, {"iterations": 30, "targeted": False}, "Linf L2 L1", 0.99, 1.001),
        (FMN, {"iterations": 60}, "Linf L2 L1", 0.96, 1.01),
        (Transfer, {"loss": "margin"}, "Linf L2", 0.999, 1.001),
        (Transfer, {"loss": "ce"}, "Linf L2", 0.999, 1.001),
    ],
)
def test_it_breaks_exactly_the_images_whose_plane_is_within_epsilon(make, settings, norms, within, beyond):
    model, x, y, distances = linear(30)
    more = {"source": model} if make is Transfer else {}
    for norm in norms.split():
        distance = distances[norm]
        epsilon = distance.median().item()
        broken = run(make(threat=NORMS[norm](epsilon), **settings, **more), model, x, y)["broken"]
        assert broken[distance < within * epsilon].all()
        assert not broken[distance > beyond * epsilon].any()


# --- every search: the batch has no say


def in_changing_batches(attack, model, x, y, attempt=0):
    """One attempt in which each image starts alone, and the batches are others in every iteration."""
    points = [
        start(attack, model, x[i : i + 1], y[i : i + 1], attempt=attempt, index=torch.tensor([i]))
        for i in range(len(y))
    ]
    points = join(points) | {"where": torch.arange(len(y))}
    for i in range(attack.iterations):
        points = select(points, torch.randperm(len(y)))
        points = join([iterated(attack, model, part, i, i + 1) for part in split(points, (1, 5, 3, 7, 4)[i % 5])])
    return select(points, points.pop("where").argsort())


@every_kind_and_threat
@pytest.mark.parametrize("later", [False, True])
def test_an_image_goes_its_own_way_whatever_the_batch(kind, threat, later):
    attack, attempt = kind(threat, 6), (kind.later or 0 if later else 0)
    model, x, y = curved()
    model, x, attack = model.double(), x.double(), with_source_for(attack, model.double())
    whole = run(attack, model, x, y, attempt=attempt)
    assert 0 < whole["broken"].sum() < len(y) or later
    other = in_changing_batches(attack, model, x, y, attempt)
    leaving = advance(attack, model, start(attack, model, x, y, attempt=attempt), 0, 6)
    assert other.keys() == whole.keys() == leaving.keys()
    for name in {"broken", "x_adv", "distance", "loss"} & whole.keys():
        torch.testing.assert_close(other[name], whole[name], rtol=0, atol=1e-9)
        if name != "loss":  # of an image that has left, it is that of its last iteration
            torch.testing.assert_close(leaving[name], whole[name], rtol=0, atol=1e-9)


def with_source_for(attack, model):
    """The attack, which transfers from the model itself if it needs a second one."""
    return replace(attack, source=model) if isinstance(attack, Transfer) else attack


@pytest.mark.parametrize(
    ("name", "loss"),
    [("apgd", "ce"), ("apgd", "dlr"), ("apgd", "targeted-dlr"), ("square", "margin"), ("square", "ce")],
)
def test_in_single_precision_the_batch_changes_not_a_bit(name, loss):
    model, x, y = curved()
    for threat in KINDS[name].threats[:2]:
        attack = KINDS[name](threat, 8, loss=loss)
        assert same(in_changing_batches(attack, model, x, y), run(attack, model, x, y))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS.values() if kind.later is not None], ids=lambda kind: kind.make.__name__
)
def test_the_key_and_the_attempt_decide_and_torchs_generator_does_not(kind):
    model, x, y = curved()
    attack = with_source_for(kind(kind.threats[0], 3), model)
    state = torch.get_rng_state()
    first = run(attack, model, x, y, attempt=kind.later)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert same(first, run(attack, model, x, y, attempt=kind.later))
    with torch.no_grad():
        assert same(first, run(attack, model, x, y, attempt=kind.later))
    moved = "key" if kind.make is Noise else "x_t" if "x_t" in first else "x_adv"
    for how in ({"seed": 1, "attempt": kind.later}, {"attempt": kind.later + 1}):
        assert not torch.equal(
            start(attack, model, x, y, **how)[moved], start(attack, model, x, y, attempt=kind.later)[moved]
        )


# --- every search: what an attempt costs


@pytest.mark.parametrize(
    ("make", "settings", "attempt", "forwards", "backwards"),
    [
        (APGD, {"loss": "ce"}, 0, 11, 10),  # the last step's gradient is not asked for
        (APGD, {"loss": "dlr"}, 0, 11, 10),
        (APGD, {"loss": "targeted-dlr"}, 0, 12, 10),
        (SparseAPGD, {}, 0, 13, 10),
        (SparseAPGD, {"shrinking": False}, 0, 11, 10),
        (SparseAPGD, {"loss": "targeted-dlr"}, 0, 14, 10),
        (SparseAPGD, {"draws": 3}, 0, 39, 39),
        (FAB, {}, 0, 20, 10),
        (FAB, {"restarts": 2}, 3, 21, 11),
        (FAB, {"targeted": False}, 0, 20, 40),
        (FAB, {"targeted": False, "restarts": 2}, 1, 21, 44),
        (FMN, {}, 0, 11, 10),
        (Noise, {}, 0, 10, 0),
        (Square, {}, 0, 11, 0),
        (Transfer, {"source": mlp()}, 0, 11, 0),  # the first to count classes
    ],
)
def test_what_an_attempt_costs(make, settings, attempt, forwards, backwards):
    model, b = Passes(mlp()), batch()
    threat = L1(1e-6) if make is SparseAPGD else Linf(1e-6)
    y = model.inner.eval()(b.x).argmax(1)
    attack = make(threat=threat, iterations=10, **settings)
    points = start(attack, model, b.x, y, attempt=attempt)
    with frozen(model):
        advance(attack, model, points, 0, 10)
    assert dict(model.forwards) == {"crafting": forwards}
    assert model.backwards["crafting"] == backwards


# --- the state of a search


@dataclass(frozen=True)
class Countdown:
    """Breaks each image in the iteration that its label names."""

    name: str = "countdown"
    iterations: int = 10

    def attempts(self, num_classes):
        return 1

    def start(self, model, points, attempt):
        return points | {"seen": torch.zeros_like(points["y"])}

    def iterate(self, model, points, i):
        model(points["x_adv"])
        seen = torch.where(points["broken"], points["seen"], points["seen"] + 1)
        return points | {"seen": seen, "broken": points["broken"] | (points["y"] == i)}


def countdown(labels):
    y = torch.tensor(labels)
    return begin(Countdown(), lambda x: x, torch.rand(len(y), 1, 2, 2), y, keys(0, torch.arange(len(y))))


def test_broken_images_leave_and_come_back_in_order():
    sizes = []
    points = countdown([3, 99, 0, 99, 1, 99, 99, 99])
    after = advance(Countdown(), lambda x: sizes.append(len(x)), points, 0, 5)
    assert after["y"].equal(points["y"])
    assert after["broken"].tolist() == [True, False, True, False, True, False, False, False]
    assert after["seen"].tolist() == [4, 5, 1, 5, 2, 5, 5, 5]
    assert sizes == [8, 7, 6, 6, 5]


def test_it_stops_when_no_image_is_robust():
    sizes = []
    points = advance(Countdown(), lambda x: sizes.append(len(x)), countdown([0, 0]), 0, 10)
    assert points["broken"].all()
    assert sizes == [2]


def test_splitting_and_joining_lose_nothing():
    points = countdown([0, 1, 2, 3, 4])
    assert same(join(list(split(points, 2))), points)
    assert select(points, points["y"] > 2)["y"].tolist() == [3, 4]


@pytest.mark.parametrize(("make", "name"), [(FAB, "distance"), (FMN, "distance"), (Square, "loss"), (Noise, None)])
def test_an_image_that_is_not_broken_after_all_forgets_what_was_concluded_from_it(make, name):
    points = {"broken": torch.tensor([True, True, False])} | ({name: torch.tensor([1.0, 2.0, 3.0])} if name else {})
    after = unbreak(make(threat=Linf(0.1)), points, torch.tensor([False, True, False]))
    assert after["broken"].tolist() == [True, False, False]
    assert name is None or after[name].tolist() == [1.0, float("inf"), 3.0]


def test_targets_are_the_likeliest_wrong_classes_in_order():
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0], [9.0, 1.0, 2.0, 3.0]])
    y = torch.tensor([1, 3])  # the second is misclassified: its label is left out all the same
    aims = [target_class(logits, y, attempt, targets=9).tolist() for attempt in range(4)]
    assert aims == [[2, 0], [3, 2], [0, 1], [2, 0]]
    assert [target_class(logits, y, attempt, targets=2)[0].item() for attempt in range(4)] == [2, 3, 2, 3]
