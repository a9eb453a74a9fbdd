"""FAT: friendly adversarial training, on adversarial examples whose search stops soon after they are misclassified."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.attacks.gradient import Gradient, Watch
from uiat.checks import Amount, BelowOne, Whole, checked, checked_fields
from uiat.data import Batch
from uiat.errors import UserError
from uiat.models.misfit import explained
from uiat.objectives.base import Examples, adversarial_of, attack_threat, correct, stateless


def stop_early(y: Tensor, *, tau: int) -> Watch:
    """Return a watch of PGD that stops an image once it was misclassified in tau + 1 steps (PGD-K-tau, algorithm 1).

    An image counts at each step before it is made, whether or not it was misclassified in the step before.

    Args:
        y: labels (B,).
        tau: number of steps that a misclassified image still makes.

    Example:
        >>> watch = stop_early(torch.tensor([0, 0]), tau=0)
        >>> logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> watch(Gradient(torch.zeros(2, 1), torch.zeros(2), logits)).tolist()  # the second is misclassified
        [True, False]
    """
    left, moves = torch.full_like(y, tau), torch.ones_like(y, dtype=torch.bool)

    def watch(step: Gradient) -> Tensor:
        nonlocal left, moves
        wrong = step.logits.argmax(dim=1) != y
        moves = moves & ~(wrong & (left == 0))
        left = left - (wrong & moves).long()
        return moves

    return watch


@checked_fields
@dataclass(frozen=True, kw_only=True)
class FAT:
    """CE(f(x_adv), y), or TRADES' loss, on friendly x_adv: PGD-K-tau, stopped early (Zhang et al. 2020, FAT).

    "Attacks Which Do Not Kill Training Make Adversarial Learning Stronger", algorithms 1 and 2. tau grows during the
    run. Here images that have stopped are still passed through the model with the rest of their batch, since to leave
    them out would make the host wait: the cost is that of PGD-K, where the authors' falls. Left out, too, is the noise
    of 0.001 that their program adds to each step in the first form, which the algorithm does not have.

    Args:
        attack: the inner maximisation, with K steps; of loss "kl" for the form "trades".
        form: "at" for CE(f(x_adv), y), "trades" for CE(f(x), y) + beta KL(p(x) || p(x_adv)).
        weight: beta of the form "trades".
        tau: number of steps that a misclassified image still makes, at first.
        tau_epochs: epochs, counted from 0, from which on it is one more; the authors' 50 and 90 of 120 (30, 50 and 70
            of 85 for "trades").
        label_smoothing: fraction of the label spread over all classes, in [0, 1).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> [FAT().tau_at(epoch) for epoch in (0, 50, 100)]
        [0, 1, 2]
    """

    takes_replays: ClassVar[bool] = False  # its attack stops by the image
    name: Literal["fat"] = "fat"
    attack: PGD = field(default_factory=PGD)
    form: Literal["at", "trades"] = "at"
    weight: Amount = 6.0
    tau: Whole = 0
    tau_epochs: tuple[Whole, ...] = (50, 90)
    label_smoothing: BelowOne = 0.0

    def __post_init__(self) -> None:
        if (self.attack.loss == "kl") != (self.form == "trades"):
            raise UserError('the form "trades" needs an attack of loss "kl", and the form "at" one of another loss')
        if self.attack.restarts > 1:
            raise UserError("FAT stops an attack early, which a second restart would not know of: give it one restart")

    threat = property(attack_threat)
    init = stateless

    def tau_at(self, epoch: int) -> int:
        """Return tau in an epoch counted from 0."""
        return self.tau + sum(epoch >= first for first in self.tau_epochs)

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the batch with its friendly adversarial examples."""
        watch = stop_early(batch.y, tau=self.tau_at(epoch))
        return Examples(
            batch.x, batch.y, self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start, watch=watch)
        )

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"adv_ce": (B,)}, or {"ce": (B,), "kl": (B,)} of the form "trades"."""
        adv_logits = model(adversarial_of(examples))
        measured = {"correct": correct(adv_logits, examples.y)}
        if self.form == "at":
            ce = losses.cross_entropy(adv_logits, examples.y, label_smoothing=self.label_smoothing)
            return {"adv_ce": ce, **measured}
        logits = model(examples.x)
        ce = losses.cross_entropy(logits, examples.y, label_smoothing=self.label_smoothing)
        kl = losses.kl(losses.log_probabilities(logits), losses.log_probabilities(adv_logits))
        return {"ce": ce, "kl": self.weight * kl, **measured}
