"""Auto-PGD (Croce & Hein 2020): projected gradient steps with momentum, of a length that adapts to the progress.

An iteration moves every image by its last gradient, then one forward and one input-only backward pass give the loss,
the prediction and the next gradient together. At a few checkpoints an image that makes no progress goes back to its
best iterate and halves its step.
"""

import itertools
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from uiat.attacks.apgd_loss import NAMES, LossName, count_attempts, evaluate_loss, is_targeted
from uiat.attacks.gradient import expected_logits
from uiat.attacks.random_numbers import normal, uniform
from uiat.attacks.search import Classifier, SearchState, per_image, target_class, where_image
from uiat.checks import Between, Count, checked_fields
from uiat.errors import UserError
from uiat.threat import Threat

# Section 3 of the paper: weight of the new step against the last movement; length of the first step, in epsilon.
MOMENTUM = 0.75
FIRST_STEP = 2.0


@checked_fields
@dataclass(frozen=True, kw_only=True)
class APGD:
    """Auto-PGD (Croce & Hein 2020, algorithm 1), for Linf and L2: PGD without a step size to choose.

    An attempt costs a forward and a backward pass at its start and in each iteration but the last, which needs no
    gradient after it; with targets one forward more, to rank the classes. With two classes both forms of DLR are the
    margin, with three the targeted one takes the second and third logits for its denominator (`uiat.losses`).

    Args:
        threat: the ball, `Linf` or `L2`.
        loss: loss that is raised: "ce" (cross entropy), "dlr" (difference of logits ratio), or "targeted-dlr" or
            "targeted-ce" (towards one class an attempt, the likeliest wrong one on the natural image first).
        iterations: number of gradient steps of an attempt.
        restarts: number of attempts from different starts; with targets, number of rounds over all targets.
        targets: number of classes to aim at with a targeted loss, at most all wrong ones.
        rho: fraction of the steps since the last checkpoint that must raise the loss, or else the step is halved.
        draws: number of passes over each iterate that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range, or a norm that the attack does not have.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.full((2, 1, 2, 2), 0.6), torch.tensor([0, 0])
        >>> attack = APGD(threat=Linf(0.2), loss="dlr", iterations=5)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(2)))
        >>> advance(attack, model, points, 0, 5)["broken"].tolist()
        [True, True]
    """

    threat: Threat
    loss: LossName = "ce"
    iterations: Count = 100
    restarts: Count = 1
    targets: Count = 9
    rho: Annotated[float, Between(0, 1, above=True)] = 0.75
    draws: Count = 1

    def __post_init__(self) -> None:
        if self.threat.norm not in ("Linf", "L2"):
            raise UserError(
                f"APGD has a version for Linf and one for L2, but none for {self.threat.norm}: see SparseAPGD"
            )

    @property
    def name(self) -> str:
        """Name in results: "apgd-ce", "apgd-dlr", "apgd-t" or "apgd-t-ce"."""
        return NAMES[self.loss]

    def attempts(self, num_classes: int) -> int:
        """Return the number of restarts times targets, 0 if there is only one class to predict."""
        return count_attempts(self.loss, num_classes, restarts=self.restarts, targets=self.targets)

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Start at a random point of the ball's surface, clipped to [0, 1], with the gradient there.

        Raises:
            UserError: the model's output has no gradient, or DLR has fewer than two classes to compare.
        """
        x, y = points["x"], points["y"]
        x_adv = _random_start(self.threat, x, points["key"])
        points = points | {"x_adv": x_adv, "x_old": x_adv}
        if is_targeted(self.loss):
            points["target"] = target_class(
                expected_logits(model, x, draws=self.draws), y, attempt, targets=self.targets
            )
        points |= self._evaluate(model, points)
        return points | {
            "x_best": x_adv,
            "gradient_best": points["gradient"],
            "loss_best": points["loss"],
            "loss_best_then": points["loss"],
            "rises": torch.zeros_like(y),
            "halved": torch.zeros_like(points["broken"]),
            "step": torch.full(y.shape, FIRST_STEP * float(self.threat.epsilon), dtype=x.dtype, device=x.device),
        }

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Make a step, evaluate the loss there, and at a checkpoint adapt the step's length."""
        broken, before = points["broken"], points["loss"]
        points = points | {"x_adv": self._take_step(points, momentum=i > 0), "x_old": points["x_adv"]}
        points |= self._evaluate(model, points, last=i == self.iterations - 1)
        points |= {"broken": broken | points["broken"], "rises": points["rises"] + (points["loss"] > before)}
        better = points["loss"] > points["loss_best"]
        points |= {
            "x_best": where_image(better, points["x_adv"], points["x_best"]),
            "gradient_best": where_image(better, points["gradient"], points["gradient_best"]),
            "loss_best": torch.where(better, points["loss"], points["loss_best"]),
        }
        for since, at in itertools.pairwise((0, *checkpoint_steps(self.iterations))):
            if at == i + 1:
                return self._adapt_step(points, steps=at - since)
        return points

    def best(self, points: SearchState) -> Tensor:
        """Return the iterate with the highest loss so far; of a broken image its example."""
        return where_image(points["broken"], points["x_adv"], points["x_best"])

    def _take_step(self, points: SearchState, *, momentum: bool) -> Tensor:
        """Return z = project(x_t + step * steepest); then project(x_t + 0.75 (z - x_t) + 0.25 (x_t - x_t-1))."""
        x, x_adv = points["x"], points["x_adv"]
        step = per_image(points["step"], x) * self.threat.steepest(points["gradient"])
        moved = self.threat.project(x_adv + step, x)
        if momentum:
            mixed = x_adv + MOMENTUM * (moved - x_adv) + (1 - MOMENTUM) * (x_adv - points["x_old"])
            moved = self.threat.project(mixed, x)
        return where_image(points["broken"], x_adv, moved)

    def _evaluate(self, model: Classifier, points: SearchState, *, last: bool = False) -> SearchState:
        return evaluate_loss(model, points, points["x_adv"], loss=self.loss, draws=self.draws, last=last)

    def _adapt_step(self, points: SearchState, *, steps: int) -> SearchState:
        """Halve the step and go back to the best iterate where the loss did not rise enough.

        Args:
            points: state after the last step before the checkpoint.
            steps: number of steps since the checkpoint before.
        """
        # The second condition of the paper: the best loss has not risen although the step was not halved last time.
        stuck = ~points["halved"] & (points["loss_best"] <= points["loss_best_then"])
        halved = (points["rises"] < self.rho * steps) | stuck
        back = halved & ~points["broken"]
        return points | {
            "x_adv": where_image(back, points["x_best"], points["x_adv"]),
            "gradient": where_image(back, points["gradient_best"], points["gradient"]),
            "loss": torch.where(back, points["loss_best"], points["loss"]),
            "step": torch.where(halved, points["step"] / 2, points["step"]),
            "halved": halved,
            "loss_best_then": points["loss_best"],
            "rises": torch.zeros_like(points["rises"]),
        }


def checkpoint_steps(iterations: int) -> tuple[int, ...]:
    """Return the steps after which the step size may be halved: the paper's fractions p_j of the budget, rounded up.

    p_0 = 0, p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06).

    Example:
        >>> checkpoint_steps(100)
        (22, 41, 57, 70, 80, 87, 93, 99)
        >>> checkpoint_steps(3)
        (1, 2)
    """
    at, gap = 22, 22  # in percent: whole numbers, so that rounding up is exact
    result: list[int] = []
    while (step := -(-at * iterations // 100)) < iterations:
        if step not in result:
            result.append(step)
        gap = max(gap - 3, 6)
        at += gap
    return tuple(result)


def _random_start(threat: Threat, x: Tensor, key: Tensor) -> Tensor:
    """Return x moved by epsilon in a random direction: uniform in the cube for Linf, normal for L2."""
    shape = x.shape[1:]
    draw = (2 * uniform(key, shape) - 1 if threat.norm == "Linf" else normal(key, shape)).to(x.dtype)
    length = threat.length(draw).clamp_min(torch.finfo(x.dtype).tiny)
    return threat.project(x + float(threat.epsilon) * draw / per_image(length, x), x)
