"""Random draws in the ball: what an attack has to beat, and what tells that gradients mislead."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uiat.attacks.random_numbers import KeyedNumbers, rekey
from uiat.attacks.search import Classifier, SearchState, where_image
from uiat.checks import check_counts
from uiat.threat import Threat, require


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Points drawn uniformly from the ball and taken into [0, 1], one query each; no gradient, nothing learnt.

    A model that noise breaks oftener than a gradient attack does hides its gradients (Carlini et al. 2019, section 5).

    Args:
        threat: the ball.
        iterations: draws.

    Raises:
        UserError: no draw.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.search import advance
        >>> from uiat.attacks.random_numbers import keys
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.tensor([0.51, 0.9]).view(2, 1, 1, 1).expand(2, 1, 2, 2), torch.tensor([0, 0])
        >>> attack = Noise(threat=Linf(0.2), iterations=20)
        >>> points = attack.start(model, x, y, keys(0, torch.arange(2)), attempt=0)
        >>> advance(attack, model, points, 0, 20)["broken"].tolist()
        [True, False]
    """

    threat: Threat
    iterations: int = 100

    def __post_init__(self) -> None:
        require(self.threat)
        check_counts(self, "iterations")

    @property
    def name(self) -> str:
        """As in records."""
        return "noise"

    def attempts(self, num_classes: int) -> int:
        """One; none where there is nothing but y to predict."""
        return int(num_classes > 1)

    @torch.no_grad()
    def start(
        self,
        model: Classifier,
        x: Float[Tensor, "b ..."],
        y: Int[Tensor, "b"],
        key: Int[Tensor, "b"],
        *,
        attempt: int,
    ) -> SearchState:
        """The images as they are, without a query."""
        x = x.detach()
        return {
            "x": x,
            "y": y,
            "key": rekey(key, attempt),
            "x_adv": x,
            "broken": torch.zeros_like(y, dtype=torch.bool),
        }

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Another draw, which is kept where it breaks the point."""
        x, broken = points["x"], points["broken"]
        x_t = self.threat.project(x + self.threat.noise_from(x, KeyedNumbers(rekey(points["key"], i + 1))), x)
        breaks = (model(x_t).argmax(dim=1) != points["y"]) & ~broken
        return points | {"x_adv": where_image(breaks, x_t, points["x_adv"]), "broken": broken | breaks}
