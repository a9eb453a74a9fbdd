"""Recolouring attack: one map of the values of each channel for the whole image, the worst of many draws."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from uiat.attacks.gradient import one_draw
from uiat.attacks.random_numbers import KeyedNumbers, rekey
from uiat.attacks.search import Classifier, SearchState, one_attempt, query, stay
from uiat.checks import AtMostOne, Between, Count, checked_fields
from uiat.shapes import Float
from uiat.threat import to_range


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Recolour:
    """Functional attack on colours (Laidlaw & Feizi 2019, "Functional adversarial attacks", ReColorAdv), simplified.

    All pixels of one value move alike, by at most epsilon: x' = x + f_c(x), with f_c piecewise linear between knots,
    one map a channel. ReColorAdv maps colours on a grid in CIELUV by gradient; here the values at the knots
    are -epsilon or epsilon at random, and the worst of many draws counts. No part of the worst case over a ball.

    Args:
        iterations: number of draws, a query each.
        epsilon: largest change of a value, in units of [0, 1].
        knots: number of values whose change is drawn, from 0 to 1 in equal steps.
        draws: number of answers to each query that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> x = torch.tensor([0.0, 0.25, 1.0]).view(1, 1, 1, 3)
        >>> Recolour(epsilon=0.2, knots=2).paint(x, torch.tensor([[[0.2, -0.2]]])).flatten().tolist()
        [0.20000000298023224, 0.3499999940395355, 0.800000011920929]
    """

    name: ClassVar[str] = "recolour"
    outside_ball: ClassVar[bool] = True
    iterations: Count = 100
    epsilon: AtMostOne = 0.1
    knots: Annotated[int, Between(2, 64)] = 4
    draws: Count = one_draw()

    attempts = one_attempt
    start = stay

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Paint the images once more, and keep what breaks them."""
        x = points["x"]
        numbers = KeyedNumbers(rekey(points["key"], i + 1)).uniform((x.shape[1], self.knots))
        change = torch.where(numbers < 0.5, -self.epsilon, self.epsilon).to(x)
        return query(model, points, self.paint(x, change), draws=self.draws)

    def paint(self, x: Float[Tensor, "b c h w"], change: Float[Tensor, "b c k"]) -> Float[Tensor, "b c h w"]:
        """Add to each value of a channel the change at its two nearest knots, linearly between them."""
        at = (x * (self.knots - 1)).flatten(2)
        low = at.long().clamp(0, self.knots - 2)
        before, after = change.gather(2, low), change.gather(2, low + 1)
        moved = before + (at - low) * (after - before)
        return to_range(x + moved.view_as(x))
