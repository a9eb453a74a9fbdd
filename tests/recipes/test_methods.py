"""The methods of a setting differ in nothing but the method."""

import dataclasses
from dataclasses import replace

import pytest

from uiat import (
    ADR,
    ARD,
    DHAT,
    DKL,
    FAT,
    GAIRAT,
    HAT,
    LBGAT,
    MLCAT,
    RSLAD,
    UIAT,
    InstanceInverse,
    Score,
    SelfAdaptive,
    Squeeze,
    UniversalInverse,
    override,
    recipes,
    train,
)
from uiat.attacks import FGSM, FGSMRS, NFGSM
from uiat.objectives import PGDAT, Mart, Standard, Trades
from uiat.recipes import METHODS, SETTINGS, Method
from uiat.recipes.methods import GRAD_ALIGN, REPLAYS
from uiat.training.step_options import StepOptions

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


def test_the_papers_method_whole():
    run = recipes.get("cifar10-resnet18-uiat-paper-c")
    o = run.objective
    assert (o.inverse.regulariser, o.inverse.regulariser_weight, o.inverse.kind) == ("feature", 1.0, "universal")
    assert (o.momentum, o.momentum_start, o.gamma, o.inverse_gradient) == ("class", "uniform", 0.9, False)
    assert (o.weight, o.kl, o.inverse.radius, o.attack.steps) == (3.5, "inverse-adversarial", 4 / 255, 10)
    assert (run.optimisation.epochs, run.optimisation.learning_rate, run.data.batch_size) == (100, 0.1, 128)


RIVALS = {
    **{"hat": HAT, "score": Score, "dkl": DKL, "lbgat": LBGAT, "fat": FAT, "sat": SelfAdaptive, "mlcat": MLCAT},
    **{"squeeze": Squeeze, "dhat": DHAT, "ard": ARD, "rslad": RSLAD, "adr": ADR, "gairat": GAIRAT},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_rivals_have_the_settings_budget_and_their_authors_fields(setting):
    for name, kind in RIVALS.items():
        o, attack = recipes.get(f"{setting}-{name}").objective, SETTINGS[setting].attack
        assert type(o) is kind
        budget = {"threat": attack.threat, "steps": attack.steps, "step_size": attack.step_size}
        assert {key: getattr(o.attack, key) for key in budget} == budget
        # Beside its attack and its epochs, each is as its class has it.
        own = {"attack", "tau_epochs", "from_epoch", "epochs", "inverse"} | (
            {"decay", "temperatures"} if name == "adr" else set()
        )
        fields = {f.name for f in dataclasses.fields(o)} - own
        smoothing = {"label_smoothing": SETTINGS[setting].label_smoothing} if hasattr(o, "label_smoothing") else {}
        assert {f: getattr(o, f) for f in fields} == {f: getattr(kind(), f) for f in fields} | smoothing
        own_form = [getattr(kind().attack, key) for key in ("loss", "start", "batchnorm")]
        assert [o.attack.loss, o.attack.start, o.attack.batchnorm] == own_form


def test_epochs_that_authors_name_are_scaled_to_the_run():
    get = {name: recipes.get(f"cifar10-resnet18-{name}-c").objective for name in RIVALS}
    assert get["fat"].tau_epochs == (42, 75)
    assert (get["sat"].from_epoch, get["gairat"].from_epoch, get["adr"].epochs) == (70, 50, 100)
    assert recipes.get("cifar10-resnet18-sat").objective.from_epoch == 77


def test_adr_has_its_authors_values_for_the_data_and_an_average_over_half_an_epoch():
    fine = recipes.get("cifar100-resnet18-adr").objective
    assert (fine.temperatures, fine.interpolations, fine.decay) == ((1.5, 1.0), (0.7, 0.95), 0.995)
    assert recipes.get("cifar10-medium-adr").objective.temperatures == (2.5, 2.0)
    digits = recipes.get("digits-adr")
    assert round(1 / (1 - digits.objective.decay)) == round(1258 / digits.data.batch_size / 2)


def test_the_radius_of_dkl_grows_as_its_authors():
    run = recipes.get("cifar10-resnet18-dkl-c")
    options = StepOptions.from_run(run)
    radii = [options.objective_at(run.objective, epoch).attack.threat.epsilon for epoch in (0, 49, 99)]
    assert radii == pytest.approx([8 / 255 / 100, 4 / 255, 8 / 255])
    assert recipes.get("cifar10-resnet18-trades-c").optimisation.radius_warmup_epochs == 0


@pytest.mark.parametrize("name", [*RIVALS, "uiat-paper"])
def test_each_trains_by_its_name(name, tmp_path):
    tiny = {"optimisation.epochs": "1", "model.width": "4", "data.subset": "128", "validation.steps": "1"}
    run = override(recipes.get(f"digits-{name}"), [*tiny.items(), ("objective.attack.steps", "2")])
    trained = train(run, run_dir=tmp_path / "run")
    assert len(trained.history) == 1
    assert 0 <= trained.history[0]["robust"] <= trained.history[0]["clean"] <= 1


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
