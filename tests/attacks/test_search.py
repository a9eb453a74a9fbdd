"""Points that are attacked each on their own: packing loses nothing, random numbers follow the point."""

from dataclasses import dataclass

import pytest
import torch

from uiat.attacks.random_numbers import keys, normal, rekey, uniform
from uiat.attacks.search import advance, join, select, split


@dataclass(frozen=True)
class Countdown:
    """Breaks each point in the iteration that its label names."""

    name: str = "countdown"
    iterations: int = 10

    def attempts(self, num_classes):
        return 1

    def start(self, model, x, y, key, *, attempt):
        broken = torch.zeros(len(y), dtype=torch.bool)
        return {"x": x, "y": y, "key": key, "x_adv": x.clone(), "broken": broken, "seen": torch.zeros_like(y)}

    def iterate(self, model, points, i):
        model(points["x_adv"])
        seen = torch.where(points["broken"], points["seen"], points["seen"] + 1)
        return points | {"seen": seen, "broken": points["broken"] | (points["y"] == i)}


def begin(labels):
    y = torch.tensor(labels)
    return Countdown().start(None, torch.rand(len(y), 1, 2, 2), y, keys(0, torch.arange(len(y))), attempt=0)


def test_broken_points_leave_and_come_back_in_order():
    sizes = []
    start = begin([3, 99, 0, 99, 1, 99, 99, 99])
    points = advance(Countdown(), lambda x: sizes.append(len(x)), start, 0, 5)
    assert points["y"].equal(start["y"])
    assert points["broken"].tolist() == [True, False, True, False, True, False, False, False]
    assert points["seen"].tolist() == [4, 5, 1, 5, 2, 5, 5, 5]
    assert sizes == [8, 7, 6, 6, 5]


def test_it_stops_when_nothing_stands():
    sizes = []
    points = advance(Countdown(), lambda x: sizes.append(len(x)), begin([0, 0]), 0, 10)
    assert points["broken"].all()
    assert sizes == [2]


def test_splitting_and_joining_lose_nothing():
    points = begin([0, 1, 2, 3, 4])
    again = join(list(split(points, 2)))
    assert all(again[name].equal(points[name]) for name in points)
    assert select(points, points["y"] > 2)["y"].tolist() == [3, 4]


@pytest.mark.parametrize("draw", [uniform, normal])
def test_random_numbers_follow_the_point_and_not_the_batch(draw):
    index = torch.arange(50)
    together = draw(keys(7, index), (3, 4))
    alone = torch.cat([draw(keys(7, index[i : i + 1]), (3, 4)) for i in range(50)])
    assert together.equal(alone)
    assert not together.equal(draw(keys(8, index), (3, 4)))
    assert not together.equal(draw(rekey(keys(7, index), 0), (3, 4)))


def test_uniform_numbers_are_uniform_and_independent():
    u = uniform(keys(0, torch.arange(2_000)), (100,))
    counts = torch.histc(u, bins=20, min=0, max=1)
    expected = u.numel() / 20
    assert ((counts - expected).square() / expected).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001
    flat = torch.stack([u[:-1].flatten(), u[1:].flatten(), u.roll(1, dims=1)[:-1].flatten()])
    assert (torch.corrcoef(flat) - torch.eye(3)).abs().max() < 0.01
    assert len(torch.unique(keys(0, torch.arange(100_000)))) == 100_000


def test_normal_numbers_are_normal():
    v = normal(keys(0, torch.arange(2_000)), (100,))
    assert abs(v.mean()) < 0.01
    assert abs(v.std() - 1) < 0.01
    assert abs((v.abs() < 1.96).float().mean() - 0.95) < 0.005
