"""Runs as text: YAML there and back, dotted overrides, and the words for every mistake."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uiat import (
    L2,
    PGD,
    PGDAT,
    UIAT,
    Data,
    Evaluation,
    InstanceInverse,
    Linf,
    Mart,
    Model,
    Optimisation,
    Run,
    Standard,
    Trades,
    UniversalInverse,
    recipes,
)
from uiat.config.yaml_io import describe_fields, dump, load, override, to_dict
from uiat.errors import UserError

PGD_L2 = PGD(threat=L2(0.5), step_size=0.1, steps=7)
FULL = Run(
    name="on",  # a word that YAML would read as true
    seed=3,
    data=Data(name="cifar10", augment="crop-flip", subset=200, validation=50),
    model=Model(name="resnet18", width=0.5, activation="silu"),
    objective=UIAT(
        attack=PGD_L2,
        inverse=UniversalInverse(radius=0.031, step_size="1/255", epoch=3, gradient_momentum=0.3),
        weight=1e-05,
        momentum="class",
    ),
    optimisation=Optimisation(schedule="piecewise", milestones=(2, 3), clip_norm=1.0, average="ema"),
    evaluation=Evaluation(threat=Linf("3/255"), attacks=("clean", "pgd-5-2"), n=100),
)


def after(*assignments: tuple[str, str], run: Run | None = None) -> Run:
    return override(Run() if run is None else run, assignments)


def refusal(*assignments: tuple[str, str], run: Run | None = None) -> str:
    with pytest.raises(UserError) as caught:
        after(*assignments, run=run)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- YAML there and back

objectives = st.sampled_from(
    [
        Standard(label_smoothing=0.1),
        PGDAT(attack=PGD_L2),
        Trades(weight=1 / 3),
        Mart(),
        UIAT(inverse=InstanceInverse(regulariser="logit")),
        UIAT(inverse=UniversalInverse(epoch=0, warm_start="runs/a b: c")),
    ]
)


@pytest.mark.parametrize("run", [Run(), FULL], ids=["default", "full"])
def test_a_run_survives_yaml(run):
    assert load(dump(run)) == run


def is_representative(name):
    """True for a part of the recipes that has every method in one setting, and every setting with one method."""
    return name.startswith("digits-") or name.endswith("-uiat")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if is_representative(n) else pytest.mark.slow) for n in recipes.names()]
)
def test_every_recipe_survives_yaml(name):
    run = recipes.get(name)
    assert load(dump(run)) == run


@given(
    objectives,
    st.floats(1e-30, 1e30),
    st.floats(1e-6, 0.99),
    st.text(st.characters(exclude_categories=["C"]), max_size=20),
    st.integers(0, 2**40),
)
def test_no_value_is_bent_by_yaml(objective, rate, epsilon, name, seed):
    run = Run(
        name=name,
        seed=seed,
        objective=objective,
        optimisation=Optimisation(learning_rate=rate),
        evaluation=Evaluation(threat=Linf(epsilon)),
    )
    assert load(dump(run)) == run


@given(st.integers(1, 254))
def test_radii_are_written_in_pixels_where_they_are_whole_ones(pixels):
    run = Run(objective=PGDAT(attack=PGD(threat=Linf(f"{pixels}/255"))))
    assert f"epsilon: {pixels}/255" in dump(run)
    assert to_dict(Linf(pixels / 255 + 1e-9))["epsilon"] == pixels / 255 + 1e-9


def test_what_is_left_out_has_its_default():
    assert load("") == Run()
    assert load("data: {name: mnist}") == Run(data=Data(name="mnist"))
    assert load("objective: {name: trades}") == Run(objective=Trades())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: b: c", "is not valid YAML"),
        ("[1, 2]", "a run must be a mapping of fields"),
        ("nme: x", "unknown field 'nme'; did you mean 'name'"),
        ("1: x", "unknown field '1'"),
        ("optimisation: {epoch: 3}", "did you mean 'optimisation.epochs'"),
        ("optimisation: 3", "optimisation must be a mapping of fields, not 3"),
        ("optimisation: {epochs: three}", "optimisation.epochs must be a whole number"),
        ("optimisation: {epochs: 2.5}", "optimisation.epochs must be a whole number"),
        ("optimisation: {epochs: 0}", "optimisation: epochs must be at least 1"),
        ("optimisation: {schedule: cosin}", "unknown optimisation.schedule 'cosin'; did you mean 'cosine'"),
        ("objective: {name: uait}", "unknown objective.name 'uait'; did you mean 'uiat'"),
        ("objective: {name: uiat, inverse: {kind: instances}}", "did you mean 'instance'"),
        ("objective: {name: uiat, inverse: {kind: instance, epoch: 3}}", "unknown field 'objective.inverse.epoch'"),
        ("objective: {name: pgd-at, weight: 3}", "unknown field 'objective.weight'"),
        ("evaluation: {threat: {norm: L2}}", "evaluation.threat needs epsilon"),
        ("evaluation: {threat: {norm: L3, epsilon: 1}}", "unknown evaluation.threat.norm 'L3'"),
        ("evaluation: {threat: {norm: Linf, epsilon: 8}}", 'did you mean "8/255"'),
        ("evaluation: {attacks: {clean: 1}}", "evaluation.attacks"),
        ("data: null", "data must be a mapping of fields"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_mistakes_in_a_file_are_named(text, says):
    with pytest.raises(UserError) as caught:
        load(text, source="run.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# --- overrides


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("seed", "7", 7),
        ("name", "mine", "mine"),
        ("optimisation.learning_rate", "5e-4", 5e-4),  # not a number to YAML 1.1
        ("optimisation.learning_rate", "1", 1.0),
        ("optimisation.milestones", "[1, 2]", (1, 2)),
        ("optimisation.nesterov", "false", False),
        ("optimisation.clip_norm", "null", None),
        ("data.root", "/tmp/[a", "/tmp/[a"),  # not YAML at all
        ("model.width", "16", 16),
        ("model.width", "0.5", 0.5),
        ("objective.weight", "2", 2.0),
        ("objective.attack.steps", "3", 3),
        ("objective.attack.step_size", "3/255", 3 / 255),
        ("objective.attack.threat.epsilon", "4/255", 4 / 255),
        ("objective.inverse.radius", "0.01", 0.01),
        ("objective.inverse.epoch", "2", 2),
        ("objective.inverse_gradient", "no", False),
        ("evaluation.threat.epsilon", "0.1", 0.1),
        ("evaluation.attacks", "[clean, fgsm]", ("clean", "fgsm")),
    ],
)
def test_a_field_is_replaced_and_no_other(path, text, value):
    run = after((path, text))
    *groups, name = path.split(".")
    found = run
    for group in groups:
        found = getattr(found, group)
    assert getattr(found, name) == value
    assert type(getattr(found, name)) is type(value)
    before, now = ({row[0]: row[1] for row in describe_fields(r)} for r in (Run(), run))
    assert {key for key in now if before.get(key) != now[key]} <= {path, f"{path.rpartition('.')[0]}.norm"}


def test_overrides_do_not_change_the_run_they_start_from():
    run = Run()
    after(("objective.weight", "1"), ("objective.name", "trades"), run=run)
    assert run == Run()


def test_overrides_are_applied_in_order():
    assert after(("seed", "1"), ("seed", "2")).seed == 2
    assert after(("objective.name", "trades"), ("objective.weight", "2")).objective == replace(
        Trades(), weight=2.0, attack=replace(Trades().attack)
    )
    assert after(("objective.weight", "2"), ("objective.name", "trades")).objective.weight == 6.0


def test_another_method_keeps_the_threat_and_the_budget():
    run = after(("objective.name", "trades"), run=replace(FULL, objective=replace(FULL.objective, label_smoothing=0.1)))
    attack = replace(Trades().attack, threat=L2(0.5), step_size=0.1, steps=7)
    assert run.objective == Trades(attack=attack, label_smoothing=0.1)
    assert after(("objective.name", "standard"), run=FULL).objective == Standard()
    assert after(("objective.name", "mart"), ("objective.name", "pgd-at"), run=FULL).objective == PGDAT(attack=PGD_L2)


def test_another_architecture_has_its_own_width_and_activation():
    assert after(("model.name", "small-cnn"), run=FULL).model == Model(name="small-cnn")
    assert after(("model.name", "small-cnn"), ("model.width", "8"), run=FULL).model.width == 8
    kept = after(("model.weights", "w.pth"), ("model.name", "small-cnn"), run=FULL).model
    assert kept == Model(name="small-cnn", weights="w.pth")


def test_another_kind_of_inverse_keeps_the_radius():
    inverse = after(("objective.inverse.kind", "instance"), run=FULL).objective.inverse
    assert inverse == InstanceInverse(radius=0.031)
    assert after(("objective.inverse.kind", "instance"), run=FULL).objective.weight == 1e-05


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("objective.name", "uiat"),
        ("objective.inverse.kind", "universal"),
        ("evaluation.threat.norm", "Linf"),
        ("model.name", "resnet18"),
    ],
)
def test_naming_the_class_that_is_there_changes_nothing(path, value):
    assert after((path, value), run=FULL) == FULL


def test_another_norm_keeps_the_radius_until_it_is_given():
    run = after(("objective.attack.threat.norm", "L2"))
    assert run.objective.attack.threat == L2(8 / 255)
    wide = after(("objective.attack.threat.norm", "L2"), ("objective.attack.threat.epsilon", "3"))
    assert wide.objective.attack.threat == L2(3)
    back = after(("objective.attack.threat.norm", "Linf"), ("objective.attack.threat.epsilon", "4/255"), run=wide)
    assert back.objective.attack.threat == Linf("4/255")
    assert "objective.attack.threat: Linf epsilon 3 is as large" in refusal(
        ("objective.attack.threat.norm", "Linf"), run=wide
    )


@pytest.mark.parametrize("order", [1, -1])
def test_a_threat_model_for_evaluation_where_there_was_none(order):
    pair = [("evaluation.threat.norm", "L2"), ("evaluation.threat.epsilon", "0.5")]
    if order == -1:  # the radius alone means Linf, and then keeps its value
        assert after(pair[1]).evaluation.threat == Linf(0.5)
    assert after(*pair[::order]).evaluation.threat == L2(0.5)
    assert after(("evaluation.threat", "null"), run=FULL).evaluation.threat is None
    assert "evaluation.threat needs epsilon" in refusal(pair[0])


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("sed", "1", "unknown field 'sed'; did you mean seed=1"),
        ("", "1", "unknown field ''"),
        ("objectiv.weight", "1", "unknown field 'objectiv.weight'; did you mean objective.weight=1"),
        ("objective.wieght", "1", "did you mean 'objective.weight'"),
        ("objective.attack.threat.eps", "1", "did you mean 'objective.attack.threat.epsilon'"),
        ("seed.x", "1", "seed has no fields: cannot set seed.x"),
        ("objective.weight.x", "1", "objective.weight has no fields"),
        ("objective.name", "uait", "unknown objective.name 'uait'; did you mean 'uiat'"),
        ("objective.inverse.kind", "class", "unknown objective.inverse.kind 'class'"),
        ("objective.attack.threat.norm", "L0", "unknown objective.attack.threat.norm 'L0'"),
        ("evaluation.threat.norm", "L0", "unknown evaluation.threat.norm 'L0'"),
        ("objective.attack.loss", "CE", "unknown objective.attack.loss 'CE'"),
        ("objective.attack.steps", "many", "objective.attack.steps must be a whole number"),
        ("objective.attack.steps", "-1", "objective.attack: steps must be at least 0"),
        ("objective.attack.threat.epsilon", "8", "objective.attack.threat: Linf epsilon 8 is as large as"),
        ("objective.attack.threat.epsilon", "-1/255", "must not be negative"),
        ("objective.attack.threat.epsilon", ".nan", "must be finite"),
        ("objective.inverse.radius", "4", "objective: Linf inverse.radius 4 is as large as the whole range"),
        ("objective.attack", "pgd", "objective.attack must be a mapping of fields"),
        ("data", "mnist", "data must be a mapping of fields"),
        ("data.batch_size", "0", "data: batch_size must be at least 1"),
        ("optimisation.learning_rate", ".nan", "learning_rate must be at least 0, but is nan"),
        ("optimisation.learning_rate", ".inf", "learning_rate must be finite, but is inf"),
        ("optimisation.momentum", "-1", "momentum must be at least 0, but is -1"),
        ("optimisation.momentum", "1.5", "momentum must be below 1, but is 1.5"),
        ("optimisation.momentum", ".nan", "momentum must be at least 0, but is nan"),
        ("optimisation.decay", "-1", "decay must be at least 0, but is -1"),
        ("optimisation.decay", ".nan", "decay must be at least 0, but is nan"),
        ("optimisation.clip_norm", "0", "clip_norm must be above 0"),
        ("optimisation.awp", ".inf", "awp must be finite, but is inf"),
        ("optimisation.awp_from_epoch", "-1", "awp_from_epoch must be at least 0"),
        ("optimisation.average_from_epoch", "-1", "average_from_epoch must be at least 0"),
        ("optimisation.average_decay", "1", "average_decay must be below 1, but is 1"),
        ("optimisation.milestones", "[5, 0]", "milestones are epochs, 1 or later, but are 5, 0"),
        (
            "objective.inverse.regulariser_weight",
            ".nan",
            "regulariser_weight must be at least 0, but is nan",
        ),
        (
            "objective.inverse.regulariser_weight",
            "-1",
            "regulariser_weight must be at least 0, but is -1",
        ),
        ("objective.attack.step_size", "2", "step_size 2 is longer than a ball of radius 0.03137 is wide"),
        ("objective.inverse.step_size", "1", 'did you mean "1/255" (0.003922)?'),
        ("optimisation.nesterov", "maybe", "optimisation.nesterov must be True or False"),
        ("evaluation.attacks", "[1]", "evaluation.attacks must be a list of names"),
    ],
)
def test_mistakes_in_an_override_are_named(path, text, says):
    assert says in refusal((path, text))


# --- what `describe` shows


@pytest.mark.parametrize("run", [Run(), FULL, *(Run(objective=o) for o in (Standard(), PGDAT(), Trades(), Mart()))])
def test_every_field_is_described(run):
    rows = list(describe_fields(run))
    assert len({path for path, _, _ in rows}) == len(rows)
    for path, _, text in rows:
        tags = path.rpartition(".")[2] in ("name", "kind", "norm")
        assert text
        assert tags or text != "the class that the other fields belong to", path


def test_each_described_path_can_be_set_to_what_it_shows():
    for path, value, _ in describe_fields(FULL):
        text = "null" if value is None else str(value)
        assert after((path, f"'{text}'" if path == "name" else text), run=FULL) == FULL, path


def test_a_list_may_be_written_with_commas():
    run = override(Run(), [("evaluation.attacks", "clean, pgd-20"), ("optimisation.milestones", "[1, 2]")])
    assert run.evaluation.attacks == ("clean", "pgd-20")
    assert run.optimisation.milestones == (1, 2)
    assert override(run, [("optimisation.milestones", "3")]).optimisation.milestones == (3,)


def test_a_name_may_look_like_a_number():
    assert override(Run(), [("name", "2024")]).name == "2024"
