import json
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


def test_json_has_what_the_tables_say(ask):
    code, out, err = ask("recipes", "--json")
    assert (code, err) == (0, "")
    every = json.loads(out)
    assert sorted(recipe["name"] for recipe in every["recipes"]) == sorted(uiat.recipes.names())
    assert [setting["name"] for setting in every["settings"]] == list(SETTINGS)
    assert [method["name"] for method in every["methods"]] == list(METHODS)
    assert every["settings"][0] == {
        "name": "digits",
        "about": SETTINGS["digits"].about,
        "cost": SETTINGS["digits"].cost,
        "data": "digits",
        "images": None,
        "model": "small-cnn",
        "threat": "Linf:0.2",
        "steps": 10,
        "epochs": {"": 40},
    }
    found = json.loads(ask("recipes", "Madry", "--json")[1])
    assert [method["name"] for method in found["methods"]] == ["pgd-at"]
    assert json.loads(ask("recipes", "clock", "--json")[1])["recipes"] == [
        {"name": "cifar10-speedrun", "about": uiat.recipes.describe("cifar10-speedrun")}
    ]
    one = json.loads(ask("recipes", "digits-uiat", "--json")[1])
    assert one["config"]["objective"]["inverse"]["radius"] == 0.1
    assert {"field": "seed", "value": 0, "about": "of all random numbers"}.keys() == one["fields"][0].keys()
    assert ask("recipes", "digits-uait", "--json")[:2] == (2, "")
