import re

import pytest

import uiat
from uiat.recipes import METHODS, SETTINGS


def test_settings_and_methods_fit_on_one_screen(ask):
    code, out, _ = ask("recipes")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    first = {line.split()[0] for line in lines if line}
    assert {setting.name for setting in SETTINGS.values()} <= first
    assert {method.name for method in METHODS.values() if method.base is None} <= first
    assert all(method.about in out for method in METHODS.values() if method.base is None)
    assert {"-b,", "-uiat,", "cifar10-speedrun"} <= first
    assert re.search(r"cifar10-small +20k of cifar10 +preact-resnet8 +Linf 8/255, PGD-3 +4 +10 min", out)


def test_a_recipe_is_listed_with_every_field(ask):
    code, out, _ = ask("recipes", "digits-uiat")
    assert code == 0
    assert uiat.recipes.describe("digits-uiat") in out
    assert re.search(r"objective\.inverse\.radius +0\.1 +epsilon_inv", out)


@pytest.mark.parametrize(
    ("word", "there", "missing"),
    [
        ("uiat", ["digits-...", "n-fgsm-uiat-one-off", "cifar10-speedrun"], ["mart", "iat "]),
        ("svhn", ["svhn-wrn28-...", "mart", "-b at the end"], ["digits"]),
        ("Madry", ["pgd-at", "svhn-wrn28"], ["uiat", "mart"]),
        ("clock", ["cifar10-speedrun"], ["digits", "-b"]),
    ],
)
def test_a_word_lists_the_recipes_with_it(ask, word, there, missing):
    code, out, _ = ask("recipes", word)
    assert code == 0
    assert len(out.splitlines()) <= 50
    starts = [line.strip() for line in out.splitlines()]
    assert all(word in out for word in there)
    assert not any(line.startswith(word) for line in starts for word in missing)
