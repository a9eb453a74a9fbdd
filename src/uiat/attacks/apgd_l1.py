"""Auto-PGD for L1 (Croce & Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers").

Steepest ascent within the ball and [0, 1] at once changes few pixels, but more than one; how many is learnt from how
many the best perturbation so far has changed. An attempt may pass through three phases, in balls of three, two and one
times the radius.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uiat.attacks.apgd_loss import NAMES, LossName, count_attempts, evaluate_loss, is_targeted
from uiat.attacks.gradient import expected_logits
from uiat.attacks.random_numbers import normal
from uiat.attacks.search import Classifier, SearchState, target_class, where_image
from uiat.checks import Count, checked_fields
from uiat.errors import UserError
from uiat.shapes import Float
from uiat.threat import Threat

# Section 3 of the paper and the reference implementation of the ensemble.
FIRST_FRACTION = 0.2  # fraction of the pixels that the first steps from a random start change
THINNING = 1.5  # a step changes as many pixels as the best perturbation does, divided by this
SPARSER = 0.95  # with fewer than this fraction of the last checkpoint's pixels a perturbation has become sparser
SHORTENING = 1.5  # otherwise the step is divided by this,
SHORTEST = 0.1  # down to this fraction of the radius
BETWEEN_CHECKPOINTS = 0.04  # fraction of a phase's iterations from one checkpoint to the next
RADII = (3.0, 2.0, 1.0)  # radius of each phase in epsilon, for three, three and four tenths of the iterations
LARGEST_RADIUS = 999.0  # the largest that a threat model for L1 may have


@checked_fields
@dataclass(frozen=True, kw_only=True)
class SparseAPGD:
    """l1-APGD (Croce & Hein 2021, algorithm 1), with the larger balls of its section 3.3.

    An attempt of n iterations costs n forward and n - 1 backward passes, and one of each at its start; with
    `shrinking`, three of each at the starts of its three phases and n - 3 backward; with targets one forward more.

    Args:
        threat: the ball, `L1`.
        loss: loss that is raised: "ce", "dlr", "targeted-dlr" or "targeted-ce", as for `APGD`.
        iterations: number of gradient steps of an attempt.
        restarts: number of attempts from different starts; with targets, number of rounds over all targets.
        targets: number of classes to aim at with a targeted loss, at most all wrong ones.
        shrinking: begin in a ball of 3 epsilon, continue from its best iterate in one of 2 epsilon, and end in that of
            epsilon, the only one in which an image can break.
        draws: number of passes over each iterate that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range, or another norm.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> from uiat.threat import L1
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.full((2, 1, 2, 2), 0.6), torch.tensor([0, 0])
        >>> attack = SparseAPGD(threat=L1(0.5), loss="dlr", iterations=10)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(2)))
        >>> advance(attack, model, points, 0, 10)["broken"].tolist()
        [True, True]
    """

    threat: Threat
    loss: LossName = "ce"
    iterations: Count = 100
    restarts: Count = 1
    targets: Count = 9
    shrinking: bool = True
    draws: Count = 1

    def __post_init__(self) -> None:
        if self.threat.norm != "L1":
            raise UserError(f"SparseAPGD is for L1: for {self.threat.norm} use APGD")

    @property
    def name(self) -> str:
        """Name in results: "apgd-ce", "apgd-dlr", "apgd-t" or "apgd-t-ce"."""
        return NAMES[self.loss]

    def attempts(self, num_classes: int) -> int:
        """Return the number of restarts times targets, 0 if there is only one class to predict."""
        return count_attempts(self.loss, num_classes, restarts=self.restarts, targets=self.targets)

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Start from normal noise, projected onto the first ball, with the gradient there.

        Raises:
            UserError: the model's output has no gradient, or DLR has fewer than two classes to compare.
        """
        x = points["x"]
        x_t = x + normal(points["key"], x.shape[1:]).to(x)
        if is_targeted(self.loss):
            points = points | {
                "target": target_class(
                    expected_logits(model, x, draws=self.draws), points["y"], attempt, targets=self.targets
                )
            }
        points = self._enter_phase(model, points, x_t, phase=0)
        if self.shrinking:
            return points
        # A single phase, from a start that says nothing of how many pixels there should be.
        count = torch.full_like(points["pixels"], x[0].numel())
        return points | {"pixels": count, "share": torch.full_like(points["share"], FIRST_FRACTION)}

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Make a sparse step, evaluate the loss there, and at a checkpoint adapt the next steps."""
        phases = self._phases()
        phase = max(number for number, (first, _) in enumerate(phases) if first <= i)
        first = phases[phase][0]
        last = phases[phase + 1][0] if phase + 1 < len(phases) else self.iterations
        if i == first > 0:
            points = self._enter_phase(model, points, points["x_best"], phase=phase)
        x_t = self._threat(phase).project(points["x_t"] + self._step(points), points["x"])
        x_t = where_image(points["broken"], points["x_t"], x_t)
        points = self._evaluate(model, points | {"x_t": x_t}, phase=phase, last=i + 1 == last)
        better = points["loss"] > points["loss_best"]
        points |= {
            "x_best": where_image(better, points["x_t"], points["x_best"]),
            "gradient_best": where_image(better, points["gradient"], points["gradient_best"]),
            "loss_best": torch.where(better, points["loss"], points["loss_best"]),
        }
        every = max(int(BETWEEN_CHECKPOINTS * (last - first)), 1)
        return self._adapt_step(points, phase) if (i + 1 - first) % every == 0 else points

    def best(self, points: SearchState) -> Tensor:
        """Return the iterate of the last phase with the highest loss so far; of a broken image its example."""
        return where_image(points["broken"], points["x_adv"], points["x_best"])

    def _phases(self) -> list[tuple[int, float]]:
        """(first iteration, radius in epsilon) of each phase that has iterations."""
        length = min(math.ceil(0.3 * self.iterations), (self.iterations - 1) // 2) if self.shrinking else 0
        return list(zip((0, length, 2 * length), RADII, strict=True)) if length else [(0, 1.0)]

    def _threat(self, phase: int) -> Threat:
        epsilon = float(self.threat.epsilon)
        return replace(self.threat, epsilon=max(epsilon, min(self._phases()[phase][1] * epsilon, LARGEST_RADIUS)))

    def _enter_phase(self, model: Classifier, points: SearchState, x_t: Tensor, *, phase: int) -> SearchState:
        """Begin a phase at the projection of x_t onto its ball, with steps as long as its radius."""
        threat = self._threat(phase)
        x_t = where_image(points["broken"], points["x_adv"], threat.project(x_t, points["x"]))
        points = self._evaluate(model, points | {"x_t": x_t}, phase=phase)
        pixels = _count_changed(x_t, points["x"])
        return points | {
            "x_best": x_t,
            "gradient_best": points["gradient"],
            "loss_best": points["loss"],
            "pixels": pixels,
            "share": pixels / (THINNING * x_t[0].numel()),
            "step": torch.full_like(points["loss"], float(threat.epsilon)),
        }

    def _evaluate(self, model: Classifier, points: SearchState, *, phase: int, last: bool = False) -> SearchState:
        """Record loss and gradient at x_t, and in the last phase whether x_t breaks the image."""
        here = evaluate_loss(model, points, points["x_t"], loss=self.loss, draws=self.draws, last=last)
        breaks = here["broken"] & ~points["broken"] & (phase + 1 == len(self._phases()))
        broken = points["broken"] | breaks
        return points | here | {"broken": broken, "x_adv": where_image(breaks, points["x_t"], points["x_adv"])}

    def _step(self, points: SearchState) -> Tensor:
        """The signs of the gradient's largest entries (the fraction "share" of them, and ties), as long as the step."""
        rows = points["gradient"].flatten(1)
        # The smallest entry that takes part is found by its rank among the entries in ascending order.
        rank = ((1 - points["share"]) * rows.shape[1]).clamp(0, rows.shape[1] - 1).long()
        smallest = rows.abs().sort(dim=1).values.gather(1, rank[:, None])
        signs = rows.sign() * (rows.abs() >= smallest)
        step = signs * (points["step"][:, None] / signs.abs().sum(dim=1, keepdim=True).clamp_min(1))
        return step.to(points["x"].dtype).view_as(points["x"])

    def _adapt_step(self, points: SearchState, phase: int) -> SearchState:
        """Lengthen the step to the radius, from the best iterate, where that became sparser; shorten it elsewhere."""
        whole = float(self._threat(phase).epsilon)
        pixels = _count_changed(points["x_best"], points["x"])
        sparser = pixels < SPARSER * points["pixels"]
        shorter = (points["step"] / SHORTENING).clamp_min(SHORTEST * whole)
        back = sparser & ~points["broken"]
        return points | {
            "share": pixels / (THINNING * points["x"][0].numel()),
            "pixels": pixels,
            "step": torch.where(sparser, torch.full_like(shorter, whole), shorter),
            "x_t": where_image(back, points["x_best"], points["x_t"]),
            "gradient": where_image(back, points["gradient_best"], points["gradient"]),
        }


def _count_changed(x_adv: Tensor, x: Tensor) -> Float[Tensor, "b"]:
    """Count the pixel values that differ in each image."""
    return (x_adv != x).flatten(1).sum(dim=1).to(torch.float32)
