"""The targeted Fast Adaptive Boundary attack (Croce & Hein 2020): the shortest way over the boundary to one class.

"Minimally distorted adversarial examples with a fast adaptive boundary attack", in its targeted version, FAB-T. It does
not raise a loss in a ball: it walks along the boundary towards the image, and records the distance of its examples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from uiat.attacks.apgd_loss import count_attempts
from uiat.attacks.boundary import forget_distance, nearest_boundary, record_distance, step_onto_hyperplane
from uiat.attacks.gradient import Gradient, InnerLoss, expected_gradient, expected_logits, one_draw
from uiat.attacks.random_numbers import normal, uniform
from uiat.attacks.search import Classifier, SearchState, per_image, target_class, where_image
from uiat.checks import AtMostOne, Between, Count, checked_fields
from uiat.shapes import Bool
from uiat.threat import Threat, to_range

SHORTEST = 1e-8  # a step of length zero counts as this long where two lengths are compared


@checked_fields
@dataclass(frozen=True, kw_only=True)
class FAB:
    """FAB-T (Croce & Hein 2020, algorithm 1 and section 3.4): towards one other class at a time; or FAB, towards any.

    Attempt j aims at the (j+2)-th most likely class of the image, or at the (j+1)-th of the classes other than y where
    the image is misclassified already. With K classes there are at most K - 1 targets, so K = 2 has one and K = 1
    none. Attempts beyond the first round of targets begin at random images. Where the logits do not depend on the
    image, it stays where it is.

    An image is broken once an adversarial example is found within epsilon; until then `distance` is the norm of the
    shortest adversarial perturbation so far (infinity if none), which may belong to any class other than y.

    An attempt of n iterations costs 2 n forward and n backward passes, in later rounds one more of each; for FAB every
    backward is K of them, one for each class.

    Args:
        threat: the ball; its norm is the one that is minimised.
        iterations: number of iterations of an attempt.
        targets: largest number of classes to aim at.
        restarts: number of rounds over the targets; the first begins at the image itself, others at random within
            epsilon / 2.
        alpha_max: largest weight of the step from the image itself, against the step from the last iterate.
        eta: length of a step, 1 being onto the linearised boundary.
        beta: fraction of the perturbation that an adversarial iterate keeps.
        targeted: aim at one class an attempt. Otherwise every step goes to the boundary that is nearest by its
            linearisation, whichever class is behind it.
        draws: number of passes over each iterate that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.tensor([0.6, 0.9]).view(2, 1, 1, 1).expand(2, 1, 2, 2), torch.tensor([0, 0])
        >>> attack = FAB(threat=Linf(0.2), iterations=10)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(2)))
        >>> points = advance(attack, model, points, 0, 10)
        >>> points["broken"].tolist(), [round(d, 1) for d in points["distance"].tolist()]
        ([True, False], [0.1, 0.4])
    """

    threat: Threat
    iterations: Count = 100
    targets: Count = 9
    restarts: Count = 1
    alpha_max: AtMostOne = 0.1
    eta: Annotated[float, Between(1, 1_000)] = 1.05  # from 1 on a step reaches the boundary
    beta: AtMostOne = 0.9
    targeted: bool = True
    draws: Count = one_draw()

    @property
    def name(self) -> str:
        """Name in results: "fab-t", or "fab" without targets."""
        return "fab-t" if self.targeted else "fab"

    def attempts(self, num_classes: int) -> int:
        """Return the number of restarts times targets, 0 if there is only one class to predict."""
        return self.restarts * self._attempts_per_round(num_classes)

    def _attempts_per_round(self, num_classes: int) -> int:
        return count_attempts("targeted-dlr", num_classes, restarts=1, targets=self.targets if self.targeted else 1)

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Start at the image itself in the first round, at a random point in later ones.

        Raises:
            UserError: the model has a single class, or its output no gradient.
        """
        x, y = points["x"], points["y"]

        def aim(logits: Tensor) -> Tensor:
            return target_class(logits, y, attempt, targets=self.targets)

        if self.targeted and self.draws > 1:  # one class for all passes: that of their mean
            with torch.no_grad():
                points = points | {"target": aim(expected_logits(model, x, draws=self.draws))}
            here = self._boundary(model, points, x, lambda _: points["target"])
        else:
            here = self._boundary(model, points, x, aim)
            points = points | ({"target": aim(here.logits)} if self.targeted else {})
        points = points | {"distance": torch.full_like(here.values, float("inf"), dtype=x.dtype)}
        points = _keep_linearisation(record_distance(self._move(points, x), here.logits, self.threat), here)
        if attempt < self._attempts_per_round(here.logits.shape[1]):
            return points
        return self._linearise(model, self._move(points, self._random_start(x, points["key"])))

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Make a step, record its verdict, go back from the far side, and linearise for the next step.

        The verdict and the gradient are of the same image only on the near side, where some eighth of the steps end,
        and which ones cannot be told beforehand. So they do not share a forward pass.
        """
        points = self._move(points, self._next_iterate(points))
        points = record_distance(points, expected_logits(model, points["x_t"], draws=self.draws), self.threat)
        return points if i + 1 >= self.iterations else self._linearise(model, self._retreat(points))

    def best(self, points: SearchState) -> Tensor:
        """Return the last iterate, projected onto the ball; of a broken image its example."""
        return where_image(points["broken"], points["x_adv"], self.threat.project(points["x_t"], points["x"]))

    def unbreak(self, points: SearchState, mask: Bool[Tensor, "b"]) -> SearchState:
        """Forget the distance of an example that proved to be none."""
        return forget_distance(points, mask)

    def _next_iterate(self, points: SearchState) -> Tensor:
        """Go eta of the way to the plane, from the iterate and from the image, with weight alpha on the second."""
        x, x_t, w, gap = points["x"], points["x_t"], points["gradient"], -points["difference"]
        from_x_t = step_onto_hyperplane(x_t, w, gap, norm=self.threat.norm)
        # The linearised function <w, .> lacks `gap` at x_t, and at x what it gains between the two on top.
        from_x = step_onto_hyperplane(x, w, gap + ((x_t - x) * w).flatten(1).sum(dim=1), norm=self.threat.norm)
        # The farther the iterate is from the plane, compared with the image, the more the image's own way counts. It
        # pulls the search back towards the image.
        near, far = (self.threat.length(d).clamp_min(SHORTEST) for d in (from_x_t, from_x))
        alpha = per_image(near / (near + far), x).clamp_max(self.alpha_max)
        return to_range((1 - alpha) * (x_t + self.eta * from_x_t) + alpha * (x + self.eta * from_x))

    def _random_start(self, x: Tensor, key: Tensor) -> Tensor:
        """Move x by epsilon / 2 in a random direction: uniform in the cube for Linf, normal for L2 and L1."""
        shape = x.shape[1:]
        v = 2 * uniform(key, shape) - 1 if self.threat.norm == "Linf" else normal(key, shape)
        length = self.threat.length(v).clamp_min(SHORTEST)
        return to_range(x + (v * per_image(float(self.threat.epsilon) / 2 / length, v)).to(x))

    def _move(self, points: SearchState, x_t: Tensor) -> SearchState:
        """Set x_t; within epsilon, its projection, so that the verdict is about an image that may be an example."""
        length = self.threat.length(x_t - points["x"])
        within = length <= float(self.threat.epsilon)
        return points | {"x_t": where_image(within, self.threat.project(x_t, points["x"]), x_t), "length": length}

    def _retreat(self, points: SearchState) -> SearchState:
        """Shorten the perturbation of misclassified iterates to the fraction beta."""
        x, x_t = points["x"], points["x_t"]
        return self._move(points, where_image(points["outside"], x + self.beta * (x_t - x), x_t))

    def _linearise(self, model: Classifier, points: SearchState) -> SearchState:
        """Record the verdict and the linearised boundary at x_t: one forward and one backward pass."""
        here = self._boundary(model, points, points["x_t"], lambda _: points["target"])
        return _keep_linearisation(record_distance(points, here.logits, self.threat), here)

    def _boundary(
        self, model: Classifier, points: SearchState, at: Tensor, aim: Callable[[Tensor], Tensor]
    ) -> Gradient:
        """Linearise the boundary to the class that `aim` picks from the logits, or the nearest boundary."""
        if self.targeted:
            return expected_gradient(_difference(model, points["y"], aim), at, draws=self.draws)
        mean = partial(expected_logits, model, draws=self.draws)
        return nearest_boundary(mean, at, points["y"], norm=self.threat.norm)


def _difference(model: Classifier, y: Tensor, aim: Callable[[Tensor], Tensor]) -> InnerLoss:
    """Return the function logit_target - logit_y, below zero on the near side of the boundary between the two."""

    def difference(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        target, own = (logits.gather(1, k[:, None]).squeeze(1) for k in (aim(logits.detach()), y))
        return target - own, logits

    return difference


def _keep_linearisation(points: SearchState, here: Gradient) -> SearchState:
    """Put the linearised boundary into the state; a value that is not finite leads nowhere, and counts as zero."""
    w, difference = (v.to(points["x"].dtype).nan_to_num(0, 0, 0) for v in (here.gradient, here.values))
    return points | {"gradient": w, "difference": difference}
