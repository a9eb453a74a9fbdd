"""What `uiat tune` may search, and what it may not."""

import pytest

import uiat
from uiat import UserError
from uiat.experiments.space import default_space, describe_space, parse_space

RUN = uiat.recipes.get("digits-uiat")


def test_ranges_and_choices():
    words = ["objective.weight=0.5..4", "optimisation.learning_rate=log:0.01..0.3", "model.activation=relu,silu"]
    space = parse_space(RUN, [*words, "optimisation.epochs=2..5", "objective.inverse.radius=4/255..16/255"])
    assert space["optimisation.learning_rate"].log
    assert space["model.activation"].choices == ("relu", "silu")
    assert [space[path].whole for path in ("objective.weight", "optimisation.epochs")] == [False, True]
    assert space["objective.inverse.radius"].high == 16 / 255
    either = parse_space(RUN, ["model.width=4..8", "optimisation.clip_norm=1..3", "optimisation.milestones=[2,3],[4]"])
    assert [axis.whole for axis in either.values()] == [True, False, False]  # channels, and no factor on them
    assert either["optimisation.milestones"].choices == ("[2,3]", "[4]")
    assert describe_space(space).startswith("objective.weight=0.5..4 optimisation.learning_rate=log:0.01..0.3")


def test_a_recipe_has_a_space_of_its_own_that_holds_its_settings():
    names = {"optimisation.learning_rate", "optimisation.weight_decay"}
    assert set(default_space(RUN)) == names | {"objective.weight"}
    assert set(default_space(uiat.recipes.get("digits-standard"))) == names
    assert parse_space(RUN, []) == default_space(RUN)
    assert default_space(RUN)["objective.weight"].holds(RUN.objective.weight)
    assert not default_space(RUN)["objective.weight"].holds(100.0)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("objective.weight", "a space is FIELD=VALUES, such as objective.weight=0.5..4"),
        ("objective.wieght=1..2", "did you mean 'objective.weight'"),
        ("objective.weight=2..1", "objective.weight=2..1 is no range: it needs LOW < HIGH"),
        ("objective.weight=log:0..1", "needs 0 < LOW < HIGH"),
        ("objective.weight=a..b", "objective.weight"),
        ("objective.weight=1", "needs a range LOW..HIGH or several different values, not '1'"),
        ("model.activation=relu,gelu", "unknown model.activation 'gelu'"),
        ("optimisation.momentum=0.5..2", "momentum must be below 1"),
        ("validation.steps=1..20", "validation.steps cannot be tuned: it decides how trials are measured"),
        ("seed=0..9", "seed cannot be tuned"),
    ],
)
def test_a_wrong_space_is_one_line(word, says):
    with pytest.raises(UserError) as error:
        parse_space(RUN, [word])
    assert says in str(error.value)
    assert "\n" not in str(error.value)
