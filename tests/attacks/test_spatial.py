"""Rotations and shifts against those of torch, and what they break."""

import torch

from uiat.attacks import Spatial
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, begin


def test_whole_turns_and_shifts_are_exact():
    x = torch.rand(3, 2, 8, 8)
    attack = Spatial()
    angle, none = torch.tensor([0.0, 90.0, 180.0]), torch.zeros(3, 2)
    turned = attack.move(x, angle, none)
    for i, times in enumerate((0, 1, 2)):
        assert torch.allclose(turned[i], x[i].rot90(times, (1, 2)), atol=1e-4)
    down = attack.move(x, 0 * angle, torch.tensor([0.25, 0.0]).expand(3, 2))
    assert torch.allclose(down[:, :, 2:], x[:, :, :-2], atol=1e-5)
    assert down[:, :, :2].abs().max() < 1e-5


def test_images_of_other_sides_are_not_stretched():
    x = torch.zeros(1, 1, 9, 15)
    x[0, 0, 4, 9] = 1.0  # two to the right of the middle
    turned = Spatial().move(x, torch.tensor([90.0]), torch.zeros(1, 2))
    assert (turned[0, 0] > 0.9).nonzero().tolist() == [[2, 7]]  # two above it


def test_what_stands_near_an_edge_is_moved_out():
    x = torch.zeros(2, 1, 10, 10)
    x[0, 0, :, 0] = 1.0
    x[1, 0, 4:6, 4:6] = 1.0
    model = lambda x: torch.stack([x.flatten(1).sum(1) - 3, 3 - x.flatten(1).sum(1)], dim=1)  # noqa: E731
    attack = Spatial(iterations=30)
    points = begin(attack, model, x, torch.zeros(2, dtype=torch.int64), keys(0, torch.arange(2)))
    found = advance(attack, model, points, 0, 30)
    assert found["broken"].tolist() == [True, False]
    assert found["x_adv"][0].sum() < 3.01
