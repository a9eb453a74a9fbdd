"""Every setting times every method is a recipe; the recipes of before are the runs that they were."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

import uiat
from uiat import Linf, UserError, recipes
from uiat.config import yaml_io
from uiat.objectives.abilities import require_soft_labels
from uiat.recipes import METHODS, SETTINGS, SINGLE

# Names of the recipes of the first version, with a digest of the fields that a run had then.
BEFORE = json.loads((Path(__file__).parents[1] / "support" / "recipes_before.json").read_text())


def leaves(tree, path=""):
    if not isinstance(tree, dict):
        return {path: tree}
    return {p: v for key, item in tree.items() for p, v in leaves(item, f"{path}.{key}" if path else key).items()}


def digest(run):
    fields = leaves(yaml_io.to_dict(run))
    then = {path: value for path, value in fields.items() if path in BEFORE["fields"]}
    return hashlib.sha256(json.dumps(then, sort_keys=True).encode()).hexdigest()[:12]


def test_each_old_name_is_the_run_that_it_was():
    assert len(BEFORE["recipes"]) == 151
    assert {name: digest(recipes.get(name)) for name in BEFORE["recipes"]} == BEFORE["recipes"]


def test_every_method_works_in_every_setting():
    names = recipes.names()
    assert len(names) == len(set(names))
    for setting in SETTINGS.values():
        endings = ("", *(f"-{schedule}" for schedule in setting.others))
        assert {f"{setting.name}-{method}{ending}" for method in METHODS for ending in endings} <= set(names)
    assert set(BEFORE["recipes"]) <= set(names)
    assert set(SINGLE) <= set(names)


@pytest.mark.parametrize("setting", [*SETTINGS, *SINGLE])
def test_each_is_a_run_that_survives_being_written(setting):
    mine = [name for name in recipes.names() if name.startswith(setting)]
    for name in mine:
        run = recipes.get(name)
        assert run.name == name
        assert recipes.get(name) == run
        assert run.data.name in uiat.data.NAMES or run.data.name.startswith("imagefolder:")
        if run.data.augmentation.mixes:
            require_soft_labels(run.objective)
        assert len(recipes.describe(name)) > 20
    run = recipes.get(mine[-1])
    assert uiat.load_config(uiat.dump(run)) == run
    for attack in run.evaluation.attacks:
        assert uiat.evaluation.stages(attack, threat=run.threat)
    with torch.device("meta" if ":" in run.model.name else "cpu"):
        uiat.models.build(run.model.name.replace("28-10", "10-1"), num_classes=10, image_shape=(3, 32, 32))


def test_the_settings_of_imagenet():
    resnet, convnext, vit = (recipes.get(f"imagenet-{net}-uiat") for net in ("resnet50", "convnext-tiny", "vit-small"))
    for run in (resnet, convnext, vit, recipes.get("finetune-uiat")):
        assert run.threat == Linf(4 / 255)
        assert run.objective.inverse.radius == 2 / 255
        assert run.optimisation.average == "ema"
    assert resnet.objective.attack.steps == 3
    assert (resnet.data.cutmix, resnet.data.mixup, resnet.objective.label_smoothing) == (1.0, 0.0, 0.1)
    assert recipes.get("imagenet-vit-small-pgd-at-b").optimisation.epochs == 50
    assert (vit.data.mixup, vit.data.cutmix, vit.data.erasing, vit.objective.attack.steps) == (0.8, 1.0, 0.25, 2)
    assert not recipes.get("imagenet-vit-small-mart").data.augmentation.mixes
    assert "arXiv:2303.01870" in recipes.describe("imagenet-vit-small-mart")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10-speedrun", "against a clock"),
        ("cifar10-resnet18-record", "AWP and EMA"),
        ("mnist-uiat", "MNIST"),
        ("cifar10-wrn28-iat", "papers"),
        ("digits-mart", "misclassified"),
        ("svhn-resnet18-iat-b", "second schedule"),
        ("cifar10-wrn28-uiat-paper-c", "third schedule"),
    ],
)
def test_each_is_described_as_what_it_is(name, words):
    assert words in recipes.describe(name)


@pytest.mark.parametrize(
    ("setting", "epsilon"),
    [
        ("digits", 0.2),
        ("mnist", 0.3),
        ("cifar10-small", 8 / 255),
        ("cifar10-resnet18", 8 / 255),
        ("svhn-wrn28", 8 / 255),
    ],
)
def test_threat_models(setting, epsilon):
    for method in METHODS:
        run = recipes.get(f"{setting}-{method}")
        assert run.threat == Linf(epsilon)
        assert run.objective.threat in (Linf(epsilon), None)


def test_schedules():
    a, b = recipes.get("cifar10-resnet18-uiat").optimisation, recipes.get("cifar10-resnet18-uiat-b").optimisation
    assert (a.schedule, a.milestones) == ("piecewise", (100, 105))
    assert (b.schedule, b.epochs) == ("onecycle", 50)
    c = recipes.get("cifar10-resnet18-uiat-paper-c").optimisation
    assert (c.schedule, c.epochs, c.learning_rate, c.peak_at) == ("onecycle", 100, 0.1, 0.25)
    assert (c.optimizer, c.nesterov, c.momentum, c.weight_decay) == ("sgd", True, 0.9, 5e-4)
    with pytest.raises(UserError, match="unknown schedule of digits 'b'"):
        recipes.make_run(SETTINGS["digits"], METHODS["uiat"], schedule="b")
    assert recipes.get("cifar10-resnet18-uiat-one-off-b").objective.inverse.epoch == 25


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("digits-uait", "digits-uiat"),
        ("cifar10-resnet-mart", "cifar10-resnet18-mart"),
        ("digits-uiat-b", "digits-uiat"),
    ],
)
@pytest.mark.parametrize("ask", [recipes.get, recipes.describe])
def test_a_mistyped_name(name, nearest, ask):
    with pytest.raises(UserError, match=rf"unknown recipe '{name}'; did you mean .*'{nearest}'"):
        ask(name)


def test_a_recipe_cannot_be_changed():
    with pytest.raises(AttributeError):
        recipes.get("digits-uiat").seed = 3
    with pytest.raises(TypeError):
        SETTINGS["mine"] = SETTINGS["digits"]
