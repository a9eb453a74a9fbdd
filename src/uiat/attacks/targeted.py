"""Targeted PGD: towards one wrong class after another, so that what blocks the way to one does not block the others."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uiat.attacks.apgd_loss import evaluate_loss
from uiat.attacks.gradient import expected_logits, one_draw, usual_step_size
from uiat.attacks.random_numbers import KeyedNumbers
from uiat.attacks.search import Classifier, SearchState, target_class, where_image
from uiat.checks import Count, Whole, checked_fields
from uiat.errors import UserError
from uiat.threat import Threat


@checked_fields
@dataclass(frozen=True, kw_only=True)
class TargetedPGD:
    """PGD that lowers the cross entropy of another class (Kurakin et al. 2017; Madry et al. 2018), a class an attempt.

    Each attempt starts uniformly in the ball and takes steps of 2.5 epsilon / iterations, at most epsilon. An image is
    broken by any wrong prediction at any iterate, also one of another class than the target. An attempt costs a
    forward and a backward pass at its start and in each iteration but the last, which needs no gradient after it, and
    one forward pass to rank the classes.

    Args:
        threat: the ball.
        iterations: number of gradient steps of an attempt.
        targets: number of classes to aim at, at most all wrong ones; the likeliest on the natural image first.
        target: one class to aim at on all images, in place of those; images of this class are left as they are.
        draws: number of passes over each iterate that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.full((2, 1, 2, 2), 0.6), torch.tensor([0, 0])
        >>> attack = TargetedPGD(threat=Linf(0.2), iterations=5)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(2)))
        >>> advance(attack, model, points, 0, 5)["broken"].tolist()
        [True, True]
    """

    name: ClassVar[str] = "pgd-targeted"
    threat: Threat
    iterations: Count = 20
    targets: Count = 9
    target: Whole | None = None
    draws: Count = one_draw()

    def check_fits(self, num_classes: int, image_shape: tuple[int, ...]) -> None:
        """Raise a UserError for a target that is none of the model's classes."""
        if self.target is not None and self.target >= num_classes:
            raise UserError(
                f"target {self.target} is out of range: the model tells {num_classes} classes apart, "
                f"numbered from 0 to {num_classes - 1}"
            )

    def attempts(self, num_classes: int) -> int:
        """Return the number of targets, 0 if there is only one class to predict.

        Raises:
            UserError: a target that is none of the model's classes.
        """
        self.check_fits(num_classes, ())
        return min(self.targets if self.target is None else 1, max(num_classes - 1, 0))

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Choose the class to aim at, and start at a random point of the ball, with the gradient there.

        Raises:
            UserError: the model's output has no gradient, or there is no class to aim at.
        """
        x, y = points["x"], points["y"]
        if self.target is None:
            target = target_class(expected_logits(model, x, draws=self.draws), y, attempt, targets=self.targets)
        else:
            target = torch.full_like(y, self.target)
        x_t = self.threat.project(x + self.threat.noise_from(x, KeyedNumbers(points["key"])), x)
        return self._evaluate(model, points | {"target": target, "x_t": where_image(target == y, x, x_t)})

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Make a step towards the target, and evaluate the prediction there."""
        x, x_t = points["x"], points["x_t"]
        step = usual_step_size(self.threat, self.iterations)
        moved = self.threat.project(x_t + step * self.threat.steepest(points["gradient"]), x)
        left = points["broken"] | (points["target"] == points["y"])
        return self._evaluate(model, points | {"x_t": where_image(left, x_t, moved)}, last=i + 1 == self.iterations)

    def best(self, points: SearchState) -> Tensor:
        """Return the last iterate; of a broken image its example."""
        return where_image(points["broken"], points["x_adv"], points["x_t"])

    def _evaluate(self, model: Classifier, points: SearchState, *, last: bool = False) -> SearchState:
        """Record whether x_t breaks the image, and the gradient there."""
        here = evaluate_loss(model, points, points["x_t"], loss="targeted-ce", draws=self.draws, last=last)
        breaks = here["broken"] & ~points["broken"] & (points["target"] != points["y"])
        broken = points["broken"] | breaks
        return points | here | {"broken": broken, "x_adv": where_image(breaks, points["x_t"], points["x_adv"])}
