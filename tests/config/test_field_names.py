import inspect

import pytest

import uiat
from uiat import Run, UserError, override, recipes
from uiat.checks.names import ALIASES
from uiat.config import yaml_io
from uiat.config.field_names import find_fields, unknown_field

FIELDS = [path for path, _, _ in yaml_io.describe_fields(Run())]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("epochs", ["optimisation.epochs"]),
        ("lr", ["optimisation.learning_rate"]),
        ("optimisation.lr", ["optimisation.learning_rate"]),
        ("learning-rate", ["optimisation.learning_rate"]),
        ("learnig_rate", ["optimisation.learning_rate"]),
        ("batch_size", ["data.batch_size", "evaluation.batch_size"]),
        ("steps", ["objective.attack.steps", "objective.inverse.steps", "validation.steps"]),
        ("attack.steps", ["objective.attack.steps"]),
        ("attack.step", ["objective.attack.steps"]),
        ("epsilon", ["objective.attack.threat.epsilon"]),
        ("eps", ["objective.attack.threat.epsilon"]),
        ("radius", ["objective.inverse.radius"]),
        ("width", ["model.width"]),
        ("objective.wieght", ["objective.weight"]),
        ("lambda", ["objective.weight"]),
        ("sed", ["seed"]),
        ("nonsense", []),
        ("", []),
    ],
)
def test_a_short_or_mistyped_name_finds_the_full_one(name, full):
    assert find_fields(name, FIELDS)[: len(full) or None] == full


def test_each_alias_is_of_a_field():
    """Or of an argument of the public functions and classes."""
    public = [
        uiat.PGD,
        uiat.FAB,
        uiat.Square,
        uiat.fit,
        uiat.evaluate,
        uiat.make_step,
        uiat.resume,
        uiat.experiments.sweep,
    ]
    known = {*FIELDS, *(name for each in public for name in inspect.signature(each).parameters)}
    assert {name for name, meant in ALIASES.items() if not {*meant} & known and not find_fields(name, FIELDS)} == set()


def test_the_answer_can_be_copied():
    assert str(unknown_field("epochs", FIELDS, value="3")) == (
        "unknown field 'epochs'; did you mean optimisation.epochs=3?"
    )
    assert "; did you mean 'optimisation.epochs'?" in str(unknown_field("epochs", FIELDS))
    assert "known: compute." in str(unknown_field("nonsense", FIELDS))


@pytest.mark.parametrize(
    ("recipe", "setting", "says"),
    [
        ("digits-uiat", ("epochs", "3"), "did you mean optimisation.epochs=3?"),
        (
            "digits-uiat",
            ("epsilon", "4/255"),
            "did you mean objective.attack.threat.epsilon=4/255 or evaluation.threat.epsilon=4/255?",
        ),
        ("digits-pgd-at", ("optimisation.lr", "1"), "did you mean 'optimisation.learning_rate'?"),
        ("digits-pgd-at", ("model", "resnet18"), "not 'resnet18'; did you mean model.name=resnet18?"),
        ("digits-pgd-at", ("optimisation", "sgd"), "optimisation must be a mapping of fields, not 'sgd'"),
    ],
)
def test_what_a_setting_is_answered_with(recipe, setting, says):
    with pytest.raises(UserError) as caught:
        override(recipes.get(recipe), [setting])
    assert says in str(caught.value)


def test_a_file_is_answered_in_the_same_way():
    with pytest.raises(UserError, match=r"unknown field 'epochs'; did you mean 'optimisation\.epochs'"):
        yaml_io.load("epochs: 3")
