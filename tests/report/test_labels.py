"""Names of methods are derived from a run's settings."""

import pytest

from uiat import recipes
from uiat.config.yaml_io import to_dict
from uiat.report.labels import common_beginning, method_words
from uiat.runs.methods import method_name

NAMES = {
    **{name: name for name in ("fgsm", "fgsm-rs", "n-fgsm", "grad-align", "pgd-at", "iat", "uiat", "uiat-one-off")},
    **{"trades": "trades", "free": "free-4", "n-fgsm-uiat": "n-fgsm-uiat", "fgsm-uiat": "fgsm-uiat"},
    "free-uiat-one-off": "free-4-uiat-one-off",
}


@pytest.mark.parametrize(("recipe", "name"), NAMES.items())
def test_methods_are_named_as_they_are_published(recipe, name):
    config = to_dict(recipes.get(f"cifar10-small-{recipe}"))
    assert method_name(config) == name
    # The setting is cut from the names of such runs, and no word of the method is.
    names = [f"cifar10-small-{recipe}", f"cifar10-small-{recipe}-again"]
    assert common_beginning(names, method_words(config)) == "cifar10-small-"
