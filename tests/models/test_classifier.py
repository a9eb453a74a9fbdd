"""Normalisation is the first layer of a model and travels with its weights."""

import pytest
import torch

from support.models import cifar, digits, refusal
from uiat.models import Normalize


def test_normalisation_is_the_first_layer():
    model = cifar("small-cnn", width=8, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)).eval()
    x = torch.rand(2, 3, 32, 32)
    expected = torch.stack([(x[:, c] - m) / s for c, (m, s) in enumerate([(0.4, 0.1), (0.5, 0.2), (0.6, 0.3)])], 1)
    torch.testing.assert_close(model.normalize(x), expected)
    torch.testing.assert_close(model(x), model.head(model.body(expected)))


def test_normalisation_is_absent_by_default():
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(cifar("small-cnn", width=8).normalize(x), x)


def test_normalisation_travels_with_the_weights():
    saved = cifar("small-cnn", width=8, mean=(0.4, 0.5, 0.6), std=torch.tensor([0.1, 0.2, 0.3])).eval()
    fresh = cifar("small-cnn", width=8).eval()
    fresh.load_state_dict(saved.state_dict())
    torch.testing.assert_close(fresh.normalize.mean, torch.tensor([0.4, 0.5, 0.6]))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(fresh(x), saved(x))
    assert not [key for key, _ in fresh.named_parameters() if "normalize" in key]


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((125.3,), (0.2,), "divide by 255"),
        ((float("nan"),), (0.2,), "mean must be finite"),
        ((0.5,), (0.0,), "give values above 0"),
        ((0.5,), (float("nan"),), "std must be finite"),
        ((0.5,), (63.0,), "give values above 0 and at most 1"),
        ((0.5, 0.5), (0.2,), "mean has 2 values and std 1"),
        ((), (), "mean has 0 values"),
        ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "mean and std have 3 values, but the images have 1 channels"),
    ],
)
def test_statistics_refused(mean, std, message):
    assert message in refusal(digits, "small-cnn", mean=mean, std=std)


def test_images_of_another_shape_are_refused():
    layer = Normalize([0.5] * 3, [0.2] * 3)
    assert "(batch, 3, height, width), not (2, 1, 8, 8)" in refusal(layer, torch.rand(2, 1, 8, 8))
    assert "not (3, 8, 8)" in refusal(layer, torch.rand(3, 8, 8))
