"""Averages of weights over steps, and the BatchNorm statistics that go with them."""

import pytest
import torch
from torch import nn

from support.helpers import assert_untouched, cnn, snapshot
from uiat.training.averaging import make_average, refresh_statistics, update_average


def test_an_exponential_average_by_hand():
    model = nn.Linear(2, 1, bias=False)
    average = make_average(model, "ema", decay=0.9)
    values = []
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            model.weight.fill_(value)
        update_average(average, model)
        values.append(average.module.weight.mean().item())
    # The first update copies: there is nothing to average with yet.
    assert values == pytest.approx([1.0, 0.9 + 0.2, 0.9 * 1.1 + 0.4])


def test_an_equal_average_by_hand():
    model = nn.Linear(2, 1, bias=False)
    average = make_average(model, "swa", decay=0.9)
    for value in (1.0, 2.0, 6.0):
        with torch.no_grad():
            model.weight.fill_(value)
        update_average(average, model)
    assert average.module.weight.mean().item() == pytest.approx(3.0)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_is_that_of_torch(kind):
    model = cnn()
    ours, theirs = (make_average(model, kind, decay=0.7) for _ in range(2))
    for _ in range(4):
        with torch.no_grad():
            for value in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
                value.add_(torch.rand_like(value))
        update_average(ours, model)
        theirs.update_parameters(model)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name])


def test_an_average_is_a_copy():
    model = cnn()
    average = make_average(model, "ema", decay=0.5)
    before = snapshot(model)
    update_average(average, model)
    with torch.no_grad():
        for p in average.module.parameters():
            p.zero_()
    assert_untouched(model, before)


def test_refreshed_statistics_are_those_of_the_images():
    model = nn.Sequential(nn.BatchNorm2d(1))
    model[0].running_mean.fill_(100.0)
    x = torch.rand(30, 1, 4, 4)
    refresh_statistics(model, x.split(10))
    torch.testing.assert_close(model[0].running_mean, x.mean().view(1))
    per_batch = torch.stack([part.var() for part in x.split(10)]).mean()
    torch.testing.assert_close(model[0].running_var, per_batch.view(1))
    assert model[0].momentum == 0.1
