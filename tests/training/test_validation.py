"""Validation on held-out images: accuracies, the gradient alignment of single-step runs, the metric of the best."""

import pytest
import torch
from torch import nn

import uiat
from support import helpers, tiny
from uiat import UIAT, Standard
from uiat.data import as_float, from_tensors
from uiat.system.distributed import Rank
from uiat.training.validation import selection_metric, validate


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        ({"clean": 0.8, "robust": 0.4}, "clean", 0.8),
        ({"clean": 0.8, "robust": 0.4}, "robust", 0.4),
        ({"clean": 0.8, "robust": 0.4}, "mean", pytest.approx(0.6)),
        ({"clean": 0.8, "robust": 0.4, "worst_class": 0.1}, "worst-class", 0.1),
        ({"clean": 0.8}, "worst-class", 0.8),
        ({"clean": 0.8}, "robust", 0.8),
        ({"clean": 0.8}, "mean", 0.8),
        ({"epoch": 3}, "clean", None),
        ({"epoch": 3}, "robust", None),
    ],
)
def test_metric(row, name, value):
    assert selection_metric(row, name) == value


def test_validate_leaves_the_model_and_the_random_state_as_they_were():
    model = tiny.linear().train()
    state = torch.get_rng_state()
    held_out = from_tensors(*tiny.tensors())
    first, second = (validate(model, held_out, run=tiny.run()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert (first["clean"], first["robust"]) == (second["clean"], second["robust"])
    assert first["robust"] <= first["clean"]


def test_bytes_and_floats_are_validated_alike():
    x, y = tiny.tensors()
    as_bytes = (x * 255).round().to(torch.uint8)
    model, run = tiny.linear(), tiny.run()
    one, two = (validate(model, from_tensors(images, y), run=run) for images in (as_bytes, as_bytes.float() / 255))
    assert (one["clean"], one["robust"]) == (two["clean"], two["robust"])


def test_without_a_threat_model_there_is_no_robust_accuracy():
    row = validate(tiny.linear(), from_tensors(*tiny.tensors()), run=tiny.run(objective=Standard()))
    assert sorted(row) == ["clean", "validation_seconds"]


def test_the_lowest_class_is_the_one_that_evaluation_finds():
    held_out, run = from_tensors(*tiny.tensors()), tiny.run(validation={"metric": "worst-class"})
    row = validate(tiny.linear(), held_out, run=run)
    attacks, x = [f"pgd-{run.validation.steps}"], as_float(held_out.images)
    found = uiat.evaluate(tiny.linear(), x, held_out.labels, threat=run.threat, attacks=attacks, seed=run.seed)
    assert row["worst_class"] == pytest.approx(found.fairness[attacks[0]]["worst"])
    assert row["worst_class"] <= row["robust"]


def single(steps=1):
    return tiny.run(objective=UIAT(attack=tiny.attack(steps)))


def test_the_gradient_alignment_of_single_step_runs_is_recorded():
    held_out = from_tensors(torch.full((300, 1, 8, 8), 0.501), torch.arange(300) % 2)
    straight = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    row = validate(straight, held_out, run=single())
    assert list(row) == ["clean", "robust", "alignment", "validation_seconds"]
    assert row["alignment"] == pytest.approx(1.0, abs=1e-6)
    assert abs(validate(helpers.Folded(), held_out, run=single())["alignment"]) < 0.1
    assert "alignment" not in validate(straight, held_out, run=single(steps=2))
    free = tiny.run(objective=uiat.PGDAT(attack=tiny.attack(0)), replays=2)
    assert "alignment" in validate(straight, held_out, run=free)


def test_the_alignment_draws_from_keys_alone_and_leaves_the_model_as_it_was():
    held_out, model = from_tensors(*tiny.tensors()), tiny.linear().train()
    state, weights = torch.get_rng_state(), [p.clone() for p in model.parameters()]
    first, second = (validate(model, held_out, run=single())["alignment"] for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(weights, model.parameters(), strict=True))


def test_processes_share_the_alignment(monkeypatch):
    held_out, model = from_tensors(*tiny.tensors(301, classes=4)), tiny.linear()
    whole = validate(model, held_out, run=single())["alignment"]
    monkeypatch.setattr(Rank, "total", lambda self, value: value)
    parts = []
    for rank in range(3):
        monkeypatch.setattr("uiat.training.validation.current_rank", lambda rank=rank: Rank(rank=rank, size=3))
        parts.append(validate(model, held_out, run=single())["alignment"])
    assert sum(parts) == pytest.approx(whole)
