"""The Fast Minimum-Norm attack (Pintor et al. 2021): how far the nearest misclassified image is, in L2, Linf or L1.

The point walks up the margin within a ball that adapts: it shrinks while the point is misclassified, and grows while it
is not. What it learns is a distance, so one run tells the accuracy at every radius.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uiat import losses
from uiat.attacks.boundary import DUAL
from uiat.attacks.fab import FAB
from uiat.attacks.gradient import input_gradient
from uiat.attacks.random_numbers import KeyedNumbers, keys, rekey
from uiat.attacks.search import Classifier, Search, SearchState, per_image, where_image
from uiat.checks import check_batch, check_counts
from uiat.errors import UserError, nearest
from uiat.models.modes import frozen
from uiat.threat import NORMS, Threat, require, to_range

# Shares of their first values that the step and the change of the radius fall to, along a cosine.
LAST_STEP = 0.01
LAST_GAMMA = 0.02
UNIT = 0.5  # radius of the ball that others are multiples of
HAIR = 1e-9  # a radius within which nothing breaks that is not misclassified as it is


@dataclass(frozen=True, kw_only=True)
class FMN:
    """FMN (Pintor et al. 2021, algorithm 1), as a search: a point breaks once an adversarial example is within epsilon.

    Until then `distance` is the length of the shortest adversarial perturbation so far, infinity if none. An attempt
    costs a forward and a backward pass at its start and in each iteration but the last, which needs no gradient.

    Args:
        threat: the ball; its norm is what is kept small.
        iterations: steps of an attempt.
        restarts: attempts; the first begins at the image itself, others at random in the ball.
        step_size: length of the first step, in L2 whatever the norm; it falls to a hundredth along a cosine.
        gamma: by how much the radius changes at first; it falls likewise, to a fiftieth.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.search import advance
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.tensor([0.6, 0.9]).view(2, 1, 1, 1).expand(2, 1, 2, 2), torch.tensor([0, 0])
        >>> attack = FMN(threat=Linf(0.2), iterations=30)
        >>> points = attack.start(model, x, y, keys(0, torch.arange(2)), attempt=0)
        >>> points = advance(attack, model, points, 0, 30)
        >>> points["broken"].tolist(), [round(d, 1) for d in points["distance"].tolist()]
        ([True, False], [0.1, 0.4])
    """

    threat: Threat
    iterations: int = 100
    restarts: int = 1
    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        require(self.threat)
        check_counts(self, "iterations", "restarts")
        if not 0 < self.step_size < float("inf"):
            raise UserError(f"step_size must be a positive number, but is {self.step_size}")
        if not 0 < self.gamma < 1:
            raise UserError(f"gamma is a share of the radius, between 0 and 1, but is {self.gamma}")

    @property
    def name(self) -> str:
        """As in records."""
        return "fmn"

    def attempts(self, num_classes: int) -> int:
        """The restarts; none where there is nothing but y to predict."""
        return self.restarts if num_classes > 1 else 0

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
        """At the image itself, in later attempts at a random point of the ball; the margin and its gradient there.

        Raises:
            UserError: the model's output has no gradient.
        """
        x, key = x.detach(), rekey(key, attempt)
        x_t = x if attempt == 0 else x + self.threat.noise_from(x, KeyedNumbers(key))
        points = {"x": x, "y": y, "key": key, "x_adv": x, "broken": torch.zeros_like(y, dtype=torch.bool)}
        points["distance"] = torch.full(y.shape, float("inf"), dtype=x.dtype, device=x.device)
        points["radius"] = torch.full_like(points["distance"], float("inf"))
        return self._look(model, self._move(points, x_t))

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """The ball's new radius, a step up the margin, back into the ball, and a look at where that is."""
        falling = (1 + math.cos(math.pi * i / self.iterations)) / 2
        gamma = self.gamma * (LAST_GAMMA + (1 - LAST_GAMMA) * falling)
        radius = self._radius(points, gamma)
        step = self.step_size * (LAST_STEP + (1 - LAST_STEP) * falling)
        x, slope = points["x"], points["gradient"]
        delta = points["x_t"] + step * slope / per_image(_size(slope, 2.0), x) - x
        # Balls of one norm are multiples of each other, so the threat model's own will do for every radius.
        scale = per_image(radius / UNIT, x)
        delta = scale * replace(self.threat, epsilon=UNIT).ball(delta / scale)
        points = self._move(points | {"radius": radius}, to_range(x + delta))
        return self._look(model, points, last=i + 1 == self.iterations)

    def unbreak(self, points: SearchState, which: Bool[Tensor, "b"]) -> SearchState:
        """Forget how near the nearest example was, where it was none after all."""
        return points | {"distance": points["distance"].masked_fill(which, float("inf"))}

    def _radius(self, points: SearchState, gamma: float) -> Float[Tensor, "b"]:
        """Smaller where the point is misclassified, larger where it is not; at first as far as a linear model says."""
        known, distance, length = points["radius"], points["distance"], points["length"]
        guess = length + points["margin"].abs() / _size(points["gradient"], DUAL[self.threat.norm])
        # A point on the boundary itself is not misclassified, so the guess goes beyond it by gamma. It never falls, or
        # a point whose gradients promise too much would stay where it is.
        guess = torch.where(known.isfinite(), torch.maximum(guess, known), guess)
        grown = (1 + gamma) * torch.where(distance.isfinite(), known, guess)
        radius = torch.where(points["outside"], torch.minimum(known * (1 - gamma), distance), grown)
        x = points["x"]
        corner = self.threat.length(torch.maximum(x, 1 - x))  # nothing in [0, 1] is farther
        return torch.minimum(radius, corner).clamp_min(torch.finfo(x.dtype).eps)

    def _move(self, points: SearchState, x_t: Tensor) -> SearchState:
        """To x_t; within epsilon, to what the threat model makes of it, so that its verdict is that of an example."""
        x = points["x"]
        x_t = to_range(x_t)
        within = self.threat.length(x_t - x) <= float(self.threat.epsilon)
        x_t = where_image(within, self.threat.project(x_t, x), x_t)
        x_t = where_image(points["broken"], points["x_adv"], x_t)
        return points | {"x_t": x_t, "length": self.threat.length(x_t - x)}

    def _look(self, model: Classifier, points: SearchState, *, last: bool = False) -> SearchState:
        """Margin, its gradient, which points are on the far side, how near the image, and whether that breaks them."""

        def margin(at: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(at)
            return losses.margin(logits, points["y"]), logits

        if last:
            value, logits = margin(points["x_t"])
            slope = points["gradient"]
        else:
            slope, value, logits = input_gradient(margin, points["x_t"])
        outside = logits.argmax(dim=1) != points["y"]
        nearer = outside & ~points["broken"] & (points["length"] < points["distance"])
        breaks = nearer & self._within(points["length"])
        return points | {
            "gradient": slope.nan_to_num(0, 0, 0),
            "margin": value.to(points["distance"].dtype).nan_to_num(0, 0, 0),
            "outside": outside,
            "distance": torch.where(nearer, points["length"], points["distance"]),
            "x_adv": where_image(breaks, points["x_t"], points["x_adv"]),
            "broken": points["broken"] | breaks,
        }

    def _within(self, length: Float[Tensor, "b"]) -> Bool[Tensor, "b"]:
        return length <= float(self.threat.epsilon)


def _size(v: Tensor, order: float) -> Float[Tensor, "b"]:
    """Length of each gradient; never zero."""
    return torch.linalg.vector_norm(v.flatten(1), ord=order, dim=1).clamp_min(1e-12)


def minimum_norm(
    model: nn.Module,
    x: Float[Tensor, "b ..."],
    y: Int[Tensor, "b"],
    *,
    norm: Literal["Linf", "L2", "L1"] = "L2",
    method: Literal["fmn", "fab-t"] = "fmn",
    steps: int = 100,
) -> Float[Tensor, "b"]:
    """How long the shortest perturbation is, of those found, that has each image misclassified.

    An upper bound on the distance to the decision boundary: accuracy at any radius is at most the share of images
    beyond it.

    Args:
        model: maps images in [0, 1] to logits; as it was afterwards.
        x: images, floats in [0, 1], on the model's device; one batch.
        y: labels.
        norm: in which the length is measured.
        method: FMN (untargeted), or FAB-T towards up to nine classes.
        steps: of FMN, or of FAB-T towards each class.

    Returns:
        The distances: 0 where the image is misclassified as it is, infinity where nothing was found.

    Raises:
        UserError: an unknown norm or method, images or labels that do not fit.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> distance = minimum_norm(model, torch.tensor([[0.7, 0.3]]), torch.tensor([0]))
        >>> round(distance.item(), 2)  # 0.4 / 2^0.5
        0.28
    """
    if norm not in NORMS:
        raise nearest("norm", norm, NORMS)
    methods: dict[str, type[FMN] | type[FAB]] = {"fmn": FMN, "fab-t": FAB}
    if method not in methods:
        raise nearest("method", method, methods)
    check_batch(x, y)
    attack: Search = methods[method](threat=NORMS[norm](HAIR), iterations=steps)
    key = keys(0, torch.arange(len(x), device=x.device))  # begins at the images: nothing is drawn
    with frozen(model), torch.no_grad():
        logits = model(x)
        distance = torch.where(logits.argmax(dim=1) == y, float("inf"), 0.0).to(x.dtype)
        for attempt in range(attack.attempts(logits.shape[1])):
            points = attack.start(model, x, y, key, attempt=attempt)
            for i in range(attack.iterations):
                points = attack.iterate(model, points, i)
            distance = torch.minimum(distance, points["distance"])
    return distance
