"""The Fast Minimum-Norm attack (Pintor et al. 2021): distance of the nearest misclassified image, in L2, Linf or L1.

The iterate walks up the margin within a ball that adapts: it shrinks while the iterate is misclassified, and grows
while it is not. The result is a distance, so that one run gives the accuracy at every radius.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks.boundary import DUAL_ORDER, forget_distance, record_distance
from uiat.attacks.fab import FAB
from uiat.attacks.gradient import expected_gradient, one_draw
from uiat.attacks.random_numbers import KeyedNumbers, keys
from uiat.attacks.search import Classifier, Search, SearchState, begin, per_image, where_image
from uiat.checks import Between, Count, check_batch, checked, checked_fields
from uiat.models.inspect import classes_of
from uiat.models.modes import frozen
from uiat.shapes import Bool, Float, Int
from uiat.system.surroundings import check_ordinary, neutral_surroundings, ordinary
from uiat.threat import NORMS, Threat, to_range

# Fractions of their first values that the step and the change of the radius fall to, along a cosine.
LAST_STEP = 0.01
LAST_GAMMA = 0.02
UNIT_RADIUS = 0.5  # radius of the ball that others are multiples of
TINY_RADIUS = 1e-9  # a radius within which no image breaks that is not misclassified as it is


@checked_fields
@dataclass(frozen=True, kw_only=True)
class FMN:
    """FMN (Pintor et al. 2021, algorithm 1) as a search: an image breaks once an adversarial example is within epsilon.

    Until then `distance` is the length of the shortest adversarial perturbation so far, infinity if none. An attempt
    costs a forward and a backward pass at its start and in each iteration but the last, which needs no gradient.

    Args:
        threat: the ball; its norm is the one that is minimised.
        iterations: number of steps of an attempt.
        restarts: number of attempts; the first begins at the image itself, others at random in the ball.
        step_size: length of the first step, in L2 whatever the norm; it falls to a hundredth along a cosine.
        gamma: fraction by which the radius changes at first; it falls to a fiftieth along a cosine.
        draws: number of passes over each iterate that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.tensor([0.6, 0.9]).view(2, 1, 1, 1).expand(2, 1, 2, 2), torch.tensor([0, 0])
        >>> attack = FMN(threat=Linf(0.2), iterations=30)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(2)))
        >>> points = advance(attack, model, points, 0, 30)
        >>> points["broken"].tolist(), [round(d, 1) for d in points["distance"].tolist()]
        ([True, False], [0.1, 0.4])
    """

    name: ClassVar[str] = "fmn"
    threat: Threat
    iterations: Count = 100
    restarts: Count = 1
    step_size: Annotated[float, Between(0, 1_000, above=True)] = 1.0
    gamma: Annotated[float, Between(0, 1, above=True, below=True)] = 0.05
    draws: Count = one_draw()

    def attempts(self, num_classes: int) -> int:
        """Return the number of restarts, 0 if there is only one class to predict."""
        return self.restarts if num_classes > 1 else 0

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Start at the image itself, in later attempts at a random point of the ball, with the margin's gradient there.

        Raises:
            UserError: the model's output has no gradient.
        """
        x = points["x"]
        x_t = x if attempt == 0 else x + self.threat.noise_from(x, KeyedNumbers(points["key"]))
        unknown = torch.full(points["y"].shape, float("inf"), dtype=x.dtype, device=x.device)
        points = points | {"distance": unknown, "radius": unknown}
        return self._evaluate(model, self._move(points, x_t))

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Adapt the radius, make a step up the margin, project it onto the ball, and evaluate the model there."""
        falling = (1 + math.cos(math.pi * i / self.iterations)) / 2
        gamma = self.gamma * (LAST_GAMMA + (1 - LAST_GAMMA) * falling)
        radius = self._adapt_radius(points, gamma)
        step = self.step_size * (LAST_STEP + (1 - LAST_STEP) * falling)
        x, slope = points["x"], points["gradient"]
        delta = points["x_t"] + step * slope / per_image(_gradient_length(slope, 2.0), x) - x
        # Balls of one norm are multiples of each other, so the threat model's own will do for every radius.
        scale = per_image(radius / UNIT_RADIUS, x)
        delta = scale * replace(self.threat, epsilon=UNIT_RADIUS).ball(delta / scale)
        points = self._move(points | {"radius": radius}, to_range(x + delta))
        return self._evaluate(model, points, last=i + 1 == self.iterations)

    def best(self, points: SearchState) -> Tensor:
        """Return the last iterate, projected onto the ball; of a broken image its example."""
        return where_image(points["broken"], points["x_adv"], self.threat.project(points["x_t"], points["x"]))

    def unbreak(self, points: SearchState, mask: Bool[Tensor, "b"]) -> SearchState:
        """Forget the distance of an example that proved to be none."""
        return forget_distance(points, mask)

    def _adapt_radius(self, points: SearchState, gamma: float) -> Float[Tensor, "b"]:
        """Shrink the radius where the iterate is misclassified, and grow it elsewhere, at first to a linear guess."""
        old, distance, length = points["radius"], points["distance"], points["length"]
        guess = length + points["margin"].abs() / _gradient_length(points["gradient"], DUAL_ORDER[self.threat.norm])
        # An image on the boundary itself is not misclassified, so the guess goes beyond it by gamma. It never falls, or
        # an image whose gradients promise too much would stay where it is.
        guess = torch.where(old.isfinite(), torch.maximum(guess, old), guess)
        grown = (1 + gamma) * torch.where(distance.isfinite(), old, guess)
        radius = torch.where(points["outside"], torch.minimum(old * (1 - gamma), distance), grown)
        x = points["x"]
        corner = self.threat.length(torch.maximum(x, 1 - x))  # nothing in [0, 1] is farther
        return torch.minimum(radius, corner).clamp_min(torch.finfo(x.dtype).eps)

    def _move(self, points: SearchState, x_t: Tensor) -> SearchState:
        """Set x_t; within epsilon, its projection, so that the verdict is about an image that may be an example."""
        x = points["x"]
        x_t = to_range(x_t)
        within = self.threat.length(x_t - x) <= float(self.threat.epsilon)
        x_t = where_image(within, self.threat.project(x_t, x), x_t)
        x_t = where_image(points["broken"], points["x_adv"], x_t)
        return points | {"x_t": x_t, "length": self.threat.length(x_t - x)}

    def _evaluate(self, model: Classifier, points: SearchState, *, last: bool = False) -> SearchState:
        """Record the margin at x_t, its gradient, and the verdict."""

        def margin(at: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(at)
            return losses.margin(logits, points["y"]), logits

        if last and self.draws == 1:
            value, logits = margin(points["x_t"])
            slope = points["gradient"]
        else:
            slope, value, logits = expected_gradient(margin, points["x_t"], draws=self.draws)
        points = record_distance(points, logits, self.threat)
        value = value.to(points["distance"].dtype).nan_to_num(0, 0, 0)
        return points | {"gradient": slope.nan_to_num(0, 0, 0), "margin": value}


def _gradient_length(gradient: Tensor, order: float) -> Float[Tensor, "b"]:
    """Length of each gradient; never zero."""
    return torch.linalg.vector_norm(gradient.flatten(1), ord=order, dim=1).clamp_min(1e-12)


@checked
@neutral_surroundings()
def minimum_norm(
    model: nn.Module,
    x: Float[Tensor, "b ..."],
    y: Int[Tensor, "b"],
    *,
    norm: Literal["Linf", "L2", "L1"] = "L2",
    method: Literal["fmn", "fab-t"] = "fmn",
    steps: Count = 100,
) -> Float[Tensor, "b"]:
    """Find, for each image, the length of the shortest perturbation that has it misclassified.

    It is an upper bound on the distance to the decision boundary: accuracy at any radius is at most the fraction of
    images whose distance is larger.

    Args:
        model: maps images in [0, 1] to logits; as it was afterwards.
        x: images, floats in [0, 1], on the model's device; one batch.
        y: labels.
        norm: norm in which the length is measured.
        method: FMN (untargeted), or FAB-T towards up to nine classes.
        steps: number of steps of FMN, or of FAB-T towards each class.

    Returns:
        The distances (b,), in units of [0, 1]: 0 where the image is misclassified as it is, infinity where no
        adversarial example was found.

    Raises:
        UserError: an unknown norm or method, images or labels that do not fit.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> distance = minimum_norm(model, torch.tensor([[0.7, 0.3]]), torch.tensor([0]))
        >>> round(distance.item(), 2)  # 0.4 / 2^0.5
        0.28
    """
    check_ordinary(model)
    x = ordinary(x)
    check_batch(x, y, num_classes=classes_of(model, x))
    attack: Search = (FMN if method == "fmn" else FAB)(threat=NORMS[norm](TINY_RADIUS), iterations=steps)
    key = keys(0, torch.arange(len(x), device=x.device))  # the search begins at the images: nothing is drawn
    with frozen(model), torch.no_grad():
        logits = model(x)
        distance = torch.where(logits.argmax(dim=1) == y, float("inf"), 0.0).to(x.dtype)
        for attempt in range(attack.attempts(logits.shape[1])):
            points = begin(attack, model, x, y, key, attempt=attempt)
            for i in range(attack.iterations):
                points = attack.iterate(model, points, i)
            distance = torch.minimum(distance, points["distance"])
    return distance
