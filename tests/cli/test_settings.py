"""The one grammar of settings."""

import pytest

from uiat import UserError
from uiat.cli.settings import split_words


def test_three_ways_to_write_a_setting():
    words = ["digits-uiat", "seed=1", "--seed=2", "--objective.weight", "-3", "name=a=b", "--model.width=", "x"]
    assert split_words(words) == (
        ["digits-uiat", "x"],
        [("seed", "1"), ("seed", "2"), ("objective.weight", "-3"), ("name", "a=b"), ("model.width", "")],
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--objective.weight"], "--objective.weight needs a value"),
        (["--objective.weight", "--seed"], "--objective.weight needs a value"),
        (["--run-dri", "x"], "unknown option '--run-dri'; did you mean '--run-dir'"),
        (["-x"], "unknown option '-x'"),
        (["--epochs", "3"], "unknown option '--epochs'; did you mean --optimisation.epochs?"),
        (["--lr=3"], "did you mean --optimisation.learning_rate?"),
    ],
)
def test_what_cannot_be_meant(words, says):
    with pytest.raises(UserError) as caught:
        split_words(words, options=["--run-dir", "--help"])
    assert says in str(caught.value)


@pytest.mark.parametrize("command", ["train", "cost", "sweep"])
def test_a_short_field_is_answered_with_the_full_one_in_every_command(ask, command):
    code, out, err = ask(command, "digits-uiat", "epochs=3")
    assert (code, out) == (2, "")
    assert err == "uiat: error: unknown field 'epochs'; did you mean optimisation.epochs=3?\n"


def test_also_in_an_ablation(ask, tmp_path):
    words = ["analyse", "ablation", "--train", "digits-uiat", "--out", tmp_path]
    assert "did you mean optimisation.epochs=3?" in ask(*words, "epochs=3")[2]
    assert "did you mean optimisation.learning_rate=1?" in ask(*words, "--set", "lr=1")[2]
    assert "runs that are given are as they are" in ask("analyse", "ablation", tmp_path, "seed=1")[2]
