"""Averaged weights of two models, and the statistics that go with them."""

import pytest
import torch
from torch import nn

from uiat import UserError
from uiat.analyse.interpolation import interpolate


def net(scale, channels=1):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels), nn.Flatten(), nn.Linear(16 * channels, 2)
    )
    with torch.no_grad():
        model[0].weight.fill_(scale)
        model[0].bias.zero_()
        model[1].running_mean.fill_(100.0)
    return model.eval()


def test_weights_are_averaged_and_statistics_are_those_of_the_average():
    one, other, images = net(1.0), net(5.0), torch.rand(300, 1, 4, 4)
    before = {name: value.clone() for name, value in one.state_dict().items()}
    model = interpolate(one, other, 0.25, images=images)
    assert model[0].weight.item() == 2.0
    # Two batches, 250 and 50 images, count alike, as in `update_bn`.
    batches = torch.stack([2 * images[:250].mean(), 2 * images[250:].mean()])
    assert model[1].running_mean.item() == pytest.approx(batches.mean().item(), rel=1e-5)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert torch.equal(interpolate(one, other, 1.0, images=images)[3].weight, other[3].weight)


@pytest.mark.parametrize("other", [net(1.0, channels=2), nn.Sequential(nn.Conv2d(1, 1, 1))])
def test_other_architectures_are_refused_by_the_first_weight_that_differs(other):
    with pytest.raises(
        UserError, match=r"two architectures cannot be averaged: \S+ is not in both, or of another shape"
    ):
        interpolate(net(1.0), other, 0.5, images=torch.rand(2, 1, 4, 4))
