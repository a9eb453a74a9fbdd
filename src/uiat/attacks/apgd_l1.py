"""Auto-PGD for L1 (Croce & Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers").

Steepest ascent within the ball and [0, 1] at once changes few pixels, but more than one; how many is learnt from how
many the best perturbation so far has changed. Early iterations may search balls of three and two times the radius.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uiat.attacks.apgd_loss import NAMES, LossName, count_attempts, evaluate_loss
from uiat.attacks.random_numbers import normal, rekey
from uiat.attacks.search import Classifier, SearchState, target_class, where_image
from uiat.checks import check_choices, check_counts
from uiat.errors import UserError
from uiat.threat import Threat, require

# Section 3 of the paper and the reference implementation of the ensemble.
FIRST_SHARE = 0.2  # of the pixels, in the first steps from a random start
THINNING = 1.5  # a step changes the pixels that the best perturbation changes, divided by this
SPARSER = 0.95  # below this share of the pixels of the last checkpoint a perturbation has become sparser
SHORTENING = 1.5  # and otherwise the step is divided by this,
SHORTEST = 0.1  # down to this share of the radius
EVERY = 0.04  # of the iterations of a ball lie between checkpoints
BALLS = (3.0, 2.0, 1.0)  # in epsilon, for three, three and four tenths of the iterations
WIDEST = 999.0  # the largest ball that a threat model may have


@dataclass(frozen=True, kw_only=True)
class SparseAPGD:
    """l1-APGD (Croce & Hein 2021, algorithm 1), with the larger balls of its section 3.3.

    An attempt of n iterations costs n forward and n - 1 backward passes, and one of each at its start; with
    `shrinking`, three of each at the starts of its three balls and n - 3 backward; with targets one forward more.

    Args:
        threat: the ball, `L1`.
        loss: what is raised: "ce", "dlr" or "targeted-dlr", as for `APGD`.
        iterations: gradient steps of an attempt.
        restarts: attempts from other starts; with targets, this many rounds of all of them.
        targets: classes to aim at with "targeted-dlr", at most all wrong ones.
        shrinking: begin in a ball of 3 epsilon, go on from its best point in one of 2 epsilon, and end in that of
            epsilon, where alone a point can break.
        draws: passes over each place that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range, or another norm.

    Example:
        >>> from uiat.attacks.search import advance
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.threat import L1
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.full((2, 1, 2, 2), 0.6), torch.tensor([0, 0])
        >>> attack = SparseAPGD(threat=L1(0.5), loss="dlr", iterations=10)
        >>> points = attack.start(model, x, y, keys(0, torch.arange(2)), attempt=0)
        >>> advance(attack, model, points, 0, 10)["broken"].tolist()
        [True, True]
    """

    threat: Threat
    loss: LossName = "ce"
    iterations: int = 100
    restarts: int = 1
    targets: int = 9
    shrinking: bool = True
    draws: int = 1

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.threat)
        if self.threat.norm != "L1":
            raise UserError(f"SparseAPGD is for L1: for {self.threat.norm} use APGD")
        check_counts(self, "iterations", "restarts", "targets", "draws")

    @property
    def name(self) -> str:
        """As in records: "apgd-ce", "apgd-dlr" or "apgd-t"."""
        return NAMES[self.loss]

    def attempts(self, num_classes: int) -> int:
        """Restarts, each of them once for every target; none where there is only one class to predict."""
        return count_attempts(self.loss, num_classes, restarts=self.restarts, targets=self.targets)

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
        """Normal noise in the first ball, and the gradient there.

        Raises:
            UserError: the model's output has no gradient, or DLR has fewer than two classes to compare.
        """
        x = x.detach()
        x_t = x + normal(rekey(key, attempt), x.shape[1:]).to(x)
        points = {"x": x, "y": y, "key": key, "x_adv": x, "broken": torch.zeros_like(y, dtype=torch.bool)}
        if self.loss == "targeted-dlr":
            points["target"] = target_class(model(x), y, attempt, targets=self.targets)
        points = self._enter(model, points, x_t, ball=0)
        if self.shrinking:
            return points
        # One ball, and a start that says nothing of how many pixels there should be.
        count = torch.full_like(points["pixels"], x[0].numel())
        return points | {"pixels": count, "share": torch.full_like(points["share"], FIRST_SHARE)}

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """A sparse step, a look at where it led, and at a checkpoint the choice of the next steps."""
        edges = self._edges()
        ball = max(number for number, (first, _) in enumerate(edges) if first <= i)
        first = edges[ball][0]
        last = edges[ball + 1][0] if ball + 1 < len(edges) else self.iterations
        if i == first > 0:
            points = self._enter(model, points, points["x_best"], ball=ball)
        x_t = self._threat(ball).project(points["x_t"] + self._step(points), points["x"])
        x_t = where_image(points["broken"], points["x_t"], x_t)
        points = self._seen(model, points | {"x_t": x_t}, ball=ball, last=i + 1 == last)
        better = points["loss"] > points["loss_best"]
        points |= {
            "x_best": where_image(better, points["x_t"], points["x_best"]),
            "gradient_best": where_image(better, points["gradient"], points["gradient_best"]),
            "loss_best": torch.where(better, points["loss"], points["loss_best"]),
        }
        return self._checked(points, ball) if (i + 1 - first) % max(int(EVERY * (last - first)), 1) == 0 else points

    def _edges(self) -> list[tuple[int, float]]:
        """(first iteration, radius in epsilon) of each ball that has iterations."""
        part = min(math.ceil(0.3 * self.iterations), (self.iterations - 1) // 2) if self.shrinking else 0
        return list(zip((0, part, 2 * part), BALLS, strict=True)) if part else [(0, 1.0)]

    def _threat(self, ball: int) -> Threat:
        epsilon = float(self.threat.epsilon)
        return replace(self.threat, epsilon=max(epsilon, min(self._edges()[ball][1] * epsilon, WIDEST)))

    def _enter(self, model: Classifier, points: SearchState, x_t: Tensor, *, ball: int) -> SearchState:
        """Begin anew in a ball, from what it leaves of x_t, with whole steps."""
        threat = self._threat(ball)
        x_t = where_image(points["broken"], points["x_adv"], threat.project(x_t, points["x"]))
        points = self._seen(model, points | {"x_t": x_t}, ball=ball)
        pixels = _changed(x_t, points["x"])
        return points | {
            "x_best": x_t,
            "gradient_best": points["gradient"],
            "loss_best": points["loss"],
            "pixels": pixels,
            "share": pixels / (THINNING * x_t[0].numel()),
            "step": torch.full_like(points["loss"], float(threat.epsilon)),
        }

    def _seen(self, model: Classifier, points: SearchState, *, ball: int, last: bool = False) -> SearchState:
        """Loss and gradient at x_t, and in the last ball whether that breaks the point."""
        found = evaluate_loss(model, points, points["x_t"], loss=self.loss, draws=self.draws, last=last)
        breaks = found["broken"] & ~points["broken"] & (ball + 1 == len(self._edges()))
        broken = points["broken"] | breaks
        return points | found | {"broken": broken, "x_adv": where_image(breaks, points["x_t"], points["x_adv"])}

    def _step(self, points: SearchState) -> Tensor:
        """The signs of the largest entries of the gradient (the share of them, and ties), at the step's length."""
        rows = points["gradient"].flatten(1)
        rank = ((1 - points["share"]) * rows.shape[1]).clamp(0, rows.shape[1] - 1).long()
        smallest = rows.abs().sort(dim=1).values.gather(1, rank[:, None])
        signs = rows.sign() * (rows.abs() >= smallest)
        step = signs * (points["step"][:, None] / signs.abs().sum(dim=1, keepdim=True).clamp_min(1))
        return step.to(points["x"].dtype).view_as(points["x"])

    def _checked(self, points: SearchState, ball: int) -> SearchState:
        """Where the best perturbation has become sparser: a whole step again, from there; otherwise a shorter one."""
        whole = float(self._threat(ball).epsilon)
        pixels = _changed(points["x_best"], points["x"])
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


def _changed(x_adv: Tensor, x: Tensor) -> Float[Tensor, "b"]:
    """How many pixel values of each image differ."""
    return (x_adv != x).flatten(1).sum(dim=1).to(torch.float32)
