import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import uiat
from support import tiny
from uiat import L2, Linf, UserError
from uiat.attacks import PGD
from uiat.attacks.random_numbers import KeyedNumbers, keys, rekey
from uiat.evaluation import attack, correct_under
from uiat.threat import L1

evaluate = partial(uiat.evaluate, selfchecks=False)


class Threshold(nn.Module):
    """Two classes told apart by the mean of the pixels, class 1 being above 0.5."""

    def __init__(self, *, pixels=16):
        super().__init__()
        self.w = nn.Parameter(torch.full((pixels,), 20.0 / pixels))
        self.calls = Counter()

    def forward(self, x):
        self.calls["grad" if torch.is_grad_enabled() else "eval"] += 1
        self.calls["images"] += len(x)
        score = x.flatten(1) @ self.w - 10
        return torch.stack([-score, score], dim=1)


def ramp(n=11):
    """Grey images from 0.25 to 0.75 in steps of 0.05: at distance |grey - 0.5| from the boundary, in Linf."""
    grey = torch.linspace(0.2525, 0.7525, n)
    return grey.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone(), (grey > 0.5).long()


def test_accuracy_in_closed_form():
    x, y = ramp()
    y[0] = 1 - y[0]  # wrong as it is
    for epsilon in (0.03, 0.06, 0.11, 0.26):
        result = evaluate(Threshold(), x, y, threat=Linf(epsilon), attacks=["fgsm", "pgd-5", "pgd-5-2", "cw-5"])
        distance = (x[:, 0, 0, 0] - 0.5).abs()
        right = ((distance > epsilon) & (torch.arange(11) > 0)).double().mean().item()
        assert result.accuracy["clean"] == pytest.approx(10 / 11)
        for name in ("fgsm", "pgd-5", "pgd-5-2", "cw-5", "worst"):
            assert result.accuracy[name] == pytest.approx(right), (epsilon, name)


def test_accuracy_in_closed_form_l2():
    x, y = ramp()
    result = evaluate(Threshold(), x, y, threat=L2(0.24), attacks=["pgd-10"])  # 16 pixels: 4 times the change of each
    assert result.accuracy["pgd-10"] == pytest.approx(((x[:, 0, 0, 0] - 0.5).abs() > 0.06).double().mean().item())


def test_worst_case_and_what_broke_each_example(monkeypatch):
    x, y = ramp(6)
    broken = {"clean": [0], "fgsm": [0, 1, 2], "pgd-3": [0, 2, 3], "cw-3": [0, 1]}
    kinds = iter(broken.values())

    def scripted(subject, *others, **options):
        right = torch.ones(len(subject.x), dtype=torch.bool)
        right[next(kinds)] = False
        return right, subject.x

    def as_they_are(subject, **options):
        return scripted(subject)[0], torch.ones(len(subject.x), dtype=torch.float64)

    monkeypatch.setattr("uiat.evaluation.evaluator.evaluate_clean", as_they_are)
    monkeypatch.setattr("uiat.evaluation.evaluator.attack_images", scripted)
    result = evaluate(Threshold(), x, y, threat=Linf(0.1), attacks=list(broken))
    assert result.broken_by == ["clean", "fgsm", "fgsm", "pgd-3", "", ""]
    assert result.accuracy == {"clean": 5 / 6, "fgsm": 0.5, "pgd-3": 0.5, "cw-3": pytest.approx(4 / 6), "worst": 2 / 6}
    assert list(result.accuracy) == ["clean", "fgsm", "pgd-3", "cw-3", "worst"]


def test_an_image_that_is_misclassified_is_not_attacked_and_restarts_are_for_survivors():
    x, y = ramp(11)
    y[:5] = 1  # five wrong as they are; at 0.12 three of the other six fall
    model = Threshold()
    right = correct_under(model, x, y, None)
    assert right.sum() == 6
    seen = []
    craft = PGD.craft

    class Spy(PGD):
        def craft(self, model, x, y, *, generator=None, key=None):
            assert self.restarts == 1
            seen.append(len(x))
            return craft(self, model, x, y, key=key)

    settings = Spy(threat=Linf(0.12), step_size=0.05, steps=5, restarts=3)
    after = correct_under(model, x, y, settings, among=right)
    assert seen == [6, 3, 3]
    assert after.sum() == 3
    assert not (after & ~right).any()
    assert right.sum() == 6  # what was passed in is as it was


def test_restarts_only_ever_break_more():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))
    x, y = torch.rand(64, 1, 4, 4), torch.arange(64) % 3
    y = model(x).argmax(dim=1)
    one, four = (evaluate(model, x, y, threat=Linf(0.05), attacks=[n]).accuracy["worst"] for n in ("pgd-2", "pgd-2-4"))
    assert four <= one + 0.05


def test_verdicts_are_deterministic_and_do_not_depend_on_what_else_is_asked():
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


def test_what_is_in_the_record(tmp_path):
    x, y = ramp()
    result = evaluate(Threshold(), x, y, threat=Linf("8/255"), attacks=["pgd-2", "pgd-2", "clean"], seed=7)
    record = json.loads(json.dumps(result.to_json()))
    assert list(record)[:8] == ["threat", "n", "accuracy", "seconds", "broken_by", "seed", "environment", "stages"]
    assert list(record)[8:14] == ["passes", "stage_seconds", "intervals", "per_class", "calibration", "budgets"]
    assert list(record)[14:] == ["warnings", "verdict", "batch_size", "processes"]
    assert (record["batch_size"], record["processes"]) == (500, 1)
    assert record["threat"] == "Linf:0.03137255"
    assert (record["n"], record["seed"]) == (11, 7)
    assert list(record["seconds"]) == ["clean", "pgd-2"]
    assert record["environment"]["torch"] == torch.__version__


@pytest.mark.parametrize("seed", [0, -3, 2**40, 2**62])
def test_any_seed_will_do(seed):
    x, y = ramp(4)
    assert evaluate(Threshold(), x, y, threat=Linf(0.01), attacks=["pgd-1-2"], seed=seed).accuracy["worst"] == 1


def test_progress_is_told():
    x, y = ramp(10)
    told = []
    evaluate(
        Threshold(),
        x,
        y,
        threat=Linf(0.01),
        attacks=["pgd-1-2"],
        batch_size=4,
        progress=lambda name, done, total: told.append((name, done, total)),
    )
    assert told[:3] == [("clean", 4, 10), ("clean", 8, 10), ("clean", 10, 10)]
    assert told[-1] == ("pgd-1-2", 20, 20)


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
    found = attack(name, threat=Linf(0.1))
    assert (found.loss, found.steps, found.restarts) == (loss, steps, restarts)
    assert float(found.step_size) == pytest.approx(size)
    assert attack("clean", threat=Linf(0.1)) is None


@pytest.mark.parametrize(
    ("name", "near"),
    [("fgms", "fgsm"), ("pgd", "pgd-K"), ("pgd-0", "pgd-K"), ("cw-", "cw-K"), ("pgd20", "pgd-K"), ("claen", "clean")],
)
def test_a_mistyped_attack_names_the_nearest(name, near):
    x, y = ramp()
    with pytest.raises(UserError, match=f"unknown attack '{name}'; did you mean .*'{near}'"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), attacks=[name])
    with pytest.raises(UserError, match=r"known: apgd-ce, .*, clean, cw-K, .*, pgd-K, pgd-K-R, square"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), attacks=["clean", "spsa"])


class Answer(nn.Module):
    """A model that returns whatever it is told to."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.w = answer, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.answer(self.w * x.flatten(1)[:, :3])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda s: s.softmax(dim=1), "returns probabilities"),
        (lambda s: (s, s), "not tuple"),
        (lambda s: {"logits": s}, "not dict"),
        (lambda s: s[:, :2], r"tells 2 classes apart, but labels run up to 2"),
        (lambda s: s * math.nan, "NaN or infinite"),
        (lambda s: s.long(), "floating-point"),
        (lambda s: s.sum(), r"shape \(\) for one image"),
        (lambda s: s[:, 0], r"shape \(1,\) for one image"),
        (lambda s: s[:1], r"shape \(1, 3\) for 4 images"),
    ],
)
def test_models_that_do_not_return_logits(answer, message, unchecked):
    with pytest.raises(UserError, match=message):
        evaluate(Answer(answer), torch.rand(9, 1, 4, 4), torch.arange(9) % 3, threat=Linf(0.1))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64), "empty"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0, 2]), "labels run up to 2"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0, -1]), "non-negative"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0]), r"shape \(2,\)"),
        (torch.rand(2, 1, 4, 4), torch.tensor([0.0, 1.0]), "int64"),
        (torch.rand(2, 1, 4, 4) * 255, torch.tensor([0, 1]), "divide by 255"),
        (torch.randint(0, 255, (2, 1, 4, 4), dtype=torch.uint8), torch.tensor([0, 1]), "divide by 255"),
        (torch.full((2, 1, 4, 4), math.nan), torch.tensor([0, 1]), "not finite"),
        (torch.rand(2, 1, 4, 4) - 0.5, torch.tensor([0, 1]), "unnormalised"),
    ],
)
def test_images_and_labels_that_cannot_be_meant(x, y, message, unchecked):
    with pytest.raises(UserError, match=message):
        evaluate(Threshold(), x, y, threat=Linf(0.1))


def test_other_arguments_that_cannot_be_meant(unchecked):
    x, y = ramp()
    with pytest.raises(UserError, match="attacks must be a list of names"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), attacks="clean,pgd-20")
    with pytest.raises(UserError, match="batch_size must be at least 1"):
        evaluate(Threshold(), x, y, threat=Linf(0.1), batch_size=0)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_as_it_was(training):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 2)).train(training)
    model[2].eval()
    model[3].bias.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x, y = ramp()
    results = [evaluate(model, x, y, threat=Linf(0.05), attacks=["pgd-2"]).broken_by for _ in range(2)]
    assert results[0] == results[1]  # no dropout in the judge
    assert [m.training for m in model] == [training, training, False, training]
    assert model[3].weight.requires_grad
    assert not model[3].bias.requires_grad
    assert all(p.grad is None for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_an_answer_that_is_nan_is_no_answer():
    """NaN wins every argmax, and would count as class 0."""

    class Fragile(nn.Module):
        def forward(self, x):
            logits = torch.stack([x.mean(dim=(1, 2, 3)), 1 - x.mean(dim=(1, 2, 3)), 0 * x.sum(dim=(1, 2, 3))], dim=1)
            return torch.where((x == 0.25).all(dim=(1, 2, 3))[:, None], math.nan, logits)

    x = torch.full((5, 1, 4, 4), 0.75)
    x[4] = 0.25
    assert correct_under(Fragile(), x, torch.tensor([0, 0, 0, 0, 0]), None).tolist() == [True] * 4 + [False]


def test_a_model_without_parameters_can_be_judged():
    class Sum(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum(dim=(1, 2, 3)), 16 - x.sum(dim=(1, 2, 3))], dim=1)

    x, y = ramp()
    assert evaluate(Sum(), x, 1 - y, threat=Linf(0.001), attacks=["pgd-1"]).accuracy["worst"] == 1


def test_the_judge_never_imports_the_methods_it_judges():
    source = "".join(file.read_text() for file in Path(uiat.evaluation.__file__).parent.rglob("*.py"))
    assert "uiat.objectives" not in source
    assert "uiat.training.api" not in source


def test_a_trained_run_is_judged(tmp_path):
    uiat.train(tiny.run(epochs=1), run_dir=tmp_path / "run")
    model = uiat.load(tmp_path / "run")
    x, y = uiat.data.tensors("digits", "test")
    result = evaluate(model, x[:40], y[:40], threat=model.threat, attacks=["pgd-2"])
    assert 0 <= result.accuracy["worst"] <= result.accuracy["clean"] <= 1


def test_an_ensemble_goes_on_with_what_stands_and_says_so_after_each_stage(caplog):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.rand(30, 1, 3, 3)
    y = model(x).argmax(dim=1)
    with caplog.at_level("INFO", logger="uiat"):
        result = evaluate(model, x, y, threat=Linf(0.1), attacks=["autoattack-quick", "apgd-ce"])
    after = result.stages["autoattack-quick"]
    assert list(after) == ["apgd-ce", "apgd-t"]
    assert result.accuracy["apgd-ce"] == after["apgd-ce"] >= after["apgd-t"] == result.accuracy["autoattack-quick"]
    assert 0 < result.accuracy["worst"] < 1
    assert f"robust accuracy after APGD-CE: {after['apgd-ce']:.2%}" in caplog.text
    assert set(result.broken_by) <= {"", "apgd-ce", "apgd-t"}


def test_a_search_gives_the_same_verdicts_whatever_the_batch_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    x = torch.rand(40, 1, 3, 3, dtype=torch.float64)
    y = model(x).argmax(dim=1)
    one, other = (
        evaluate(model, x, y, threat=Linf(0.08), attacks=["apgd-ce", "apgd-t"], batch_size=size) for size in (7, 40)
    )
    assert one.broken_by == other.broken_by


def network(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, classes)).double()


def right_images(model, n=40):
    x = torch.rand(n, 1, 3, 3, dtype=torch.float64)
    return x, model(x).argmax(dim=1)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.25), L1(0.6)], ids=lambda threat: threat.norm)
def test_random_starts_do_not_depend_on_the_batch_size(threat):
    model = network()
    x, y = right_images(model)
    attacks = ["pgd-2", "cw-2", "pgd-1-3"]
    one, other = (evaluate(model, x, y, threat=threat, attacks=attacks, batch_size=b, seed=3) for b in (7, 40))
    assert one.broken_by == other.broken_by
    assert 0 < one.accuracy["worst"] < 1
    pgd = attack("pgd-1", threat=threat)
    key = keys(0, torch.arange(40))
    whole = pgd(model, x, y, key=key)
    assert torch.equal(whole[5:9], pgd(model, x[5:9], y[5:9], key=key[5:9]))
    assert not torch.allclose(whole, pgd(model, x, y, key=rekey(key, 1)))
    gaussian = replace(pgd, start="gaussian", steps=1, step_size=0)(model, x, y, key=key) - x
    assert 0 < gaussian.std() < 0.0011
    with pytest.raises(UserError, match="not from both"):
        pgd(model, x, y, key=key, generator=torch.Generator())


@pytest.mark.parametrize("threat", [Linf(0.2), L2(1.0), L1(3.0)], ids=lambda threat: threat.norm)
def test_starts_by_key_are_distributed_as_those_of_a_generator(threat):
    x = torch.full((4_000, 1, 2, 2), 0.5)
    ours, theirs = threat.noise_from(x, KeyedNumbers(keys(0, torch.arange(4_000)))), threat.noise(x)
    assert (threat.length(ours) <= float(threat.epsilon) * (1 + 1e-6)).all()
    for of in (lambda d: threat.length(d), lambda d: d.abs().flatten(1)[:, 0], lambda d: d.flatten(1)[:, 1]):
        a, b = of(ours), of(theirs)
        assert a.mean().item() == pytest.approx(b.mean().item(), abs=0.05 * float(threat.epsilon))
        assert a.std().item() == pytest.approx(b.std().item(), rel=0.1)


def test_the_kept_examples_are_what_broke_each_image():
    model, threat = network(), Linf(0.1)
    x, y = right_images(model)
    y[0] = (y[0] + 1) % 3
    result = evaluate(model, x, y, threat=threat, attacks=["fgsm", "pgd-3", "apgd-t"], keep_examples=True)
    assert {"", "clean", "fgsm"} <= set(result.broken_by)
    broken = torch.tensor([by != "" for by in result.broken_by])
    assert torch.equal(model(result.examples).argmax(dim=1) != y, broken)
    assert (threat.length(result.examples - x) <= 0.1 + 1e-9).all()
    assert torch.equal(result.examples[~broken], x[~broken])
    assert torch.equal(result.examples[0], x[0])
    assert "examples" not in result.to_json()
    assert evaluate(model, x, y, threat=threat, attacks=["fgsm"]).examples is None


def test_what_else_is_in_the_record():
    model = network()
    x, y = right_images(model)
    result = evaluate(model, x, y, threat=Linf(0.1), attacks=["fgsm", "autoattack-quick"])
    stages = {"clean", "fgsm", "apgd-ce", "apgd-t"}
    assert result.passes.keys() == result.stage_seconds.keys() == result.budgets.keys() == stages
    assert result.passes["clean"] == {"forward": 40, "backward": 0}
    assert result.passes["fgsm"] == {"forward": 80, "backward": 40}
    assert result.passes["apgd-ce"]["forward"] > result.passes["apgd-ce"]["backward"] > 40
    assert result.seconds["autoattack-quick"] == pytest.approx(
        result.stage_seconds["apgd-ce"] + result.stage_seconds["apgd-t"]
    )
    assert result.budgets["apgd-t"]["targets"] == 9
    assert result.budgets["fgsm"] | {"attack": "PGD", "threat": "Linf:0.1", "steps": 1} == result.budgets["fgsm"]
    names = ["clean", "fgsm", "autoattack-quick", "worst"]
    assert [list(d) for d in (result.accuracy, result.intervals, result.per_class)] == [names] * 3
    for name, (low, high) in result.intervals.items():
        assert low <= result.accuracy[name] <= high
        of = [share * int((y == k).sum()) for k, share in enumerate(result.per_class[name]) if share is not None]
        assert sum(of) == pytest.approx(40 * result.accuracy[name])
    sure = model(x).softmax(dim=1).amax(dim=1)
    # Everything is right, so every gap is 1 - confidence.
    assert result.calibration == {"ece": pytest.approx(1 - sure.mean().item()), "bins": 15}
    assert (result.warnings, result.verdict) == ([], "")
    json.dumps(result.to_json())


def test_the_bound_falls_to_the_worst_case(caplog):
    model = network()
    x, y = right_images(model)
    told = []
    with caplog.at_level("INFO", logger="uiat"):
        result = evaluate(
            model,
            x,
            y,
            threat=Linf(0.1),
            attacks=["pgd-3", "autoattack-quick"],
            bound=lambda *words: told.append(words),
        )
    assert [share for _, share in told] == sorted((share for _, share in told), reverse=True)
    assert told[0][0] == "clean"
    assert told[-1] == ("apgd-t", result.accuracy["worst"])
    assert "initial accuracy: 100.00%" in caplog.text
    assert f"in the worst case so far, after pgd-3: at most {result.accuracy['pgd-3']:.2%}" in caplog.text


def test_progress_of_an_ensemble_is_that_of_all_its_stages():
    model = network()
    x, y = right_images(model, 12)
    told = []
    evaluate(model, x, y, threat=Linf(0.05), attacks=["autoattack-quick"], progress=lambda *words: told.append(words))
    done = [done for name, done, _ in told if name == "autoattack-quick"]
    assert done == sorted(done)
    assert told[-1] == ("autoattack-quick", 300, 300)  # 100 iterations, and 100 for each of two targets


@pytest.mark.parametrize("attacks", [["autoattack"], ["pgd-2", "cw-2", "fmn-5", "noise-5"]])
def test_nothing_to_attack(attacks):
    model = network()
    x, y = right_images(model, 6)
    told = []
    result = evaluate(
        model, x, (y + 1) % 3, threat=Linf(0.1), attacks=attacks, progress=lambda *words: told.append(words)
    )
    assert set(result.accuracy.values()) == {0}
    assert set(result.broken_by) == {"clean"}
    assert all(any(name == other and done >= total for other, done, total in told) for name in attacks)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_few_classes_and_one_image(classes):
    model = network(classes)
    x, y = right_images(model, 1)
    attacks = ["pgd-2", "cw-2", "apgd-dlr", "autoattack-quick", "fab-t", "noise-3", "fmn-4"]
    result = evaluate(model, x, y, threat=Linf(0.9), attacks=attacks)
    assert result.accuracy["worst"] == (1 if classes == 1 else 0)
    assert result.per_class["clean"][int(y)] == 1


def test_one_class_is_left_among_the_labels():
    model = network()
    x, y = right_images(model)
    some = y == y.mode().values
    result = evaluate(model, x[some], y[some], threat=Linf(0.1), attacks=["autoattack-quick"])
    assert 0 < result.accuracy["worst"] < 1
    assert sum(share is None for share in result.per_class["worst"]) == 2


def test_a_transfer_attack_makes_its_examples_on_the_second_model():
    model, other = network(), network()
    with torch.no_grad():
        other[3].bias += 0.01
    x, y = right_images(model)
    result = evaluate(model, x, y, threat=Linf(0.2), attacks=["pgd-10"], transfer=other)
    assert list(result.accuracy) == ["clean", "pgd-10", "transfer", "worst"]
    assert abs(result.accuracy["transfer"] - result.accuracy["pgd-10"]) < 0.3
    assert result.budgets["transfer"]["source"] == "Sequential"
    with pytest.raises(UserError, match="tells 2 classes apart, and the model judged 3"):
        evaluate(model, x, y, threat=Linf(0.2), transfer=network(2))
    with pytest.raises(UserError, match="needs a second model"):
        evaluate(model, x, y, threat=Linf(0.2), attacks=["transfer"])


def test_memory_that_runs_out_is_a_warning():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            if len(x) > 11:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.inner(x)

    model = Small()
    x, y = right_images(network())
    one = evaluate(model, x, y, threat=Linf(0.1), attacks=["pgd-2", "apgd-ce"])
    other = evaluate(network(), x, y, threat=Linf(0.1), attacks=["pgd-2", "apgd-ce"])
    assert one.broken_by == other.broken_by
    assert one.warnings == ["memory ran out: no more than 10 images went through the model at once"]
