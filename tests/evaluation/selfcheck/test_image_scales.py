"""The scales that models expect: their words, and what is done to the images."""

import pytest
import torch

import uiat
from uiat.data import STATS
from uiat.evaluation.selfcheck.image_scales import IMAGENET, Scale, list_scales


def test_the_usual_normalisation_of_each_data_set_is_among_them():
    scales = list_scales(torch.rand(8, 3, 8, 8))
    assert {(scale.mean, scale.std) for scale in scales if scale.of} == {
        stats for stats in STATS.values() if len(stats[0]) in (1, 3)
    }
    assert any((scale.mean, scale.std) == IMAGENET for scale in scales)
    assert list_scales(torch.full((8, 3, 8, 8), 0.47))[1].of == ("cifar10",)


def test_images_are_brought_to_it():
    x = torch.rand(4, 3, 8, 8)
    mean, std = STATS["cifar10"]
    torch.testing.assert_close(Scale(mean, std).apply(x), uiat.models.Normalize(mean, std)(x))
    torch.testing.assert_close(Scale((0.0,), (1 / 255,)).apply(x), 255 * x)


class Bright(torch.nn.Module):
    """Tells bright images from dark ones, of the mean 0 that they have once normalised."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(5.0))

    def forward(self, x):
        score = self.scale * x.mean((1, 2, 3))
        return torch.stack([-score, score], dim=1)


def test_the_way_from_python_can_be_copied():
    """What the verdict names, put before the model, gives the accuracy that it has on normalised images."""
    mean, std = STATS["digits"]
    x = torch.linspace(0, 2 * mean[0], 200)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    y, options = (torch.arange(200) >= 100).long(), {"threat": uiat.Linf(0.01), "attacks": ["fgsm"]}
    result = uiat.evaluate(Bright(), x, y, **options)
    assert result.accuracy["clean"] < 0.51
    assert "as is usual for digits" in result.verdict
    assert "with `uiat evaluate --model` add --normalize; in Python torch.nn.Sequential(" in result.verdict
    assert f"uiat.models.Normalize([{mean[0]}], [{std[0]}]), model)" in result.verdict
    inside = torch.nn.Sequential(uiat.models.Normalize([mean[0]], [std[0]]), Bright())
    again = uiat.evaluate(inside, x, y, **options)
    assert again.accuracy["clean"] == 1
    assert "normalise" not in again.verdict


@pytest.mark.parametrize("of", [(), ("cifar10",)])
def test_the_option_is_named_where_there_is_one(of):
    assert ("--normalize" in Scale((0.5,), (0.2,), of).remedy) == bool(of)
