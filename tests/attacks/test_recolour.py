"""Recolouring: values that were equal stay equal, and none moves further than epsilon."""

import torch

from uiat.attacks import Recolour
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, begin


def test_one_map_a_channel_that_moves_no_value_far():
    x = torch.rand(2, 3, 6, 6).mul(7).round().div(7)
    attack = Recolour(epsilon=0.08, knots=5)
    change = 0.08 * torch.randn(2, 3, 5).sign()
    painted = attack.paint(x, change)
    assert (painted - x).abs().max() <= 0.08 + 1e-6
    for image in range(2):
        for channel in range(3):
            pairs = torch.stack([x[image, channel].flatten(), painted[image, channel].flatten()], 1).unique(dim=0)
            assert len(pairs) == len(x[image, channel].unique())
    assert attack.paint(torch.zeros(2, 3, 1, 1), change)[..., 0, 0].equal(change[:, :, 0].clamp_min(0))


def test_it_breaks_images_near_the_boundary_and_no_others():
    x = torch.tensor([0.55, 0.75]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    model = lambda x: torch.stack([x.flatten(1).mean(1) - 0.5, 0.5 - x.flatten(1).mean(1)], dim=1)  # noqa: E731
    attack = Recolour(iterations=40)
    points = begin(attack, model, x, torch.zeros(2, dtype=torch.int64), keys(0, torch.arange(2)))
    assert advance(attack, model, points, 0, 40)["broken"].tolist() == [True, False]
