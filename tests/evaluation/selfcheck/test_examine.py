"""Known-broken defences are flagged, and soundly trained models are not."""

import re
from functools import partial

import pytest
import torch
from torch import nn

import uiat
from support import broken_defences, helpers
from uiat import L2, EvaluationResult, Linf, UserError, override, recipes
from uiat.attacks import APGD
from uiat.data import tensors
from uiat.evaluation import evaluator
from uiat.evaluation.selfcheck import examine
from uiat.evaluation.selfcheck.examine import examine_target

SOUND = ("standard", "pgd-at", "trades", "uiat")
RADIUS = 0.2
IMAGES = 64  # to look at; a quarter of a second for most models here
# One of the findings that there must be, of each defence.
SYMPTOMS = {
    "saturated, 1,000": "saturation",
    "saturated, 100": "saturation",
    "softmax": "probabilities",
    "detached input": "no gradient",
    "3 bits": "gradient",
    "3 bits, straight through": "finite differences",
    "1 bit": "gradient",
    "thermometer": "no gradient",
    "thermometer, straight through": "finite differences",
    "JPEG": "no gradient",
    "JPEG, straight through": "finite differences",
    "noise": "randomness",
    "noise of the input": "finite differences",
    "random resizing": "randomness",
    "state": "randomness",
    "batch statistics": "batch",
    "NaN gradient": "gradient",
    "scrambled gradient": "finite differences",
    "expects normalised images": "normalisation",
}
SYMPTOMS_OF_TRAINED = {"distillation, 100": "saturation", "k winners, 10 %": "finite differences"}
DEFAULT, QUICK = ("clean", "pgd-20", "cw-20"), ("autoattack-quick",)  # what the command runs, and what people do
# The last two are where the attacks matter; benchmarks/evaluation/selfcheck.py does both ways with all defences.
PATHS = [*((name, DEFAULT) for name in SYMPTOMS), ("saturated, 100", QUICK), ("noise", QUICK)]


def grave(findings):
    return [finding.check for finding in findings if finding.severity == "do not believe"]


@pytest.fixture(scope="module")
def digits():
    return tensors("digits", "test")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Trained as the recipes say, for a few seconds each: small nets, few epochs, short attacks."""
    result = {}
    for method in SOUND:
        changes = [("model.width", "8"), ("optimisation.epochs", "8"), ("validation.steps", "1")]
        changes += [] if method == "standard" else [("objective.attack.steps", "4"), ("data.batch_size", "128")]
        run = override(recipes.get(f"digits-{method}"), changes)
        result[method] = uiat.train(run, run_dir=tmp_path_factory.mktemp("sound") / "run").model
    return result


@pytest.fixture
def evaluate_checked(digits, monkeypatch):
    """Evaluate a few images; return the verdict, and the findings that it sums up."""
    seen = []

    def spy(*words, **options):
        seen[:] = examine_target(*words, **options)
        return seen

    monkeypatch.setattr(evaluator, "examine_target", spy)
    for name, loss in (("apgd-ce", "ce"), ("apgd-t", "targeted-dlr")):  # with budgets for tests
        attack = partial(APGD, loss=loss, iterations=3)
        helpers.replace_attack(monkeypatch, name, lambda threat, attack=attack: attack(threat=threat))

    def evaluate_checked(model, attacks, *, radius, n=IMAGES):
        x, y = digits
        verdict = uiat.evaluate(model, x[:n], y[:n], threat=Linf(radius), attacks=attacks).verdict
        return verdict, list(seen)

    return evaluate_checked


@pytest.mark.parametrize(("method", "attacks"), [*((m, DEFAULT) for m in SOUND), ("standard", QUICK), ("uiat", QUICK)])
def test_a_sound_model_is_not_flagged(models, evaluate_checked, method, attacks):
    verdict, findings = evaluate_checked(models[method], attacks, radius=RADIUS)
    assert not grave(findings), findings
    assert verdict.startswith("nothing speaks against the number")


def test_a_sound_model_is_not_flagged_at_a_smaller_radius(models, digits):
    assert not grave(examine(models["standard"], *digits, threat=Linf(RADIUS / 2), n=IMAGES))


def test_every_defence_is_listed():
    assert SYMPTOMS.keys() == broken_defences.WRAPPERS.keys()
    assert SYMPTOMS_OF_TRAINED.keys() <= broken_defences.TRAINED.keys()


@pytest.mark.parametrize(("name", "attacks"), PATHS)
def test_a_broken_defence_is_flagged(models, evaluate_checked, name, attacks):
    defence = broken_defences.WRAPPERS[name](models["standard"])
    few = IMAGES // 2 if "JPEG, straight" in name else IMAGES  # compressing takes most of the time
    if name == "softmax":
        with pytest.raises(UserError, match="returns probabilities"):  # which is no number at all
            evaluate_checked(defence, attacks, radius=RADIUS / 2)
        return
    verdict, findings = evaluate_checked(defence, attacks, radius=RADIUS / 2, n=few)
    assert SYMPTOMS[name] in grave(findings), findings
    assert verdict.startswith("do not believe this number: ")


def test_probabilities_are_flagged_by_the_checks_too(models, digits):
    defence = broken_defences.WRAPPERS["softmax"](models["standard"])
    assert "probabilities" in grave(examine(defence, *digits, threat=Linf(RADIUS / 2), n=IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize("name", SYMPTOMS_OF_TRAINED)
def test_a_broken_defence_that_was_trained_is_flagged(evaluate_checked, name):
    def fresh():
        return uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)

    defence = broken_defences.TRAINED[name](fresh, *tensors("digits", "train"))
    verdict, findings = evaluate_checked(defence, DEFAULT, radius=RADIUS / 2)
    assert SYMPTOMS_OF_TRAINED[name] in grave(findings), findings
    assert verdict.startswith("do not believe this number: ")


def test_another_model_gives_a_hidden_gradient_away(models, digits):
    defence = broken_defences.WRAPPERS["3 bits"](models["standard"])
    findings = examine(defence, *digits, threat=Linf(RADIUS / 2), n=IMAGES, transfer=models["standard"])
    assert {"gradient", "square", "transfer"} <= set(grave(findings))


def test_examining_under_another_norm_changes_nothing_and_repeats(models, digits):
    model = models["pgd-at"].train()
    before = helpers.snapshot(model)
    model.requires_grad_(True)
    findings = [examine(model, *digits, seed=3, threat=L2(1.0), n=IMAGES // 2) for _ in range(2)]
    assert not grave(findings[0])
    assert findings[0] == findings[1]
    helpers.assert_untouched(model, before)


def test_a_constant_model_is_not_believed(digits):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.eye(10)[torch.zeros(len(x), dtype=torch.long)] + 0 * x.flatten(1).sum(1, keepdim=True)

    assert "clean accuracy" in grave(examine(Constant(), *digits, threat=Linf(0.1), n=IMAGES))


def test_outputs_that_are_no_numbers(digits):
    model = broken_defences.Wrapped(helpers.mlp(classes=10), after=lambda z: z / 0)
    assert grave(examine(model, *digits, threat=Linf(0.1), n=8)) == ["outputs"]


def test_two_classes_and_few_images():
    x = helpers.interior(12)
    model = helpers.Binary(torch.randn(helpers.PIXELS))
    y = model(x).argmax(dim=1)
    assert not grave(examine(model, x, y, threat=Linf(0.05)))
    assert not grave(examine(model, x, y, threat=Linf(0.6)))  # twice that is no radius


def test_bad_input_is_refused(digits, unchecked):
    x, y = digits
    with pytest.raises(UserError, match="must be a threat model"):
        examine(helpers.mlp(classes=10), x, y, threat=8 / 255)
    with pytest.raises(UserError, match="divide by 255"):
        examine(helpers.mlp(classes=10), 255 * x, y, threat=Linf(0.1))
    with pytest.raises(UserError, match="at least 1"):
        examine(helpers.mlp(classes=10), x, y, threat=Linf(0.1), n=0)
    with pytest.raises(UserError, match="logits"):
        examine(nn.Identity(), x, y, threat=Linf(0.1))


def result(broken_by=(), **accuracy):
    names = {name.replace("_", "-"): value for name, value in accuracy.items()}
    by = [*broken_by, *[""] * (1_000 - len(broken_by))]
    return EvaluationResult("Linf:0.1", len(by), {"clean": 1.0, **names, "worst": 0.5}, {}, by, 0)


def test_attacks_that_are_made_for_it_turn_a_verdict_into_a_note(models, digits):
    x, y = digits
    saturated = broken_defences.WRAPPERS["saturated, 1,000"](models["standard"])
    options = {"threat": Linf(RADIUS / 2), "n": 24}
    assert grave(examine(saturated, x, y, result=result(pgd_20=0.9), **options)) == ["saturation"]
    findings = examine(saturated, x, y, result=result(apgd_t=0.1, square=0.5), **options)
    assert [finding.check for finding in findings] == ["saturation"]
    assert not grave(findings)
    random = broken_defences.WRAPPERS["noise"](models["standard"])
    assert grave(examine(random, x, y, result=result(autoattack=0.1), **options)) == ["randomness"]
    assert not grave(examine(random, x, y, result=result(autoattack_rand=0.1), **options))


def test_the_gravest_come_first(digits):
    model = broken_defences.Wrapped(helpers.mlp(classes=10), before=broken_defences.noise)
    assert [f.severity for f in examine(model, *digits, threat=Linf(0.1), n=8)] == ["do not believe", "note"]


def test_images_that_plain_attacks_left_robust_and_auto_pgd_breaks(digits):
    """A result of plain attacks is held against short runs of Auto-PGD, image by image; another result is not."""
    x, y = (part[:48] for part in digits)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    y = model(x).argmax(dim=1)

    def look(broken_by, **accuracy):
        accuracy = {name.replace("_", "-"): value for name, value in accuracy.items()}
        result = EvaluationResult("Linf:0.2", len(x), {"clean": 1.0, **accuracy, "worst": 1.0}, {}, broken_by, 0)
        findings = examine(model, x, y, threat=Linf(0.2), n=24, result=result)
        return [(found.severity, found.reason) for found in findings if found.check == "plain attack"]

    ((severity, reason),) = look([""] * 48, fgsm=1.0)
    assert severity == "do not believe"
    assert re.match(r"fgsm overstates the robustness: short runs of Auto-PGD break 2[0-4] of 24 images \(", reason)
    assert look(["fgsm"] * 48, fgsm=0.0) == []  # they left none that could fall
    assert look([""] * 48, fgsm=1.0, apgd_ce=1.0) == []
