"""The methods of a setting differ in nothing but the method."""

from dataclasses import replace

import pytest

from uiat import UIAT, InstanceInverse, UniversalInverse, recipes
from uiat.attacks import FGSM, FGSMRS, NFGSM
from uiat.objectives import PGDAT, Mart, Standard, Trades
from uiat.recipes import METHODS, SETTINGS, Method
from uiat.recipes.methods import GRAD_ALIGN, REPLAYS

MULTI_STEP = ("standard", "pgd-at", "trades", "mart", "iat", "uiat", "uiat-one-off")
SINGLE_STEP = {"fgsm": FGSM, "fgsm-rs": FGSMRS, "n-fgsm": NFGSM, "grad-align": FGSM}


@pytest.mark.parametrize("setting", SETTINGS)
def test_multi_step_methods(setting):
    get = {method: recipes.get(f"{setting}-{method}").objective for method in MULTI_STEP}
    kinds = {"standard": Standard, "pgd-at": PGDAT, "trades": Trades, "mart": Mart}
    assert all(isinstance(get[method], kinds.get(method, UIAT)) for method in MULTI_STEP)
    assert isinstance(get["iat"].inverse, InstanceInverse)
    assert isinstance(get["uiat"].inverse, UniversalInverse)
    assert get["uiat"].inverse.epoch is None
    epochs = recipes.get(f"{setting}-uiat-one-off").optimisation.epochs
    assert 0 <= get["uiat-one-off"].inverse.epoch < epochs
    assert get["trades"].attack.loss == "kl"
    budgets = {
        (o.attack.threat, o.attack.steps, o.attack.step_size) for o in get.values() if not isinstance(o, Standard)
    }
    assert len(budgets) == 1


@pytest.mark.parametrize(("name", "attack"), SINGLE_STEP.items())
def test_single_step_methods_alone_and_under_uiat(name, attack):
    setting = SETTINGS["mnist"]
    base, uiat, one_off = (METHODS[name + end].build(setting) for end in ("", "-uiat", "-uiat-one-off"))
    assert isinstance(base, PGDAT)
    assert base.attack == uiat.attack == one_off.attack == attack(threat=setting.attack.threat)
    assert {o.alignment for o in (base, uiat, one_off)} == {GRAD_ALIGN if name == "grad-align" else 0.0}
    assert (uiat.inverse.epoch, one_off.inverse.epoch) == (None, setting.one_off)
    assert [METHODS[name + end].base for end in ("", "-uiat")] == [None, name]


def test_free_takes_its_steps_by_replays():
    runs = [recipes.get(f"digits-free{end}") for end in ("", "-uiat", "-uiat-one-off")]
    assert [(run.optimisation.replays, run.objective.attack.steps) for run in runs] == [(REPLAYS, 0)] * 3
    assert recipes.get("digits-uiat").optimisation.replays == 0


def test_natural_accuracy_selects_where_there_is_no_attack():
    for setting in SETTINGS.values():
        assert recipes.get(f"{setting.name}-standard").validation.metric == "clean"
        assert recipes.get(f"{setting.name}-uiat").validation.metric == setting.metric


def test_a_method_of_ones_own_is_a_row():
    weak = Method(name="weak", about="half the radius", build=lambda s: PGDAT(attack=replace(s.attack, steps=1)))
    run = recipes.make_run(SETTINGS["cifar10-resnet18"], weak, schedule="b")
    assert (run.name, run.objective.attack.steps, run.optimisation.epochs) == ("cifar10-resnet18-weak-b", 1, 50)
