"""Bounds enclose every value that brute force finds, and are exact where the mathematics says so."""

import itertools

import pytest
import torch
from torch import nn

from uiat.certify.bounds import Interval, bound_values, linear_lower_bounds
from uiat.certify.network import compute, trace_network


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return (x + self.second(torch.relu(self.first(x)))).relu()


def tiny(kind, seed):
    """Return a net of 4 pixels."""
    torch.manual_seed(seed)
    layers = {
        "dense": [nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)],
        "residual": [nn.Flatten(), Residual(), Residual(), nn.Linear(4, 3)],
        "norm": [nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)],
        "conv": [
            *(nn.Conv2d(1, 3, 2, padding=1, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(3, 3)),
        ],
    }[kind]
    model = nn.Sequential(*layers)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model.train()(torch.rand(16, 1, 2, 2))
    return model.eval()


def every_value(network, x):
    values = [x]
    for node in network.nodes[1:]:
        values.append(compute(node, [values[i] for i in node.inputs]))
    return values


def grid(box, points):
    """Return images of a box, its corners among them."""
    fractions = torch.tensor(list(itertools.product(torch.linspace(0, 1, points).tolist(), repeat=4))).double()
    return box.low + fractions.view(-1, 1, 2, 2) * (box.high - box.low)


@pytest.mark.parametrize("kind", ["dense", "residual", "norm", "conv"])
def test_bounds_enclose_what_brute_force_finds(kind):
    tighter = 0
    for seed in range(3):
        network = trace_network(tiny(kind, seed))
        x, radius = torch.rand(1, 1, 2, 2).double(), 0.05 * (1 + 3 * seed)
        box = Interval((x - radius).clamp_min(0), (x + radius).clamp_max(1))
        found = every_value(network, grid(box, 5))
        interval, linear = (bound_values(network, box, linear=linear) for linear in (False, True))
        for bounds in (interval, linear):
            for value, of in zip(found, bounds, strict=True):
                assert (value >= of.low - 1e-9).all()
                assert (value <= of.high + 1e-9).all()
        weights = torch.randn(1, 6, 3).double()
        below = linear_lower_bounds(network, len(network.nodes) - 1, weights, linear)[0]
        least = (found[-1] @ weights[0].T).amin(0)
        by_interval = (weights.clamp_min(0) * linear[-1].low + weights.clamp_max(0) * linear[-1].high).sum(2)[0]
        assert (below <= least + 1e-9).all()
        tighter += int((below > by_interval + 1e-9).sum())
    assert tighter > 9  # of 18: linear bounds see what the terms of a sum have in common


def test_linear_bounds_are_exact_without_a_relu_that_changes_its_sign():
    torch.manual_seed(0)
    one, two, images = nn.Linear(4, 5), nn.Linear(5, 3), torch.rand(2, 1, 2, 2).double()
    one.bias.data += 10  # every ReLU passes on what it reads
    network = trace_network(nn.Sequential(nn.Flatten(), one, nn.ReLU(), two))
    box = Interval(images - 0.1, images + 0.1)
    below = linear_lower_bounds(
        network, 4, torch.eye(3).double().expand(2, 3, 3), bound_values(network, box, linear=True)
    )
    slope = (two.weight @ one.weight).double()
    exact = network(images) - 0.1 * slope.abs().sum(1)
    torch.testing.assert_close(below, exact, rtol=0, atol=1e-6)


def test_chunks_of_rows_change_nothing(monkeypatch):
    network, x = trace_network(tiny("dense", 1)), torch.rand(3, 1, 2, 2).double()
    whole = bound_values(network, Interval(x - 0.2, x + 0.2), linear=True)
    monkeypatch.setattr("uiat.certify.bounds.MOST_COEFFICIENTS", 1)
    for one, other in zip(whole, bound_values(network, Interval(x - 0.2, x + 0.2), linear=True), strict=True):
        torch.testing.assert_close(one.low, other.low)
        torch.testing.assert_close(one.high, other.high)
