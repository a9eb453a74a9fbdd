"""Attacks by name: budgets of the ensembles, names that are refused, and few classes under every ensemble and norm."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from support.evaluations import Threshold, evaluate, ramp
from support.helpers import mlp
from uiat import L2, PGD, Linf
from uiat.attacks import APGD, FMN, Noise, Search, SparseAPGD, TargetedPGD, Transfer
from uiat.attacks.search import begin
from uiat.errors import UserError
from uiat.evaluation import correct_under
from uiat.evaluation.attack_facts import averages, needs_gradient
from uiat.evaluation.engine.attack_target import AttackTarget
from uiat.evaluation.engine.calls import CallRule
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize, search
from uiat.evaluation.engine.stage import attack_images
from uiat.evaluation.registry import ENSEMBLES, ROWS, attack, find_row, help_text, stages
from uiat.models.inspect import Target
from uiat.threat import L1

THREATS = [Linf(0.1), L2(0.5), L1(3.0)]
every_threat = pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.norm)


def settings_of(name, threat):
    return dict(stages(name, threat=threat))


# --- budgets


@pytest.mark.parametrize("threat", THREATS[:2], ids=lambda threat: threat.norm)
def test_the_standard_ensemble(threat):
    of = settings_of("autoattack", threat)
    assert list(of) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert (of["apgd-ce"].loss, of["apgd-ce"].iterations, of["apgd-ce"].restarts) == ("ce", 100, 1)
    assert (of["apgd-t"].iterations, of["apgd-t"].targets, of["apgd-t"].restarts) == (100, 9, 1)
    assert (of["fab-t"].iterations, of["fab-t"].targets, of["fab-t"].restarts) == (100, 9, 1)
    assert (of["square"].iterations, of["square"].restarts, of["square"].stretched) == (5_000, 1, False)
    assert settings_of("autoattack-quick", threat) == {"apgd-ce": of["apgd-ce"], "apgd-t": of["apgd-t"]}


def test_the_standard_ensemble_for_l1_searches_larger_balls_first():
    of = settings_of("autoattack", L1(12))
    assert isinstance(of["apgd-ce"], SparseAPGD)
    assert (of["apgd-ce"].restarts, of["apgd-ce"].shrinking) == (5, True)
    assert (of["apgd-t"].restarts, of["apgd-t"].targets) == (1, 5)
    assert of["fab-t"].targets == 9
    assert of["square"].iterations == 5_000


@every_threat
def test_more_restarts_and_the_mean_over_answers(threat):
    plus = settings_of("autoattack-plus", threat)
    assert list(plus) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert [plus[name].restarts for name in plus] == [5, 5, 5, 1, 1, 1]
    assert [plus[name].targets for name in ("apgd-t", "fab-t")] == [9, 9]
    assert [plus[name].targeted for name in ("fab", "fab-t")] == [False, True]
    rand = settings_of("autoattack-rand", threat)
    assert {name: (of.draws, of.restarts) for name, of in rand.items()} == {"apgd-ce": (20, 1), "apgd-dlr": (20, 1)}


@every_threat
@pytest.mark.parametrize(
    ("version", "name"), [("standard", "autoattack"), ("plus", "autoattack-plus"), ("rand", "autoattack-rand")]
)
def test_budgets_are_those_of_the_reference(threat, version, name):
    module = pytest.importorskip("pyautoattack.autoattack")
    theirs = module.AutoAttack(nn.Identity(), norm=threat.norm, eps=float(threat.epsilon), version=version)
    ours = settings_of(name, threat)
    assert list(ours) == theirs.attacks_to_run
    for stage, of in ours.items():
        kind = "apgd" if stage in ("apgd-ce", "apgd-dlr") else stage.split("-")[0]
        other = theirs.apgd_targeted if stage == "apgd-t" else getattr(theirs, kind)
        steps = other.n_queries if stage == "square" else other.n_iter
        restarts = 1 if stage == "fab-t" else other.n_restarts  # set when it runs
        assert (of.iterations, of.restarts) == (steps, restarts), stage
        if stage in ("apgd-t", "fab-t"):
            assert of.targets == other.n_target_classes
        if kind == "apgd":
            assert of.draws == other.eot_iter
        if isinstance(of, SparseAPGD) and version == "standard":
            assert of.shrinking == other.use_largereps
        if stage == "square":
            assert (of.p_init, of.stretched) == (other.p_init, other.rescale_schedule)
        if stage.startswith("fab"):
            assert (of.alpha_max, of.eta, of.beta) == (other.alpha_max, other.eta, other.beta)


# --- names


@every_threat
def test_what_names_stand_for(threat):
    settings = attack("noise-50", threat=threat)
    assert isinstance(settings, Noise)
    assert settings.iterations == 50
    settings = attack("fmn-30", threat=threat)
    assert isinstance(settings, FMN)
    assert settings.iterations == 30
    settings = attack("apgd-dlr-eot-7", threat=threat)
    assert isinstance(settings, SparseAPGD if threat.norm == "L1" else APGD)
    assert (settings.loss, settings.draws, settings.restarts) == ("dlr", 7, 1)
    settings = attack("cw-10-3", threat=threat)
    assert isinstance(settings, PGD)
    assert (settings.loss, settings.steps, settings.restarts) == ("margin", 10, 3)
    settings = attack("pgd-7-targeted", threat=threat)
    assert isinstance(settings, TargetedPGD)
    assert (settings.iterations, settings.targets, settings.target) == (7, 9, None)
    assert attack("apgd-100-targeted", threat=threat) == attack("apgd-t", threat=threat)
    assert attack("apgd-7-targeted", threat=threat).iterations == 7
    source = mlp()
    settings = attack("transfer", threat=threat, source=source)
    assert isinstance(settings, Transfer)
    assert settings.source is source
    assert attack("clean", threat=threat) is None


def test_every_row_makes_its_attack_and_is_in_the_help():
    words = re.sub(r" \(.*?\)", "", help_text().partition(";")[0]).split(", ")
    assert words == [row.name for row in ROWS]
    for row in ROWS:
        name = row.name.replace("-K", "-10").replace("-R", "-2").replace("-S", "-3")
        assert find_row(name)[0] is find_row(f"{name}-eot-3")[0] is row
        plain = stages(name, threat=Linf(0.1), source=mlp())
        assert plain
        if name == "clean":
            continue
        for (stage, one), (mean, many) in zip(
            plain, stages(f"{name}-eot-3", threat=Linf(0.1), source=mlp()), strict=True
        ):
            assert (mean, many.draws) == (f"{stage}-eot-3", 3)
            assert averages(mean)
            assert needs_gradient(mean) == needs_gradient(stage)
            if name != "transfer":  # which has another source here
                assert replace(many, draws=one.draws) == one
    for name in ENSEMBLES:
        for stage, settings in stages(name, threat=Linf(0.1)):
            assert isinstance(settings, Search)
            assert settings.name == stage


def test_what_a_row_says_holds_for_all_its_names_and_for_stages_with_their_ensemble():
    free = ["clean", "noise-7", "square", "transfer", "square (autoattack-plus)"]
    assert not any(needs_gradient(name) for name in free)
    assert all(
        needs_gradient(name) for name in ("fgsm", "pgd-10", "fab-t", "autoattack", "autoattack-rand", "unheard of")
    )
    scale_free = [
        "apgd-dlr",
        "apgd-dlr-eot-3",
        "apgd-t",
        "apgd-5-targeted",
        "fab",
        "fab-t",
        "fmn-9",
        "cw-10",
        "cw-10-3",
    ]
    assert all(find_row(name)[0].scale_free for name in scale_free)
    assert not any(find_row(name)[0].scale_free for name in ("apgd-ce", "apgd-ce-eot-3", "pgd-10", *free))
    with pytest.raises(UserError, match="unknown attack"):
        attack("apgd-ce (autoattack-rand)", threat=Linf(0.1))  # which only plans say


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("autoatack", "did you mean 'autoattack'"),
        ("noise", "did you mean 'noise-R'"),
        ("noise-0", "unknown attack"),
        ("fmn-", "unknown attack"),
        ("apgd-t-eot-0", "apgd-t-eot-0: behind -eot- stands the number of answers, 1 or more"),
        ("clean-eot-2", "nothing to average"),
        ("pgd-10-0", "unknown attack"),
        ("pgd-0-targeted", "did you mean 'pgd-K-targeted'"),
        ("apgd-0-targeted", "did you mean 'apgd-K-targeted'"),
        ("transfer", "needs a second model"),
    ],
)
def test_what_is_no_attack_is_refused(name, says):
    with pytest.raises(UserError, match=says):
        stages(name, threat=Linf(0.1))


# --- few classes


@every_threat
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("name", ["autoattack", "autoattack-plus", "autoattack-rand"])
def test_few_classes_under_every_ensemble(threat, classes, name):
    """The budgets are cut short; how many attempts there are is not."""
    torch.manual_seed(classes)
    model = mlp(classes=classes).eval()
    x = torch.rand(6, 1, 8, 8)
    with torch.no_grad():
        y = model(x).argmax(1)
    where = {"num_classes": classes, "device": torch.device("cpu")}
    total = 0
    for _, settings in stages(name, threat=threat):
        settings = replace(settings, iterations=3, **({"draws": 2} if name == "autoattack-rand" else {}))
        broken, x_adv = search(settings, model, x, y, torch.arange(6), **where)
        with torch.no_grad():
            assert torch.equal(model(x_adv).argmax(1) != y, broken)
        assert (threat.length(x_adv - x) <= float(threat.epsilon) * (1 + 1e-4)).all()
        total += int(broken.sum())
    assert total == 0 if classes == 1 else total > 0


# --- randomised models


class Blurred(nn.Module):
    """Two classes by the mean of the pixels, far from the boundary; the slopes of one answer are mostly noise."""

    def forward(self, x):
        slope = 1 + 6 * torch.randn_like(x)
        score = (slope * (x - 0.5)).flatten(1).mean(1) + 0.2
        return torch.stack([score, -score], dim=1)


class Shaky(nn.Module):
    """Two classes by the sum of the pixels, under noise that outweighs the gradient of a single pass."""

    def forward(self, x):
        slope = 1 + 40 * torch.randn_like(x)
        score = ((x - 0.5) * slope).flatten(1).mean(1) + 0.05 + 0 * x.flatten(1).sum(1)
        return torch.stack([score, -score], dim=1)


def test_averaging_finds_a_direction_that_one_pass_does_not():
    x, y = torch.full((20, 1, 8, 8), 0.5), torch.zeros(20, dtype=torch.int64)
    risen = {}
    for draws in (1, 100):
        settings = APGD(threat=Linf(0.1), loss="dlr", iterations=3, draws=draws)
        points = begin(settings, Shaky(), x, y, torch.arange(20))
        risen[draws] = (points["gradient"].sign() < 0).float().mean().item()
    assert risen[1] < 0.55 < 0.57 < risen[100]


@pytest.mark.parametrize(
    "name", ["pgd-3", "pgd-3-2", "fmn-4", "fab-t", "fab", "noise-4", "square-6", "apgd-t", "pgd-4-targeted"]
)
def test_the_mean_over_answers_of_a_model_that_always_answers_alike_changes_nothing(name):
    x = torch.rand(8, 1, 8, 8)
    model = mlp().double().eval()
    x = x.double()
    y = model(x).argmax(1)
    one, mean = (attack(each, threat=Linf(0.05)) for each in (name, f"{name}-eot-4"))
    if hasattr(one, "iterations"):
        one, mean = (replace(each, iterations=4) for each in (one, mean))
    verdicts = [correct_under(model, x, y, each, index=torch.arange(8)) for each in (one, mean)]
    assert verdicts[0].equal(verdicts[1])


@pytest.mark.parametrize("name", ["pgd-2", "pgd-8-targeted", "fmn-8", "fab-t", "fab", "transfer", "square-20"])
def test_every_attack_follows_the_mean_of_the_answers(name):
    """The noise of one answer outweighs the slope; the mean of many shows it."""
    model, x, y = Blurred(), torch.full((8, 1, 4, 4), 0.5), torch.zeros(8, dtype=torch.int64)
    found = {}
    for draws in (1, 64):
        settings = attack(f"{name}-eot-{draws}", threat=Linf(0.1), source=model)
        if hasattr(settings, "iterations"):
            once = {"restarts": 1} if hasattr(settings, "restarts") else {}
            most = 20 if name == "square-20" else 8
            settings = replace(settings, iterations=min(settings.iterations, most), **once)
        target = AttackTarget(Target(model, x), x, y, torch.arange(8), AdaptiveBatchSize(8), rule=CallRule(calls=2))
        x_adv = attack_images(target, name, settings, torch.ones(8, dtype=torch.bool)).x_adv
        found[draws] = (x - x_adv).mean().item() / 0.1  # 1 where every pixel is moved the right way
    assert found[64] > max(0.5, found[1] + 0.1), found


@pytest.mark.parametrize(
    ("name", "loss", "steps", "restarts", "size"),
    [
        ("fgsm", "ce", 1, 1, 0.1),
        ("pgd-1", "ce", 1, 1, 0.1),
        ("pgd-10", "ce", 10, 1, 0.025),
        ("pgd-20-5", "ce", 20, 5, 0.0125),
        ("cw-50", "margin", 50, 1, 0.005),
    ],
)
def test_names_of_attacks(name, loss, steps, restarts, size):
    settings = attack(name, threat=Linf(0.1))
    assert (settings.loss, settings.steps, settings.restarts) == (loss, steps, restarts)
    assert float(settings.step_size) == pytest.approx(size)
    assert attack("clean", threat=Linf(0.1)) is None


@pytest.mark.parametrize(
    ("name", "near"),
    [("fgms", "fgsm"), ("pgd", "pgd-K"), ("pgd-0", "pgd-K"), ("cw-", "cw-K"), ("pgd20", "pgd-K"), ("claen", "clean")],
)
def test_a_mistyped_attack_names_the_nearest(name, near):
    x, y = ramp()
    with pytest.raises(UserError, match=f"unknown attack '{name}'; did you mean .*'{near}'"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), attacks=[name])
    with pytest.raises(
        UserError,
        match=r"known: apgd-K-targeted, apgd-ce, .*, clean, cw-K, .*, pgd-K, pgd-K-R, pgd-K-targeted and 9 more",
    ):
        evaluate(Threshold(), x, y, threat=Linf(0.1), attacks=["clean", "spsa"])
