"""What the studies say of epochs, passes and settings: overfitting, one-off, cost and the ablation."""

import json
from dataclasses import replace

import pytest
import torch

import uiat
from support import tiny
from support.paths import ROOT
from uiat import PGDAT, UIAT, InstanceInverse, Linf, Mart, Run, Standard, Trades, UniversalInverse, UserError, models
from uiat.analyse import changes
from uiat.analyse.studies import ablation, cost, one_off, overfitting
from uiat.analyse.study import Context, StudyOptions, open_runs
from uiat.evaluation import attack, correct_under
from uiat.experiments import finish
from uiat.runs.settings import find_differences
from uiat.training.pass_count import step_cost

SHAPE = (1, 8, 8)
PGD = uiat.PGD()  # ten steps


@pytest.fixture(scope="module")
def model():
    return models.build("small-cnn", num_classes=10, image_shape=SHAPE, width=4)


# passes: the counts of the paper's cost model, in forward passes


@pytest.mark.parametrize(
    ("objective", "passes"),
    [
        (Standard(), 3),
        (PGDAT(attack=PGD), 23),
        (UIAT(attack=PGD), 28),
        (UIAT(attack=PGD, inverse_gradient=False), 25),
        (UIAT(attack=PGD, momentum="example"), 28),  # what it remembers comes from the pass that refines z
        (UIAT(attack=PGD, inverse=InstanceInverse(steps=10)), 46),
        (UIAT(attack=PGD, inverse=UniversalInverse(regulariser="feature")), 29),
        (UIAT(attack=uiat.FGSMRS(threat=Linf("8/255"))), 10),
        (Mart(attack=PGD), 26),
        (Trades(attack=replace(PGD, loss="kl", start="gaussian")), 27),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_passes_of_a_step(objective, passes, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert step_cost(Run(objective=objective), model, image_shape=SHAPE, classes=10).units == passes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_one_off_run_costs_what_its_epochs_cost_on_average(model):
    run = Run(objective=UIAT(attack=PGD, inverse=UniversalInverse(epoch=2)), optimisation=uiat.Optimisation(epochs=10))
    # Two epochs of the base method alone, one that refines, seven with a frozen z.
    expected = (2 * 23 + 28 + 7 * 26) / 10
    assert step_cost(run, model, image_shape=SHAPE, classes=10).units == pytest.approx(expected)


def test_weight_perturbation_is_counted_from_its_epoch(model):
    settings = uiat.Optimisation(epochs=4, awp=0.005, awp_from_epoch=2)
    run = Run(objective=PGDAT(attack=PGD), optimisation=settings)
    assert step_cost(run, model, image_shape=SHAPE, classes=10).units == pytest.approx(23 + 3 / 2)


# overfitting


def write_run(folder, rows, **settings):
    folder.mkdir()
    (folder / "config.yaml").write_text(uiat.dump(tiny.run(**settings)))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_overfitting_is_measured_under_one_attack_whatever_a_run_was_trained_under(tmp_path, monkeypatch):
    """Best and last weights on images of both kinds; what training says of its own batches concludes nothing."""
    robust = [0.2, 0.5, None, 0.35]
    rows = [{"epoch": i, "train_correct": 0.2 * (i + 1), "robust": value} for i, value in enumerate(robust)]
    steps = (("a", 2), ("b", 3))
    folders = [write_run(tmp_path / name, rows, validation={"steps": count}) for name, count in steps]
    first = torch.arange(40)
    right = {
        "best": {"train": first < 20, "held-out": first < 20},
        "last": {"train": first < 36, "held-out": first < 8},
    }
    asked_for = []

    def standing(context, subject, settings, splits, *, which):
        asked_for.append((subject.label, settings.steps, splits))
        return right[which]

    monkeypatch.setattr(overfitting, "standing", standing)
    kept = {"a": {1: ["best"], 3: ["last"]}, "b": {3: ["best", "last"]}}
    monkeypatch.setattr(overfitting, "kept_weights", lambda subject: kept[subject.label])
    data = overfitting.measure(Context(open_runs(folders), StudyOptions()))
    assert set(asked_for) == {(name, 3, ("train", "held-out")) for name in "ab"}
    assert data["attack"] == "pgd-3"
    run = data["runs"]["a"]
    assert [(row["epoch"], row["train"], row["held-out"]) for row in run["weights"]] == [(2, 0.5, 0.5), (4, 0.9, 0.2)]
    assert run["changes"]["held-out"] == {"mean": pytest.approx(-0.3), "error": pytest.approx((0.21 / 40) ** 0.5)}
    assert run["best_by_epoch"] == [2, 0.5]
    said = " ".join(overfitting.sentences(data))
    assert "a: best weights (epoch 2) 50.0 % on training and 50.0 % on held-out images, a gap of +0.0 ± 11.2" in said
    assert "which may be chance; last weights (epoch 4) 90.0 % on training and 20.0 %" in said
    assert "from best to last, held-out -30.0 ± 7.2 points." in said
    assert "b: best and last weights (epoch 4)" in said
    assert "80.0" not in said  # accuracy of training batches, each method under its own attack


def test_as_many_training_images_as_held_out_ones_are_judged(tmp_path):
    run = tiny.run(objective=PGDAT(attack=tiny.attack()), epochs=1, data={"subset": 64, "validation": 100})
    uiat.train(run, run_dir=tmp_path / "run")
    context = Context(open_runs([tmp_path / "run"]), StudyOptions())
    data = overfitting.measure(context)["runs"]["run"]
    assert context.sizes == {"train": 64, "held-out": 64}
    assert data["n"] == 64
    assert data["weights"][0]["weights"] == ["best", "last"]
    # The same as judging the images by hand.
    x, y = (part[:64] for part in context.images(context.subjects[0], "held-out"))
    right = correct_under(uiat.load(tmp_path / "run"), x, y, attack("pgd-2", threat=Linf(0.2)))
    assert data["weights"][0]["held-out"] == pytest.approx(right.double().mean().item())


def test_without_robust_validation_there_is_no_overfitting_to_see(tmp_path):
    folder = write_run(tmp_path / "run", [{"epoch": 0, "clean": 0.5}], objective=Standard())
    with pytest.raises(UserError, match="validated without an attack"):
        overfitting.measure(Context(open_runs([folder]), StudyOptions(threat="Linf:0.1")))


# one-off


def test_one_off_is_held_against_its_base_and_uiat():
    row = {"epochs": 10, "n": 400, "clean": 0.9, "seconds": 60.0}
    rows = [
        {"run": "base", "epoch": "never", "robust": 0.50, "passes": 20.0, **row},
        {"run": "a", "epoch": 1, "robust": 0.52, "passes": 22.0, **row},
        {"run": "b", "epoch": 1, "robust": 0.56, "passes": 22.0, **row},
        {"run": "c", "epoch": 5, "robust": 0.50, "passes": 21.0, **row},
        {"run": "full", "epoch": "every epoch", "robust": 0.55, "passes": 25.0, **row},
    ]
    said = " ".join(one_off.say_one_off({"rows": rows}))
    assert "Refined in epoch 1 alone (counted from 0), 54.0 % of 400 held-out images stand." in said
    assert "epoch 5, is -4.0 points from it" in said
    assert "Against refining in every epoch (55.0 %), that is -1.0 points for -12.0 % of the passes" in said
    assert "Against PGD-AT (50.0 %), that is +4.0 points for +10.0 % of the passes" in said
    assert [row[0] for row in one_off.table_one_off({"rows": rows})[1:]] == ["never", "1", "5", "every epoch"]
    for shown in (rows, rows[:2]):
        for axes in one_off.draw_one_off({"rows": shown}).axes:
            assert all(tick == round(tick) for tick in axes.get_xticks())
            assert axes.get_xlim() == (-0.5, 9.5)
    assert one_off.table_one_off({"rows": rows})[2][:4] == ["1", "2", "90.0 ± 0.0", "54.0 ± 2.8"]


# cost


def test_cost_names_those_that_nobody_beats():
    common = {"n": 539, "threat": "Linf:0.2", "attacks": ["pgd-20"], "hardware": "one", "method": "pgd-at"}
    rows = [
        {"run": "cheap", "passes": 20.0, "worst": 0.5, **common},
        {"run": "good", "passes": 25.0, "worst": 0.6, **common},
        {"run": "bad", "passes": 26.0, "worst": 0.55, **common},
    ]
    said = cost.say_cost({"rows": rows})
    best = "cheap (20.0 passes, 50.0 %) and good (25.0 passes, 60.0 %)"
    assert said[0] == f"No other run is both cheaper and more robust than {best}."
    assert "good takes 1.25 times the passes of cheap and is +10.0 points from it in the worst case." in said
    rows[0]["n"] = 100
    assert cost.say_cost({"rows": rows})[0].startswith("Careful: the runs differ in n")


# ablation


def test_each_row_changes_the_run_and_no_two_are_the_same():
    base = uiat.recipes.get("digits-uiat")
    rows = changes(base)
    runs = [uiat.override(base, fields) for fields in rows.values()]
    assert next(iter(rows)) == "uiat"
    assert runs[0] == base
    for i, run in enumerate(runs):
        assert all(run != other for other in runs[:i])
        if i:
            assert find_differences(run, base)
    radius = uiat.override(base, rows["radius epsilon"]).objective.inverse
    assert radius.radius == pytest.approx(0.2)
    assert radius.step_size / radius.radius == pytest.approx(
        base.objective.inverse.step_size / base.objective.inverse.radius
    )
    assert "detached target" not in rows  # which the recipe has
    assert rows["gradient through the inverse branch"] == [("objective.inverse_gradient", "true")]


def test_every_component_and_choice_has_a_row():
    rows = changes(uiat.recipes.get("cifar10-small-uiat"))
    for word in ("pgd-at", "instance-wise", "one-off", "lambda", "detached", "radius", "KL", "momentum per example"):
        assert any(word in name for name in rows), word
    for word in ("momentum per class", "gamma", "feature", "logit", "gradient of z", "BatchNorm"):
        assert any(word in name for name in rows), word


def test_an_instance_wise_run_has_no_rows_of_the_universal_kind():
    rows = changes(uiat.recipes.get("digits-iat"))
    assert "one-off" not in rows
    assert "momentum of the gradient of z" not in rows
    assert "instance-wise inverse" not in rows


def test_differences_are_those_that_decide_the_weights():
    base = tiny.run()
    free = [("seed", "7"), ("name", "x"), ("evaluation.n", "3"), ("compute.device", "cpu"), ("data.root", "there")]
    assert find_differences(uiat.override(base, free), base) == ""
    assert find_differences(uiat.override(base, [("objective.weight", "1")]), base) == "objective.weight=1.0"
    assert find_differences(tiny.run(objective=PGDAT(attack=tiny.attack())), base) == "pgd-at"


TINY = (
    *(("model.width", "4"), ("data.subset", "96"), ("data.batch_size", "32"), ("optimisation.epochs", "2")),
    *(("objective.attack.steps", "1"), ("validation.steps", "1")),
)


def asked(tmp_path, **more):
    options = {"n": 30, "attack": "pgd-2", "recipe": "digits-uiat", "seeds": (0, 1), "settings": TINY}
    return StudyOptions(**{**options, "train_dir": tmp_path / "runs", **more})


@pytest.fixture
def two_rows(monkeypatch):
    rows = {"uiat": [], "lambda 1": [("objective.weight", "1")]}
    monkeypatch.setattr(ablation, "changes", lambda run: rows)
    return rows


def test_the_ablation_trains_what_is_missing_and_goes_on_with_what_was_stopped(tmp_path, two_rows, monkeypatch):
    half = uiat.override(uiat.recipes.get("digits-uiat"), TINY)
    where = tmp_path / "runs" / "uiat-seed0"
    with pytest.raises(tiny.Killed):
        uiat.train(half, run_dir=where, listener=tiny.Killer(at=4))
    context = Context([], asked(tmp_path))
    data = ablation.measure(context)
    assert {name: row["seeds"] for name, row in data["rows"].items()} == {"uiat": [0, 1], "lambda 1": [0, 1]}
    assert all(len(tiny.metrics(path)) == 2 for path in (tmp_path / "runs").iterdir())
    assert (data["split"], data["base"], data["rows"]["uiat"]["n"]) == ("held-out", "uiat", 30)
    assert uiat.load_config((tmp_path / "runs/lambda-1-seed1/config.yaml").read_text()).objective.weight == 1.0

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(finish, "train", never)
    monkeypatch.setattr(finish, "resume", never)
    again = ablation.measure(Context([], asked(tmp_path)))
    assert again == data
    # The same as comparing the folders by hand, where rows are named by what differs.
    given = ablation.measure(
        Context(open_runs(sorted((tmp_path / "runs").iterdir(), reverse=True)), StudyOptions(n=30, attack="pgd-2"))
    )
    assert {name: sorted(row["robust"]) for name, row in given["rows"].items()} == {
        "uiat": sorted(data["rows"]["uiat"]["robust"]),
        "objective.weight=1.0": sorted(data["rows"]["lambda 1"]["robust"]),
    }


def test_a_folder_of_another_run_is_refused_and_a_row_that_fails_stops_no_other(tmp_path, two_rows):
    other = uiat.override(uiat.recipes.get("digits-uiat"), [*TINY, ("objective.weight", "2")])
    uiat.train(other, run_dir=tmp_path / "runs" / "lambda-1-seed0")
    data = ablation.measure(Context([], asked(tmp_path, seeds=(0,))))
    assert list(data["rows"]) == ["uiat"]
    assert "holds another run: objective.weight is 2.0 there and 1.0 here" in data["failed"]["lambda 1, seed 0"]
    assert "Failed: lambda 1, seed 0" in " ".join(ablation.sentences(data))


def test_what_an_ablation_says_is_no_more_than_its_images_allow():
    def row(*robust):
        return {"seeds": [0, 1], "n": 400, "clean": [0.9, 0.9], "robust": list(robust), "seconds": [1.0, 1.0]}

    rows = {"uiat": row(0.5, 0.5), "better": row(0.51, 0.51), "worse": row(0.3, 0.3)}
    said = " ".join(ablation.sentences({"base": "uiat", "rows": rows, "failed": {}}))
    assert "better +1.0 points; worse -20.0 points" in said
    assert "1 of 2 are further from it than 5.0 points" in said


def test_the_benchmark_has_the_same_rows():
    text = (ROOT / "benchmarks" / "training" / "accuracy.py").read_text()
    assert "from uiat.analyse import changes" in text
    assert "momentum per example" not in text  # the list stands in one place
