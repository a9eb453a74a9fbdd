"""Spatial attack: rotated and shifted images, the worst of many draws."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from uiat.attacks.gradient import one_draw
from uiat.attacks.random_numbers import KeyedNumbers, rekey
from uiat.attacks.search import Classifier, SearchState, one_attempt, query, stay
from uiat.checks import AtMostOne, Between, Count, checked_fields
from uiat.shapes import Float
from uiat.threat import to_range


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Rotations and shifts (Engstrom et al. 2019, "Exploring the landscape of spatial robustness"), worst of many.

    Angles and shifts are drawn uniformly; what moves in from outside is black, and pixels are interpolated. There is no
    gradient: the paper finds that draws break more images than gradients do. No part of the worst case over a ball.

    Args:
        iterations: number of draws, a query each.
        rotation: largest angle in degrees.
        translation: largest shift along each axis, as a fraction of its side.
        draws: number of answers to each query that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> x = torch.zeros(1, 1, 5, 5)
        >>> x[0, 0, 2, 2] = 1.0
        >>> turned = Spatial().move(x, torch.tensor([90.0]), torch.tensor([[0.0, 0.2]]))  # one pixel along the width
        >>> (turned[0, 0] > 0.9).nonzero().tolist()
        [[2, 3]]
    """

    name: ClassVar[str] = "spatial"
    outside_ball: ClassVar[bool] = True
    iterations: Count = 100
    rotation: Annotated[float, Between(0, 180)] = 30.0
    translation: AtMostOne = 0.1
    draws: Count = one_draw()

    attempts = one_attempt
    start = stay

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Move the images once more, and keep what breaks them."""
        numbers = 2 * KeyedNumbers(rekey(points["key"], i + 1)).uniform((3,)) - 1
        x_t = self.move(points["x"], self.rotation * numbers[:, 0], self.translation * numbers[:, 1:])
        return query(model, points, x_t, draws=self.draws)

    def move(
        self, x: Float[Tensor, "b c h w"], angle: Float[Tensor, "b"], shift: Float[Tensor, "b 2"]
    ) -> Float[Tensor, "b c h w"]:
        """Rotate images counter-clockwise by degrees, and shift them by fractions of their height and width."""
        height, width = x.shape[-2:]
        turn = angle.to(x) * (math.pi / 180)
        cosine, sine = turn.cos(), turn.sin()
        # From a place in the result to that in the image: in units of half a side, whose sides may differ.
        down, right = (-2 * shift.to(x)).unbind(1)
        rows = torch.stack([cosine, -sine * height / width, right, sine * width / height, cosine, down], dim=1)
        rows[:, 2], rows[:, 5] = rows[:, 0] * right + rows[:, 1] * down, rows[:, 3] * right + rows[:, 4] * down
        grid = nn.functional.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
        return to_range(nn.functional.grid_sample(x, grid, align_corners=False))
