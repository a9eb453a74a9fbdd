from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from scipy import stats
from torch import nn

import uiat
from support import helpers, tiny
from support.evaluations import Threshold, correct_images, evaluate, images, net, network, ramp
from uiat import L2, Linf
from uiat.attacks import Square
from uiat.evaluation.engine.stage import Outcome
from uiat.evaluation.result import calibration_error


def test_accuracy_in_closed_form():
    x, y = ramp()
    y[0] = 1 - y[0]  # wrong as it is
    for epsilon in (0.03, 0.06, 0.11, 0.26):
        result = evaluate(Threshold(), x, y, threat=Linf(epsilon), attacks=["fgsm", "pgd-5", "pgd-5-2", "cw-5"])
        distance = (x[:, 0, 0, 0] - 0.5).abs()
        correct = ((distance > epsilon) & (torch.arange(11) > 0)).double().mean().item()
        assert result.accuracy["clean"] == pytest.approx(10 / 11)
        for name in ("fgsm", "pgd-5", "pgd-5-2", "cw-5", "worst"):
            assert result.accuracy[name] == pytest.approx(correct), (epsilon, name)


def test_accuracy_in_closed_form_l2():
    x, y = ramp()
    result = evaluate(Threshold(), x, y, threat=L2(0.24), attacks=["pgd-10"])  # 16 pixels: 4 times the change of each
    assert result.accuracy["pgd-10"] == pytest.approx(((x[:, 0, 0, 0] - 0.5).abs() > 0.06).double().mean().item())


def test_calibration_under_attack_is_that_of_each_images_last_example():
    x, y = ramp()
    y[0] = 1 - y[0]  # wrong as it is, and so not attacked
    model, result = Threshold(), evaluate(Threshold(), x, y, threat=Linf(0.06), attacks=["fgsm", "pgd-10-2", "apgd-ce"])
    moved = x - 0.06 * (2 * y.view(-1, 1, 1, 1) - 1)
    moved[0] = x[0]
    probabilities = model(moved).double().softmax(1)
    expected = calibration_error(probabilities.amax(1).detach(), probabilities.argmax(1) == y)
    assert result.calibration["attacked"] == {name: pytest.approx(expected, abs=1e-4) for name in ("fgsm", "pgd-10-2")}
    assert abs(result.calibration["ece"] - expected) > 0.01


def test_worst_case_and_what_broke_each_example(monkeypatch):
    x, y = ramp(6)
    broken = {"clean": [0], "fgsm": [0, 1, 2], "pgd-3": [0, 2, 3], "cw-3": [0, 1]}
    kinds = iter(broken.values())

    def scripted(target, *others, **options):
        correct = torch.ones(len(target.x), dtype=torch.bool)
        correct[next(kinds)] = False
        return Outcome(correct, target.x)

    def scripted_clean(target, **options):
        return scripted(target)[0], torch.ones(len(target.x), dtype=torch.float64)

    monkeypatch.setattr("uiat.evaluation.engine.run.evaluate_clean", scripted_clean)
    monkeypatch.setattr("uiat.evaluation.engine.run.attack_images", scripted)
    result = evaluate(Threshold(), x, y, threat=Linf(0.1), attacks=list(broken))
    assert result.broken_by == ["clean", "fgsm", "fgsm", "pgd-3", "", ""]
    assert result.accuracy == {"clean": 5 / 6, "fgsm": 0.5, "pgd-3": 0.5, "cw-3": pytest.approx(4 / 6), "worst": 2 / 6}
    assert list(result.accuracy) == ["clean", "fgsm", "pgd-3", "cw-3", "worst"]


def test_restarts_only_ever_break_more():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))
    x, y = torch.rand(64, 1, 4, 4), torch.arange(64) % 3
    y = model(x).argmax(dim=1)
    one, four = (evaluate(model, x, y, threat=Linf(0.05), attacks=[n]).accuracy["worst"] for n in ("pgd-2", "pgd-2-4"))
    assert four <= one + 0.05


def test_verdicts_are_deterministic_and_do_not_depend_on_the_other_attacks():
    x, y = torch.rand(40, 1, 4, 4), torch.arange(40) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    results = [
        evaluate(model, x, y, threat=Linf(0.05), attacks=attacks)
        for attacks in (["pgd-2", "cw-2"], ["pgd-2", "cw-2"], ["fgsm", "cw-2", "pgd-2"])
    ]
    assert results[0].broken_by == results[1].broken_by
    assert results[0].accuracy == results[1].accuracy
    assert {k: v for k, v in results[2].accuracy.items() if k not in ("fgsm", "worst")}.items() <= (
        results[0].accuracy.items()
    )
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", [0, -3, 2**40, 2**62])
def test_any_seed_will_do(seed):
    x, y = ramp(4)
    assert evaluate(Threshold(), x, y, threat=Linf(0.01), attacks=["pgd-1-2"], seed=seed).accuracy["worst"] == 1


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_as_it_was(training):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 2)).train(training)
    model[2].eval()
    model[3].bias.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x, y = ramp()
    results = [evaluate(model, x, y, threat=Linf(0.05), attacks=["pgd-2"]).broken_by for _ in range(2)]
    assert results[0] == results[1]  # no dropout
    assert [m.training for m in model] == [training, training, False, training]
    assert model[3].weight.requires_grad
    assert not model[3].bias.requires_grad
    assert all(p.grad is None for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_model_without_parameters_can_be_evaluated():
    class Sum(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(dim=(1, 2, 3)), 16 - x.sum(dim=(1, 2, 3))], dim=1)

    x, y = ramp()
    assert evaluate(Sum(), x, 1 - y, threat=Linf(0.001), attacks=["pgd-1"]).accuracy["worst"] == 1


def test_evaluation_never_imports_the_methods_it_evaluates():
    source = "".join(file.read_text() for file in Path(uiat.evaluation.__file__).parent.rglob("*.py"))
    assert "uiat.objectives" not in source
    assert "uiat.training.api" not in source


def test_an_ensemble_attacks_what_is_still_robust_and_logs_the_accuracy_after_each_stage(caplog):
    model = network()
    x, y = correct_images(model, 30)
    with caplog.at_level("INFO", logger="uiat"):
        result = evaluate(model, x, y, threat=Linf(0.1), attacks=["autoattack-quick", "apgd-ce"])
    after = result.stages["autoattack-quick"]
    assert list(after) == ["apgd-ce", "apgd-t"]
    assert result.accuracy["apgd-ce"] == after["apgd-ce"] >= after["apgd-t"] == result.accuracy["autoattack-quick"]
    assert 0 < result.accuracy["worst"] < 1
    assert f"robust accuracy after APGD-CE: {after['apgd-ce']:.2%}" in caplog.text
    assert set(result.broken_by) <= {"", "apgd-ce", "apgd-t"}


@pytest.mark.usefixtures("short")
def test_a_search_gives_the_same_verdicts_whatever_the_batch_size():
    model = network()
    x, y = correct_images(model)
    one, other = (
        evaluate(model, x, y, threat=Linf(0.08), attacks=["apgd-ce", "apgd-t"], batch_size=size) for size in (7, 40)
    )
    assert 0 < one.accuracy["worst"] < 1
    assert one.broken_by == other.broken_by


@pytest.mark.parametrize("attacks", [["autoattack"], ["pgd-2", "cw-2", "fmn-5", "noise-5"]])
def test_nothing_to_attack(attacks):
    model = network()
    x, y = correct_images(model, 6)
    calls = []
    progress = lambda *words: calls.append(words)  # noqa: E731
    result = evaluate(model, x, (y + 1) % 3, threat=Linf(0.1), attacks=attacks, progress=progress)
    assert set(result.accuracy.values()) == {0}
    assert set(result.broken_by) == {"clean"}
    assert all(any(name == other and done >= total for other, done, total in calls) for name in attacks)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_few_classes_and_one_image(classes):
    model = network(classes)
    x, y = correct_images(model, 1)
    attacks = ["pgd-2", "cw-2", "apgd-dlr", "autoattack-quick", "fab-t", "noise-3", "fmn-4"]
    attacks += ["uap-2", "uap-class-2", "uap-2-targeted", "uap-class-2-targeted"]
    result = evaluate(model, x, y, threat=Linf(0.9), attacks=attacks, fit=correct_images(model, 5))
    assert result.accuracy["worst"] == (1 if classes == 1 else 0)
    assert result.per_class["clean"][int(y)] == 1


def test_a_transfer_attack_makes_its_examples_on_the_second_model():
    model, other = network(), network()
    with torch.no_grad():
        other[3].bias += 0.01
    x, y = correct_images(model)
    result = evaluate(model, x, y, threat=Linf(0.2), attacks=["pgd-10"], transfer=other)
    assert list(result.accuracy) == ["clean", "pgd-10", "transfer", "worst"]
    assert abs(result.accuracy["transfer"] - result.accuracy["pgd-10"]) < 0.3
    assert result.budgets["transfer"]["source"] == "Sequential"


# --- models that answer at random


class Coin(nn.Module):
    """Two classes; the mean of the pixels is the probability of a wrong answer."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        wrong = torch.rand(len(x), device=x.device) < mean
        score = torch.where(wrong, -1.0, 1.0) + 0 * mean
        return torch.stack([score, -score], dim=1)


def coins(n=40):
    """Images that are misclassified never, half of the time and always, as many of each; no attack changes that."""
    p = torch.tensor([0.0, 0.5, 1.0]).repeat_interleave(n)
    return p.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone(), torch.zeros(3 * n, dtype=torch.int64)


def test_an_image_is_broken_by_m_of_m_fresh_calls_and_the_accuracy_is_the_mean_over_calls():
    x, y = coins()
    options = {"threat": Linf(1e-4), "attacks": ["noise-2"], "calls": 20, "wrong_calls": 18}
    result = evaluate(Coin(), x, y, **options)
    assert result.accuracy == {"clean": 2 / 3, "noise-2": 2 / 3, "worst": 2 / 3}  # half of the time is not 18 of 20
    assert result.broken_by == [""] * 80 + ["clean"] * 40
    calls = result.calls
    assert (calls["calls"], calls["wrong"], calls["tests"]) == (20, 18, 2)
    # Clopper and Pearson's bound and the tail of the binomial, for two tests together.
    assert calls["error_at_least"] == pytest.approx(stats.beta.ppf(0.025, 18, 3))
    assert calls["by_chance"] == pytest.approx(2 * stats.binom.sf(17, 20, 0.5))
    for name in ("clean", "noise-2"):
        assert calls["accuracy"][name] == pytest.approx(0.5, abs=0.03)
        low, high = calls["intervals"][name]
        assert 0.45 < low < calls["accuracy"][name] < high < 0.55
    assert calls["wrong_calls"][:40] == [0] * 40
    assert calls["wrong_calls"][80:] == [20] * 40
    assert 8 < sum(calls["wrong_calls"][40:80]) / 40 < 12
    assert evaluate(Coin(), x, y, **options).calls == calls  # the model's own random numbers go by the seed, too
    assert "misclassified in 18 of 20 fresh calls" in repr(result)
    once = evaluate(Coin(), x, y, **{**options, "calls": 1, "wrong_calls": None})
    assert once.accuracy["worst"] < 0.45  # two chances of one call each, as in the reference
    assert once.calls == {}


@pytest.mark.usefixtures("short")
def test_several_calls_change_nothing_for_a_model_that_always_answers_alike():
    x, y = images()
    attacks = ["pgd-3-2", ("mine", lambda model, x, y: x - 0.03), "apgd-ce", "apgd-dlr", "square", "noise-5"]
    one, many = (evaluate(net(), x, y, threat=Linf(0.06), attacks=attacks, calls=calls) for calls in (1, 3))
    assert 0 < one.accuracy["worst"] < 1
    assert (one.accuracy, one.broken_by, one.stages) == (many.accuracy, many.broken_by, many.stages)
    assert many.calls["accuracy"] == many.accuracy
    assert all(high - low < 1e-12 for low, high in many.calls["intervals"].values())


@pytest.mark.usefixtures("short")
def test_of_an_image_that_does_not_break_the_worst_example_is_measured():
    """A step to the left makes the error 0.6 where 18 of 20 are asked for: broken by no rule, and worth its 0.6."""

    class Steep(nn.Module):
        def forward(self, x):
            score = x.flatten(1).mean(1) - 0.4 + 0.1 * torch.randn(len(x))
            return torch.stack([score, -score], dim=1)

    x, y = torch.full((60, 1, 4, 4), 0.6), torch.zeros(60, dtype=torch.int64)
    exact = NormalDist(0, 0.1).cdf(0.025)  # of 0.2 - 0.225: wrong more often than right
    attacks = ["pgd-4-eot-4", "apgd-dlr-eot-4", "fmn-9-eot-4"]
    result = evaluate(Steep(), x, y, threat=Linf(0.225), attacks=attacks, calls=40, wrong_calls=39)
    assert result.accuracy["worst"] == 1
    for name in attacks:
        assert result.calls["accuracy"][name] == pytest.approx(1 - exact, abs=0.06), name


def test_fewer_calls_than_have_to_be_wrong_are_refused():
    x, y = ramp(3)
    with pytest.raises(uiat.UserError, match="3 wrong calls cannot be among 2"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), attacks=["fgsm"], calls=2, wrong_calls=3)


# --- the verdict of the self-checks


class Hot(nn.Module):
    """A temperature so low that cross entropy has no gradient."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 1e5 * self.inner(x)


def trained():
    x, y = tiny.tensors(48)
    model = tiny.linear()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


def test_the_selfchecks_add_a_verdict_and_change_nothing_else():
    model, x, y = trained()
    options = {"threat": Linf(0.1), "attacks": ["pgd-2"]}
    checked, plain = uiat.evaluate(model, x, y, **options), uiat.evaluate(model, x, y, **options, selfchecks=False)
    assert (checked.accuracy, checked.broken_by) == (plain.accuracy, plain.broken_by)
    assert "48 images" in checked.verdict
    assert not checked.verdict.startswith("do not believe")
    assert plain.verdict == ""
    assert uiat.evaluation.evaluate is uiat.evaluate


def test_a_broken_defence_is_not_believed():
    model, x, y = trained()
    result = uiat.evaluate(Hot(model), x, y, threat=Linf(0.1), attacks=["pgd-2"])
    assert result.verdict.startswith("do not believe this number: ")


def test_nothing_is_claimed_without_an_attack_and_nothing_checked():
    model, x, y = trained()
    assert uiat.evaluate(model, x, y, threat=Linf(0.1), attacks=["clean"]).verdict == ""


def test_progress_includes_the_selfchecks():
    model, x, y = trained()
    calls = []
    uiat.evaluate(model, x, y, threat=Linf(0.1), attacks=["fgsm"], progress=lambda *row: calls.append(row))
    assert calls[-2:] == [("self-checks", 0, 1), ("self-checks", 1, 1)]


class Detached(nn.Module):
    """A defence that detaches and quantises its input."""

    def __init__(self, inner, leave=lambda x: x.detach()):
        super().__init__()
        self.inner, self.leave = inner, leave

    def forward(self, x):
        return self.inner((self.leave(x) * 7).round() / 7)


@pytest.mark.parametrize("leave", [lambda x: x.detach(), lambda x: torch.from_numpy(x.numpy())])
def test_a_model_without_a_gradient_is_attacked_by_what_needs_none_and_flagged(leave, tmp_path, monkeypatch):
    helpers.replace_attack(monkeypatch, "square", lambda threat: Square(threat=threat, iterations=50))
    model, x, y = trained()
    attacks, state = ["fgsm", "autoattack", "noise-3", "square"], tmp_path / "state"
    result = uiat.evaluate(Detached(model, leave), x, y, threat=Linf(0.3), attacks=attacks, state=state)
    assert list(result.accuracy) == ["clean", "square", "noise-3", "worst"]
    assert result.accuracy["square"] < result.accuracy["clean"]
    assert result.warnings[0].startswith("not run: fgsm, autoattack, which need a gradient")
    assert result.verdict.startswith("do not believe this number: the output has no gradient")
    again = uiat.evaluate(Detached(model, leave), x, y, threat=Linf(0.3), attacks=attacks, state=state, resume=True)
    assert again.broken_by == result.broken_by


def test_a_model_without_a_gradient_is_flagged_where_nothing_could_be_run():
    model, x, y = trained()
    result = uiat.evaluate(Detached(model), x[:5], y[:5], threat=Linf(0.1))
    assert list(result.accuracy) == ["clean", "worst"]
    assert "the output has no gradient" in result.verdict


def test_examples_cannot_be_made_on_a_model_without_a_gradient():
    model, x, y = trained()
    with pytest.raises(uiat.UserError, match="the model to transfer from has no gradient"):
        uiat.evaluate(model, x, y, threat=Linf(0.1), attacks=["clean"], transfer=Detached(model))
