"""Settings that cannot matter: each is found, none that matters is, and every entry says it once."""

import logging

import pytest

import uiat
from support import tiny
from support.commands import ask  # noqa: F401 - a fixture
from uiat import UIAT, recipes
from uiat.training.cost import estimate_cost
from uiat.training.idle_settings import RULES, find_idle_settings

IDLE = [
    ("uiat", "objective.weight=0", "objective.weight is 0: the second term of uiat has no effect"),
    ("trades", "objective.weight=0", "objective.weight is 0: the second term of trades has no effect"),
    (
        "uiat",
        "objective.ramp_epochs=1 optimisation.epochs=1",
        "objective.weight has no effect: lambda is 0 in every epoch, since objective.ramp_epochs is 1 and "
        "optimisation.epochs 1",
    ),
    ("uiat", "objective.ramp_epochs=10 optimisation.epochs=10", "objective.weight 3.5 is never reached"),
    ("pgd-at", "data.least_area=.5", "data.least_area has no effect: data.augment is none, and not resized-crop or"),
    ("pgd-at", "data.randaugment_magnitude=5", "data.randaugment_magnitude has no effect: data.randaugment is 0"),
    ("pgd-at", "data.extra_share=.5", "data.extra_share has no effect: there is no data.extra"),
    ("pgd-at", "data.extra_labels=teacher", "data.extra_labels has no effect: there is no data.extra"),
    ("pgd-at", "data.extra_teacher=a", "data.extra_teacher has no effect: there is no data.extra"),
    ("pgd-at", "data.extra=a data.extra_teacher=b", "data.extra_teacher has no effect: data.extra_labels is file"),
    ("uiat", "objective.inverse.epoch=40", "the one-off epoch is never reached: objective.inverse.epoch is 40"),
    ("uiat", "objective.inverse.regulariser_weight=3", "regulariser_weight has no effect: objective.inverse.regula"),
    (
        "uiat",
        "objective.inverse.regulariser=logit objective.inverse.regulariser_weight=0",
        "objective.inverse.regulariser logit has no effect",
    ),
    ("uiat", "objective.inverse.start=sign objective.inverse.warm_start=a", "objective.inverse.start has no effect"),
    ("uiat", "objective.gamma=.5", "objective.gamma has no effect: objective.momentum is none"),
    ("uiat", "objective.momentum=class objective.gamma=0", "objective.momentum class has no effect"),
    (
        "uiat",
        "objective.inverse_gradient=false objective.batchnorm=adversarial",
        "objective.batchnorm has no effect: objective.inverse_gradient is false, and not true",
    ),
    (
        "pgd-at",
        "objective.attack.start=none objective.attack.start_radius=.5",
        "objective.attack.start_radius has no effect: objective.attack.start is none, and not uniform",
    ),
    ("pgd-at", "objective.attack.start=none objective.attack.restarts=2", "objective.attack.restarts 2 has no effect"),
    (
        "sat",
        "optimisation.epochs=20",
        "the part of the method that begins later is never reached",
    ),
    ("gairat", "optimisation.epochs=20", "the part of the method that begins later is never reached"),
    ("pgd-at", "objective.name=gairat", "the part of the method that begins later is never reached: objective.from_e"),
    ("pgd-at", "objective.name=fat", "not every one of objective.tau_epochs (50, 90) is reached"),
    ("adr", "optimisation.epochs=20", "the schedule of adr is not that of the run: objective.epochs is 40"),
    ("fat", "objective.weight=2", "objective.weight has no effect: objective.form is at, and not trades"),
    ("uiat", "objective.momentum_start=uniform", "objective.momentum_start has no effect: objective.momentum is none"),
    ("pgd-at", "optimisation.optimizer=adamw optimisation.momentum=.5", "optimisation.momentum has no effect"),
    ("pgd-at", "optimisation.optimizer=adamw optimisation.nesterov=false", "optimisation.nesterov has no effect"),
    ("pgd-at", "optimisation.milestones=[2]", "optimisation.milestones has no effect: optimisation.schedule is onecy"),
    ("pgd-at", "optimisation.decay=.5", "optimisation.decay has no effect"),
    (
        "pgd-at",
        "optimisation.schedule=cosine optimisation.peak_at=.5",
        "optimisation.peak_at has no effect: optimisation.schedule is cosine, and not onecycle or cyclic",
    ),
    ("pgd-at", "optimisation.schedule=piecewise", "there are no optimisation.milestones"),
    (
        "pgd-at",
        "optimisation.schedule=piecewise optimisation.milestones=[2,40]",
        "not every one of optimisation.milestones (2, 40) is reached: optimisation.epochs is 40",
    ),
    ("pgd-at", "optimisation.awp_from_epoch=2", "optimisation.awp_from_epoch has no effect: optimisation.awp is 0"),
    (
        "pgd-at",
        "optimisation.awp=.005 optimisation.awp_from_epoch=40",
        "optimisation.awp is never reached: optimisation.awp_from_epoch is 40, counted from 0",
    ),
    ("pgd-at", "optimisation.radius_warmup_epochs=99", "the whole radius is never reached"),
    ("pgd-at", "optimisation.steps_warmup_epochs=99", "the attack never makes all of its steps"),
    ("pgd-at", "optimisation.average_from_epoch=2", "optimisation.average_from_epoch has no effect"),
    ("pgd-at", "optimisation.average=swa optimisation.average_decay=.5", "optimisation.average_decay has no effect"),
    ("pgd-at", "optimisation.average=ema optimisation.average_from_epoch=99", "optimisation.average is never reached"),
    ("pgd-at", "validation.patience=4 validation.every=10", "validation.patience 4 has no effect"),
    ("standard", "validation.steps=3 evaluation.threat=null", "standard has no threat model"),
    ("standard", "guards.overfitting=stop", "guards.overfitting has no effect"),
    ("pgd-at", "guards.chance_epochs=99", "guards.chance_epochs 99 is never reached"),
    ("pgd-at", "optimisation.accumulate=999", "optimisation.accumulate 999 is more than the images of a batch"),
    ("pgd-at", "data.workers=4", "data.workers has no effect: digits is held in memory"),
    ("pgd-at", "compute.plain=true compute.precision=bf16", "compute.precision has no effect: compute.plain"),
    ("pgd-at", "compute.plain=true compute.fold=false", "compute.fold has no effect: compute.plain"),
    ("pgd-at", "compute.plain=true compute.compile=true", "compute.compile has no effect: compute.plain"),
]


def change(method: str, words: str) -> uiat.Run:
    return uiat.override(
        recipes.get(f"digits-{method}"), [(word.partition("=")[0], word.partition("=")[2]) for word in words.split()]
    )


@pytest.mark.parametrize(("method", "words", "sentence"), IDLE, ids=[f"{row[0]} {row[1]}" for row in IDLE])
def test_a_setting_that_cannot_matter_is_found(method, words, sentence):
    (found,) = find_idle_settings(change(method, words))
    assert sentence in found
    assert "{" not in found


def test_each_rule_has_its_case():
    runs = [change(method, words) for method, words, _ in IDLE]
    met = {i for run in runs for i, rule in enumerate(RULES) if rule.is_idle(run)}
    assert met == set(range(len(RULES)))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("uiat", "objective.ramp_epochs=10"),
        ("uiat", "objective.inverse.epoch=39"),
        ("uiat", "objective.momentum=class objective.gamma=.5"),
        ("uiat", "objective.inverse.regulariser=logit objective.inverse.regulariser_weight=2"),
        ("uiat", "objective.batchnorm=adversarial objective.inverse_gradient=true"),
        ("gairat", "objective.from_epoch=39"),
        ("lbgat", "objective.weight=6"),
        ("pgd-at", "optimisation.momentum=.5"),
        ("pgd-at", "optimisation.schedule=piecewise optimisation.milestones=[2,39] optimisation.decay=.5"),
        ("pgd-at", "optimisation.schedule=cyclic optimisation.peak_at=.5"),
        ("pgd-at", "optimisation.awp=.005 optimisation.awp_from_epoch=39"),
        ("pgd-at", "optimisation.average=ema optimisation.average_decay=.5 optimisation.average_from_epoch=39"),
        ("pgd-at", "validation.patience=4 optimisation.epochs=5"),
        ("standard", "validation.steps=3"),
        ("pgd-at", "data.name=imagefolder:x data.workers=4"),
    ],
)
def test_a_setting_that_matters_is_not(method, words):
    assert find_idle_settings(change(method, words)) == []


@pytest.mark.slow
def test_no_recipe_has_one():
    assert {name: found for name in recipes.names() if (found := find_idle_settings(recipes.get(name)))} == {}


QUICK = ["model.width=4", "optimisation.epochs=1", "validation.steps=2", "objective.attack.steps=1"]
QUICK += ["objective.ramp_epochs=1", "evaluation.attacks=fgsm", "evaluation.n=20"]
SENTENCE = "objective.weight has no effect: lambda is 0 in every epoch"


@pytest.mark.parametrize(
    "words",
    [
        ["train", "digits-uiat", *QUICK, "--run-dir", "a"],
        ["sweep", "digits-uiat", *QUICK, "--seeds", "0,1", "--out", "a"],
        ["cost", "digits-uiat", *QUICK, "--steps", "1"],
    ],
    ids=lambda words: words[0],
)
def test_commands_say_it_once(ask, tmp_path, monkeypatch, words):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    code, _, err = ask(*words)
    assert (code, err.count(SENTENCE)) == (0, 1)
    assert err.startswith("uiat: warning: ")


def test_python_says_it_each_time_it_is_asked(caplog):
    objective = UIAT(attack=tiny.attack(1), ramp_epochs=1)
    options = {"objective": objective, "optimisation": uiat.Optimisation(epochs=1), "batch_size": 16}
    with caplog.at_level(logging.WARNING, "uiat"):
        for expected in (1, 2):
            uiat.fit(tiny.linear(), tiny.tensors(), **options)
            assert caplog.text.count(SENTENCE) == expected
        estimate_cost(change("uiat", "objective.ramp_epochs=1 optimisation.epochs=1"), steps=1)
    assert caplog.text.count(SENTENCE) == 3
