"""Known-broken defences are flagged, honest models are not, and each check does what its name says."""

from functools import partial

import pytest
import torch
from torch import nn

import uiat
from support import broken_defences, helpers
from uiat import L2, EvaluationResult, Linf, UserError, override, recipes
from uiat.attacks import APGD
from uiat.data import tensors
from uiat.evaluation import evaluator, registry
from uiat.evaluation.selfcheck import Finding, attack_checks, examine, model_checks, result_checks, verdict
from uiat.evaluation.selfcheck.finding import sign_test, wilson_lower

HONEST = ("standard", "pgd-at", "trades", "uiat")
RADIUS = 0.2
IMAGES = 64  # of those to look at; a quarter of a second each for most models here
# What has to be found, of all that may be.
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
# These findings depend on the attacks; benchmarks/evaluation/selfcheck.py does both ways with all of them.
SOFTENED = ("saturation", "randomness")
PATHS = [(name, DEFAULT) for name in SYMPTOMS] + [(n, QUICK) for n, what in SYMPTOMS.items() if what in SOFTENED]


def grave(findings):
    return [finding.check for finding in findings if finding.severity == "do not believe"]


@pytest.fixture(scope="module")
def digits():
    return tensors("digits", "test")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Trained as the recipes say, for a few seconds each: small nets, few epochs, short attacks."""
    result = {}
    for method in HONEST:
        changes = [("model.width", "8"), ("optimisation.epochs", "8"), ("validation.steps", "1")]
        changes += [] if method == "standard" else [("objective.attack.steps", "4"), ("data.batch_size", "128")]
        run = override(recipes.get(f"digits-{method}"), changes)
        result[method] = uiat.train(run, run_dir=tmp_path_factory.mktemp("honest") / "run").model
    return result


@pytest.fixture
def judged(digits, monkeypatch):
    """`uiat.evaluate` of a few images: its verdict, and the findings that it is of."""
    seen = []

    def spy(*words, **options):
        seen[:] = examine(*words, **options)
        return seen

    monkeypatch.setattr(evaluator, "examine", spy)
    for name, loss in (("apgd-ce", "ce"), ("apgd-t", "targeted-dlr")):  # with budgets for tests
        attack = partial(APGD, loss=loss, iterations=3)
        monkeypatch.setitem(registry._SEARCHES, name, lambda threat, attack=attack: attack(threat=threat))

    def judged(model, attacks, *, radius, n=IMAGES):
        x, y = digits
        said = uiat.evaluate(model, x[:n], y[:n], threat=Linf(radius), attacks=attacks).verdict
        return said, list(seen)

    return judged


@pytest.mark.parametrize("attacks", [DEFAULT, QUICK])
@pytest.mark.parametrize("method", HONEST)
def test_an_honest_model_is_not_flagged(models, judged, method, attacks):
    said, findings = judged(models[method], attacks, radius=RADIUS)
    assert not grave(findings), findings
    assert said.startswith("nothing speaks against the number")


def test_an_honest_model_is_not_flagged_under_another_norm(models, digits):
    assert not grave(examine(models["pgd-at"], *digits, threat=L2(1.0), n=IMAGES))
    assert not grave(examine(models["standard"], *digits, threat=Linf(RADIUS / 2), n=IMAGES))


def test_every_defence_is_listed():
    assert SYMPTOMS.keys() == broken_defences.WRAPPERS.keys()
    assert SYMPTOMS_OF_TRAINED.keys() <= broken_defences.TRAINED.keys()


@pytest.mark.parametrize(("name", "attacks"), PATHS)
def test_a_broken_defence_is_flagged(models, judged, name, attacks):
    defence = broken_defences.WRAPPERS[name](models["standard"])
    few = IMAGES // 2 if "JPEG, straight" in name else IMAGES  # compressing takes most of the time
    if name == "softmax":
        with pytest.raises(UserError, match="returns probabilities"):  # which is no number at all
            judged(defence, attacks, radius=RADIUS / 2)
        return
    said, findings = judged(defence, attacks, radius=RADIUS / 2, n=few)
    assert SYMPTOMS[name] in grave(findings), findings
    assert said.startswith("do not believe this number: ")


def test_probabilities_are_flagged_by_the_checks_too(models, digits):
    defence = broken_defences.WRAPPERS["softmax"](models["standard"])
    assert "probabilities" in grave(examine(defence, *digits, threat=Linf(RADIUS / 2), n=IMAGES))


@pytest.mark.parametrize("name", SYMPTOMS_OF_TRAINED)
def test_a_broken_defence_that_was_trained_is_flagged(judged, name):
    def fresh():
        return uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=8)

    defence = broken_defences.TRAINED[name](fresh, *tensors("digits", "train"))
    said, findings = judged(defence, DEFAULT, radius=RADIUS / 2)
    assert SYMPTOMS_OF_TRAINED[name] in grave(findings), findings
    assert said.startswith("do not believe this number: ")


def test_another_model_gives_a_hidden_gradient_away(models, digits):
    defence = broken_defences.WRAPPERS["3 bits"](models["standard"])
    findings = examine(defence, *digits, threat=Linf(RADIUS / 2), n=IMAGES, transfer=models["standard"])
    assert {"gradient", "square", "transfer"} <= set(grave(findings))


def test_examining_changes_nothing_and_repeats(models, digits):
    model = models["pgd-at"].train()
    before = helpers.snapshot(model)
    model.requires_grad_(True)
    options = {"threat": Linf(RADIUS), "n": 16}
    findings = [examine(model, *digits, seed=3, **options) for _ in range(2)]
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
        examine(helpers.mlp(classes=10), x, y, threat="Linf:8/255")
    with pytest.raises(UserError, match="divide by 255"):
        examine(helpers.mlp(classes=10), 255 * x, y, threat=Linf(0.1))
    with pytest.raises(UserError, match="at least 1"):
        examine(helpers.mlp(classes=10), x, y, threat=Linf(0.1), n=0)
    with pytest.raises(UserError, match="logits"):
        examine(nn.Identity(), x, y, threat=Linf(0.1))


def result(broken_by=(), **accuracy):
    names = {name.replace("_", "-"): share for name, share in accuracy.items()}
    by = [*broken_by, *[""] * (1_000 - len(broken_by))]
    return EvaluationResult("Linf:0.1", len(by), {"clean": 1.0, **names, "worst": 0.5}, {}, by, 0)


def test_what_a_result_knows():
    assert result_checks.from_result(result()) == []
    behind = result(["square"] * 50, autoattack=0.5)
    assert [f.check for f in result_checks.from_result(behind)] == ["square"]
    assert result_checks.from_result(result(["square"] * 20, autoattack=0.5)) == []  # 2 of 100 may be
    assert (
        result_checks.from_result(result(["square"] * 50, square=0.5, autoattack=0.5)) == []
    )  # it came first: no contest
    assert (
        result_checks.from_result(result(["square"] * 50, pgd_20=0.5, square=0.5)) == []
    )  # plain PGD is no measure for it
    assert [f.check for f in result_checks.from_result(result(pgd_10=0.6, pgd_100=0.4))] == ["steps"]
    assert result_checks.from_result(result(pgd_10=0.42, pgd_100=0.4)) == []
    assert result_checks.from_result(result(pgd_10_5=0.6, pgd_100=0.4)) == []


def test_attacks_that_are_made_for_it_turn_a_verdict_into_a_note(models, digits):
    x, y = digits
    saturated = broken_defences.WRAPPERS["saturated, 1,000"](models["standard"])
    options = {"threat": Linf(RADIUS / 2), "n": 24}
    assert grave(examine(saturated, x, y, result=result(pgd_20=0.9), **options)) == ["saturation"]
    findings = examine(saturated, x, y, result=result(apgd_t=0.1, square=0.5), **options)
    assert [finding.check for finding in findings] == ["saturation"]
    assert not grave(findings)
    # A stage that the logits stop has a number of its own, and so has an attack beside one that they do not stop.
    for others in ({"autoattack": 0.1}, {"pgd_20": 0.9, "cw_20": 0.1}, {"square": 0.5}):
        assert grave(examine(saturated, x, y, result=result(**others), **options)) == ["saturation"]
    random = broken_defences.WRAPPERS["noise"](models["standard"])
    assert grave(examine(random, x, y, result=result(autoattack=0.1), **options)) == ["randomness"]
    assert grave(examine(random, x, y, result=result(autoattack_rand=0.1, pgd_20=0.9), **options)) == ["randomness"]
    assert not grave(examine(random, x, y, result=result(autoattack_rand=0.1), **options))


def test_the_gravest_come_first(digits):
    model = broken_defences.Wrapped(helpers.mlp(classes=10), before=broken_defences.noise)
    assert [f.severity for f in examine(model, *digits, threat=Linf(0.1), n=8)] == ["do not believe", "note"]


def test_verdicts():
    note, reason = Finding("images", "it rests on 3 images", "note"), Finding("noise", "noise breaks it")
    assert verdict([]) == "nothing speaks against the number"
    assert verdict([note]) == "nothing speaks against the number, but note: it rests on 3 images"
    assert verdict([reason, note]) == "do not believe this number: noise breaks it"


def test_a_share_needs_enough_images_to_speak():
    assert wilson_lower(3, 3) < 0.5 < wilson_lower(30, 30)
    assert wilson_lower(0, 10) == wilson_lower(0, 0) == 0
    assert attack_checks.check_gradient_free_wins("square", 3, 4) is not None
    assert attack_checks.check_gradient_free_wins("square", 1, 30) is None
    assert attack_checks.check_unbounded_attack(1, 10) is None
    assert attack_checks.check_more_steps(8, 64) is None
    assert attack_checks.check_more_steps(16, 64) is not None


def test_the_sign_test():
    assert sign_test(0, 0) == 1
    assert sign_test(8, 0) == 1 / 256
    assert sign_test(5, 5) > 0.5
    assert attack_checks.check_larger_radius(3, 8, 100) is None
    assert attack_checks.check_larger_radius(0, 8, 100) is not None


def test_saturated_logits_need_an_effect_unless_the_gradient_is_gone():
    no, yes, far = torch.zeros(50, dtype=torch.bool), torch.ones(50, dtype=torch.bool), torch.full((50,), 30.0)
    some = torch.arange(50) < 4
    assert attack_checks.check_saturation(no, far, by_margin=yes, by_entropy=yes) is None
    assert attack_checks.check_saturation(no, far, by_margin=yes, by_entropy=~some) is None  # 4 to 0 may be chance
    assert attack_checks.check_saturation(no, far, by_margin=yes, by_entropy=no).check == "saturation"
    assert (
        attack_checks.check_saturation(no, far / 10, by_margin=yes, by_entropy=no).severity == "note"
    )  # honest models may
    assert attack_checks.check_saturation(yes, far, by_margin=no, by_entropy=no).check == "saturation"


def test_gradients_that_are_zero_at_one_point_are_a_note():
    gradient = torch.ones(50, 1, 2, 2)
    assert model_checks.check_zero_gradients(gradient) is None
    gradient[0] = 0
    assert model_checks.check_zero_gradients(gradient).severity == "note"
    gradient[:10] = float("nan")
    assert model_checks.check_zero_gradients(gradient).severity == "do not believe"
    assert "zero or NaN at 10 of 50" in model_checks.check_zero_gradients(gradient).reason


def test_finite_differences_below_what_float32_resolves_say_nothing():
    promised, wrong = torch.full((50,), 1e-5), torch.zeros(50)
    assert model_checks.check_gradient_direction(promised, wrong, resolution=torch.full((50,), 1e-6)) is None
    assert model_checks.check_gradient_direction(promised, wrong, resolution=torch.full((50,), 1e-8)) is not None
    assert (
        model_checks.check_gradient_direction(promised * float("nan"), wrong, resolution=torch.full((50,), 1e-8))
        is None
    )


def test_errors_of_rounding_are_no_randomness():
    logits = torch.randn(20, 10)
    assert model_checks.check_randomness(torch.stack([logits, logits * (1 + 1e-6)])) is None
    assert model_checks.check_randomness(torch.stack([logits, logits + 0.01])) is not None
    assert model_checks.check_batch_dependence(logits, logits.bfloat16().float()) is None
    assert model_checks.check_batch_dependence(logits, logits + 0.2) is not None
