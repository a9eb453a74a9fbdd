"""Random noise in the ball: the least that an attack has to beat, and a sign that gradients mislead."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from uiat.attacks.gradient import one_draw
from uiat.attacks.random_numbers import KeyedNumbers, rekey
from uiat.attacks.search import Classifier, SearchState, one_attempt, query, stay
from uiat.checks import Count, checked_fields
from uiat.threat import Threat


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Noise:
    """Random noise: perturbations drawn uniformly from the ball and clipped to [0, 1], one query each, no gradient.

    A model that noise breaks more often than a gradient attack does hides its gradients (Carlini et al. 2019, "On
    evaluating adversarial robustness").

    Args:
        threat: the ball.
        iterations: number of draws from the ball.
        draws: number of answers to each query that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: `threat` is no threat model, or there is no draw.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.tensor([0.51, 0.9]).view(2, 1, 1, 1).expand(2, 1, 2, 2), torch.tensor([0, 0])
        >>> attack = Noise(threat=Linf(0.2), iterations=20)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(2)))
        >>> advance(attack, model, points, 0, 20)["broken"].tolist()
        [True, False]
    """

    name: ClassVar[str] = "noise"
    threat: Threat
    iterations: Count = 100
    draws: Count = one_draw()

    attempts = one_attempt
    start = stay

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Draw once more, and keep the draw where it breaks the image."""
        x = points["x"]
        x_t = self.threat.project(x + self.threat.noise_from(x, KeyedNumbers(rekey(points["key"], i + 1))), x)
        return query(model, points, x_t, draws=self.draws)
