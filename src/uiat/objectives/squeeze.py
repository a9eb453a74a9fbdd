"""Squeeze training: predictions on the adversarial and on the collaborative example of an image are drawn together."""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.attacks.gradient import require_gradient
from uiat.attacks.search import where_image
from uiat.checks import Amount, BelowOne, checked, checked_fields
from uiat.data import Batch
from uiat.errors import UserError
from uiat.models.misfit import explained
from uiat.models.modes import frozen, frozen_statistics
from uiat.objectives.base import Examples, adversarial_of, attack_threat, correct, kl_attack, part_of, stateless

Discrepancy = Literal["symmetric-kl", "squared", "js"]


class Pair(NamedTuple):
    """For each image a point of high loss and one of low loss, of the same shape."""

    high: Tensor
    low: Tensor


def discrepancy(high: Tensor, low: Tensor, *, kind: Discrepancy) -> Tensor:
    """Compute how far two predictions are apart, (B,), from logits (B, K).

    "symmetric-kl" is 1/2 KL(p_low || p_high) + 1/2 KL(p_high || p_low), the first argument of each detached, as in the
    authors' program; "squared" is ||p_high - p_low||^2; "js" the Jensen-Shannon divergence. The gradients of the last
    two flow into both.

    Example:
        >>> discrepancy(torch.zeros(1, 2), torch.zeros(1, 2), kind="js").tolist()
        [0.0]
    """
    log_p, log_q = losses.log_probabilities(high), losses.log_probabilities(low)
    if kind == "squared":
        return losses.squared_distance(log_p, log_q)
    if kind == "symmetric-kl":
        return (losses.kl(log_q.detach(), log_p) + losses.kl(log_p.detach(), log_q)) / 2
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    return (losses.kl(log_p, middle) + losses.kl(log_q, middle)) / 2


def order_by_loss(candidates: list[Tensor], logits: list[Tensor], y: Tensor) -> Pair:
    """Return for each image the candidate of the lowest and that of the highest probability of its class.

    Args:
        candidates: tensors (B, ...), such as images or logits, one a point.
        logits: logits (B, K) at each point.
        y: labels (B,).
    """
    with torch.no_grad():
        own = torch.stack([losses.log_probabilities(z).gather(1, y[:, None]).squeeze(1) for z in logits])
        lowest, highest = own.argmin(dim=0), own.argmax(dim=0)
    high = low = candidates[0]
    for i, candidate in enumerate(candidates[1:], start=1):
        high = where_image(lowest == i, candidate, high)
        low = where_image(highest == i, candidate, low)
    return Pair(high, low)


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Squeeze:
    """CE(f(x), y) + beta D(f(x_high), f(x_low)) (Li et al. 2023, squeeze training).

    "Squeeze Training for Adversarial Robustness": of the image, an adversarial example and a collaborative one (whose
    loss is lower than the image's), x_high is that of the largest loss and x_low that of the smallest. Both are
    searched for together: each step chooses high and low among the three and moves them apart by the gradient of D.
    A step of the search takes 6 F, three times that of PGD, and the loss three training passes. As in the authors'
    program the search passes in train mode without moving BatchNorm statistics, and x_low does not move them either.

    Args:
        attack: ball, step and number of steps of the search, from Gaussian noise; its `loss` is not used.
        weight: beta; 6 in the authors' command with extra data, the one that their instructions state.
        discrepancy: D: "symmetric-kl", "squared" or "js".
        label_smoothing: fraction of the label spread over all classes, in [0, 1).

    Raises:
        UserError: a field out of its range, or an attack with restarts or without a start.

    Example:
        >>> Squeeze().discrepancy
        'symmetric-kl'
    """

    takes_replays: ClassVar[bool] = False  # both of its examples are crafted together
    name: Literal["squeeze"] = "squeeze"
    attack: PGD = field(default_factory=lambda: replace(kl_attack(), batchnorm="train"))
    weight: Amount = 6.0
    discrepancy: Discrepancy = "symmetric-kl"
    label_smoothing: BelowOne = 0.0

    def __post_init__(self) -> None:
        if self.attack.restarts > 1 or self.attack.keep == "best" or self.attack.start in ("none", "memory"):
            raise UserError('squeeze training searches once, from a random start: set restarts=1, keep="last", a start')

    threat = property(attack_threat)
    init = stateless

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the batch with x_adv and, as x_inv, its collaborative examples."""
        x, y, attack = batch.x.detach(), batch.y, self.attack
        with frozen(model, batchnorm=attack.batchnorm):
            with torch.no_grad():
                natural = model(x)
            pair = Pair(attack.draw_start(x), attack.draw_start(x))
            for _ in range(attack.steps):
                with torch.no_grad():
                    logits = [natural, model(pair.high), model(pair.low)]
                pair = self._move(model, order_by_loss([x, *pair], logits, y), x)
        return Examples(x, y, pair.high, pair.low)

    def _move(self, model: nn.Module, pair: Pair, x: Tensor) -> Pair:
        """Move both points one step of the attack up the discrepancy of their predictions."""
        attack = self.attack
        with torch.enable_grad():
            points = [point.detach().requires_grad_() for point in pair]
            values = discrepancy(*(model(point) for point in points), kind=self.discrepancy)
            require_gradient(values)
            gradients = torch.autograd.grad(values.sum(), points)
        return Pair(*(attack.single_step(p.detach(), g, x) for p, g in zip(points, gradients, strict=True)))

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"ce": (B,), "discrepancy": (B,)}; the second is weighted."""
        with frozen_statistics(model):
            collaborative = model(part_of(examples, "x_inv"))
        logits = [model(examples.x), model(adversarial_of(examples)), collaborative]
        pair = order_by_loss(logits, logits, examples.y)
        return {
            "ce": losses.cross_entropy(logits[0], examples.y, label_smoothing=self.label_smoothing),
            "discrepancy": self.weight * discrepancy(*pair, kind=self.discrepancy),
            "correct": correct(logits[1], examples.y),
        }
