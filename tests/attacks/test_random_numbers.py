"""Counter-based random numbers: they follow the example, and they are as random as they should be."""

import pytest
import torch

from uiat.attacks.random_numbers import KeyedNumbers, keys, normal, rekey, uniform


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


def test_each_draw_of_a_source_is_another_one():
    numbers = KeyedNumbers(keys(0, torch.arange(3)))
    draws = [numbers.uniform((5,)), numbers.uniform((5,)), numbers.normal((5,))]
    assert not any(one.equal(other) for i, one in enumerate(draws) for other in draws[:i])
    again = KeyedNumbers(keys(0, torch.tensor([2])))
    assert again.uniform((5,)).equal(draws[0][2:])
    assert again.uniform((5,)).equal(draws[1][2:])
