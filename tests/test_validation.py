import pytest
import torch

import tiny
from uiat import Standard
from uiat.data import from_tensors
from uiat.validation import metric, validate


@pytest.mark.parametrize(
    ("row", "name", "value"),
    [
        ({"clean": 0.8, "robust": 0.4}, "clean", 0.8),
        ({"clean": 0.8, "robust": 0.4}, "robust", 0.4),
        ({"clean": 0.8, "robust": 0.4}, "mean", pytest.approx(0.6)),
        ({"clean": 0.8}, "robust", 0.8),
        ({"clean": 0.8}, "mean", 0.8),
        ({"epoch": 3}, "clean", None),
        ({"epoch": 3}, "robust", None),
    ],
)
def test_metric(row, name, value):
    assert metric(row, name) == value


def test_validate_leaves_the_model_and_the_random_state_as_they_were():
    model = tiny.linear().train()
    state = torch.get_rng_state()
    held_out = from_tensors(*tiny.tensors())
    first, second = (validate(model, held_out, run=tiny.run()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert (first["clean"], first["robust"]) == (second["clean"], second["robust"])
    assert first["robust"] <= first["clean"]


def test_bytes_and_floats_are_judged_alike():
    x, y = tiny.tensors()
    as_bytes = (x * 255).round().to(torch.uint8)
    model, run = tiny.linear(), tiny.run()
    one, two = (validate(model, from_tensors(images, y), run=run) for images in (as_bytes, as_bytes.float() / 255))
    assert (one["clean"], one["robust"]) == (two["clean"], two["robust"])


def test_without_a_threat_model_there_is_no_robust_accuracy():
    row = validate(tiny.linear(), from_tensors(*tiny.tensors()), run=tiny.run(objective=Standard()))
    assert sorted(row) == ["clean", "validation_seconds"]
