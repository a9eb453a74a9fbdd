"""From settings to what a run needs: data, the model's arguments, a device; and what is refused before it begins."""

import pytest
import torch
from torch.utils.data import TensorDataset

import uiat
from support import tiny
from uiat import Data, UserError
from uiat.data import as_float, from_tensors, load
from uiat.training.setup import as_image_set, check_plan, load_datasets, model_spec, split_own_data


def test_datasets():
    training_set, held_out = load_datasets(Data(name="digits", validation=100, subset=300), 3)
    assert (len(training_set), len(held_out)) == (300, 100)
    again, other = (load_datasets(Data(name="digits", validation=100, subset=300), seed) for seed in (3, 4))
    assert torch.equal(again[0].images, training_set.images)
    assert not torch.equal(other[0].images, training_set.images)
    pixels = {image.numpy().tobytes() for image in training_set.images}
    test, _ = uiat.data.tensors("digits", "test")
    assert not pixels & {image.numpy().tobytes() for image in held_out.images}
    assert len(pixels & {image.numpy().tobytes() for image in test}) < 3  # but for images that are there twice


def test_an_image_set_is_taken_as_it_is():
    data = load("digits", "train")
    assert as_image_set(data) is data


X, Y = tiny.tensors()
BYTES = (X * 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("data", "x"),
    [
        ((X, Y), X),
        ((X.double(), Y), X),
        ((BYTES, Y.int()), BYTES / 255),
        (TensorDataset(X, Y), X),
        (tiny.Pairs(), BYTES / 255),
        (from_tensors(X, Y), X),
    ],
    ids=["tensors", "double", "uint8", "TensorDataset", "Dataset", "ImageSet"],
)
def test_own_data_may_be_whatever_holds_images(data, x):
    images = as_image_set(data)
    torch.testing.assert_close(as_float(images.images), x)
    assert torch.equal(images.labels, Y)


def test_own_data_holds_some_out():
    training_set, held_out = split_own_data(tiny.tensors(), None, seed=0)
    assert (len(training_set), len(held_out)) == (60, 4)
    whole, given = split_own_data(tiny.tensors(), tiny.tensors(8), seed=0)
    assert (len(whole), len(given)) == (64, 8)


def test_model_spec():
    data = load("digits", "train")
    spec = model_spec(tiny.run(), data)
    assert spec["image_shape"] == [1, 8, 8]
    assert spec["width"] == 4
    assert spec["mean"][0] == pytest.approx(float(data.images.mean()), abs=1e-3)
    assert "activation" not in spec


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("evaluation.attacks", "clean,pgd20", "evaluation.attacks: unknown attack 'pgd20'"),
        ("objective.inverse.epoch", "2", r"counted from 0, but optimisation.epochs is 2: the one-off .* never be made"),
    ],
)
def test_a_mistake_that_would_only_show_after_training_is_refused_before(field, value, message, tmp_path):
    run = uiat.override(tiny.run(), [(field, value)])
    with pytest.raises(UserError, match=message):
        check_plan(run)
    with pytest.raises(UserError, match=message):
        uiat.train(run, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    if field.startswith("objective"):
        with pytest.raises(UserError, match=message):
            uiat.fit(tiny.linear(), tiny.tensors(), objective=run.objective, optimisation=run.optimisation)
