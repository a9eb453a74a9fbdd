"""Best and last weights under one attack."""

import pytest
import torch

from support.studies import write_history
from uiat import Standard, UserError
from uiat.analyse.studies import overfitting
from uiat.analyse.study import Context, StudyOptions, open_runs


def test_overfitting_is_measured_under_one_attack_whatever_a_run_was_trained_under(tmp_path, monkeypatch):
    """Best and last weights on images of both kinds; what training says of its own batches concludes nothing."""
    robust = [0.2, 0.5, None, 0.35]
    rows = [{"epoch": i, "train_correct": 0.2 * (i + 1), "robust": value} for i, value in enumerate(robust)]
    steps = (("a", 2), ("b", 3))
    folders = [write_history(tmp_path / name, rows, validation={"steps": count}) for name, count in steps]
    first = torch.arange(40)
    correct = {
        "best": {"train": first < 20, "held-out": first < 20},
        "last": {"train": first < 36, "held-out": first < 8},
    }
    attacked = []

    def correct_by_split(context, run, attack, splits, *, which):
        attacked.append((run.label, attack.steps, splits))
        return correct[which]

    monkeypatch.setattr(overfitting, "correct_by_split", correct_by_split)
    kept = {"a": {1: ["best"], 3: ["last"]}, "b": {3: ["best", "last"]}}
    monkeypatch.setattr(overfitting, "kept_weights", lambda run: kept[run.label])
    data = overfitting.measure(Context(open_runs(folders), StudyOptions()))
    assert set(attacked) == {(name, 3, ("train", "held-out")) for name in "ab"}
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


def test_without_robust_validation_there_is_no_overfitting_to_see(tmp_path):
    folder = write_history(tmp_path / "run", [{"epoch": 0, "clean": 0.5}], objective=Standard())
    with pytest.raises(UserError, match="validated without an attack"):
        overfitting.measure(Context(open_runs([folder]), StudyOptions(threat="Linf:0.1")))
