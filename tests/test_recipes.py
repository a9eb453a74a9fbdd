import pytest

import uiat
from uiat import UIAT, InstanceInverse, Linf, UniversalInverse, UserError, recipes
from uiat.objectives import PGDAT, Mart, Standard, Trades

METHODS = ("standard", "pgd-at", "trades", "mart", "iat", "uiat", "uiat-one-off")
FAMILIES = (
    "digits",
    "mnist",
    "cifar10-small",
    "cifar10-resnet18",
    "cifar10-wrn28",
    "cifar100-resnet18",
    "svhn-resnet18",
)
NAMES = [f"{family}-{method}" for family in FAMILIES for method in METHODS]


@pytest.mark.parametrize("name", [*NAMES, "cifar100-wrn28-uiat", "svhn-wrn28-iat", "cifar10-resnet18-uiat-b"])
def test_what_was_promised_is_there(name):
    assert name in recipes.names()


@pytest.mark.parametrize("name", recipes.names())
def test_each_is_a_run_that_survives_being_written(name):
    run = recipes.get(name)
    assert run.name == name
    assert uiat.load_config(uiat.dump(run)) == run
    assert recipes.get(name) == run
    assert len(recipes.describe(name)) > 20
    assert run.data.name in uiat.data.NAMES
    assert uiat.evaluation.attack(run.evaluation.attacks[-1], threat=run.threat) is not None
    uiat.models.build(run.model.name.replace("28-10", "10-1"), num_classes=10, image_shape=(3, 32, 32))


@pytest.mark.parametrize(
    ("name", "words"),
    [("cifar10-speedrun", "against a clock"), ("mnist-uiat", "MNIST"), ("cifar10-wrn28-iat", "papers")],
)
def test_each_is_described_as_what_it_is(name, words):
    assert words in recipes.describe(name)


@pytest.mark.parametrize("family", FAMILIES)
def test_methods(family):
    get = {method: recipes.get(f"{family}-{method}").objective for method in METHODS}
    kinds = {"standard": Standard, "pgd-at": PGDAT, "trades": Trades, "mart": Mart}
    assert all(isinstance(get[method], kinds.get(method, UIAT)) for method in METHODS)
    assert isinstance(get["iat"].inverse, InstanceInverse)
    assert isinstance(get["uiat"].inverse, UniversalInverse)
    assert get["uiat"].inverse.epoch is None
    epochs = recipes.get(f"{family}-uiat-one-off").optimisation.epochs
    assert 0 <= get["uiat-one-off"].inverse.epoch < epochs
    assert get["trades"].attack.loss == "kl"
    budgets = {
        (o.attack.threat, o.attack.steps, o.attack.step_size) for o in get.values() if not isinstance(o, Standard)
    }
    assert len(budgets) == 1  # methods of a family differ in nothing but the method


@pytest.mark.parametrize(
    ("prefix", "epsilon"),
    [
        ("digits", 0.2),
        ("mnist", 0.3),
        ("cifar10-small", 8 / 255),
        ("cifar10-resnet18", 8 / 255),
        ("svhn-wrn28", 8 / 255),
    ],
)
def test_threat_models(prefix, epsilon):
    for method in METHODS:
        run = recipes.get(f"{prefix}-{method}")
        assert run.threat == Linf(epsilon)
        assert run.objective.threat in (Linf(epsilon), None)


def test_protocols():
    a, b = recipes.get("cifar10-resnet18-uiat").optimisation, recipes.get("cifar10-resnet18-uiat-b").optimisation
    assert (a.schedule, a.milestones) == ("piecewise", (100, 105))
    assert (b.schedule, b.epochs) == ("onecycle", 50)


def test_a_mistyped_name():
    with pytest.raises(UserError, match=r"unknown recipe 'digits-uait'; did you mean 'digits-uiat'"):
        recipes.get("digits-uait")


def test_getting_a_recipe_twice_gives_equal_values_that_cannot_be_changed():
    run = recipes.get("digits-uiat")
    with pytest.raises(AttributeError):
        run.seed = 3
