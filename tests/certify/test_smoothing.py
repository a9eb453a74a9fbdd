"""Randomised smoothing: the radius of a linear model is known, and what is certified is never more than that."""

import pytest
import torch
from torch import nn

from uiat import UserError, certify_smoothing
from uiat.certify.smoothing import Smoothing


@pytest.fixture(scope="module")
def linear():
    """A linear model of two classes, images, their labels, and the distance of each to the hyperplane."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(12, 1, 2, 2)
    with torch.no_grad():
        model[1].bias += 0.5 * (
            model(torch.full((1, 1, 2, 2), 0.5))[0].flip(0) - model(torch.full((1, 1, 2, 2), 0.5))[0]
        )
        logits, weight = model(x), model[1].weight
    distance = (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).norm()
    return model, x, logits.argmax(1), distance


def test_the_radius_of_a_linear_model_rises_towards_its_distance_to_the_hyperplane(linear):
    model, x, y, distance = linear
    few, many = (torch.tensor(certify_smoothing(model, x, y, sigma=0.25, n=n).radii) for n in (200, 20_000))
    assert (many <= distance).all()  # each with probability 0.999
    assert few.mean() < many.mean()
    reached = many > 0
    assert reached.sum() >= 10
    assert (many[reached] > distance[reached].clamp(max=0.75) - 0.03).all()


def test_an_image_has_the_same_radius_whatever_the_batch_and_the_company(linear):
    model, x, y, _ = linear
    options = {"sigma": 0.25, "n": 150, "n0": 30, "seed": 3}
    whole = certify_smoothing(model, x, y, batch_size=500, **options)
    assert certify_smoothing(model, x, y, batch_size=7, **options).radii == whole.radii
    assert certify_smoothing(model, x[:3], y[:3], **options).radii == whole.radii[:3]
    assert certify_smoothing(model, x, y, **options | {"seed": 4}).radii != whole.radii


class Coin(nn.Module):
    def forward(self, x):
        return torch.stack([torch.rand(len(x)), torch.rand(len(x))], dim=1)


class Nothing(nn.Module):
    def forward(self, x):
        return torch.full((len(x), 2), torch.nan) * x.sum()


@pytest.mark.parametrize("model", [Coin(), Nothing()])
def test_it_abstains_where_no_class_is_certain(model):
    torch.manual_seed(0)
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    result = certify_smoothing(model, x, y, sigma=0.25, n=400)
    assert (result.predictions, result.radii, result.abstained) == ([-1] * 3, [0.0] * 3, 3)
    assert result.accuracy(0.0) == result.mean_radius == 0


def test_a_certain_class_that_is_wrong_counts_for_nothing(linear):
    model, x, y, _ = linear
    result = certify_smoothing(model, x, 1 - y, sigma=0.25, n=1000)
    assert max(result.radii) > 0
    assert result.accuracy(0.0) == result.mean_radius == 0
    record = result.to_json()
    assert record["certified"] == [0.0] * len(record["at"])
    assert max(record["at"]) <= Smoothing(sigma=0.25, n=1000).largest_radius < max(record["at"]) + 0.125


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sigma": 0.0}, "sigma must be above 0, but is 0"),
        ({"sigma": 25.0}, "sigma must be at most 10"),
        ({"sigma": 0.25, "n": 9}, "n 9 certifies nothing at alpha 0.001, whatever the model answers: give more than 9"),
        ({"sigma": 0.25, "alpha": 1.0}, "alpha must be below 1"),
        ({"sigma": 0.25, "n0": 0}, "n0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(linear, options, says):
    with pytest.raises(UserError, match=says):
        certify_smoothing(*linear[:3], **options)
