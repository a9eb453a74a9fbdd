"""Errors that are the user's: one sentence, with the nearest names that exist."""

import pytest

from uiat.errors import Lost, NotFinite, Stopped, UserError, nearest

NAMES = [f"model-{i:02d}" for i in range(30)]


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [
        (
            "resnet81",
            ["resnet18", "small-cnn"],
            "unknown kind 'resnet81'; did you mean 'resnet18'? known: resnet18, small-cnn",
        ),
        ("xyz", ["resnet18"], "unknown kind 'xyz'; known: resnet18"),
        ("", [], "unknown kind ''; known: "),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, known, says):
    error = nearest("kind", name, known)
    assert (type(error), str(error)) == (UserError, says)


def test_a_long_list_of_names_is_cut_and_counted():
    text = str(nearest("kind", "zzz", NAMES))
    assert "model-19 and 10 more" in text
    assert "model-20" not in text


def test_only_mistakes_of_the_user_are_user_errors():
    assert issubclass(NotFinite, UserError)
    assert issubclass(Lost, UserError)
    assert not issubclass(Stopped, UserError)
