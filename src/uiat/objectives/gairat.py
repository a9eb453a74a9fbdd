"""GAIRAT: PGD-AT in which images near the decision boundary count for more."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.attacks.gradient import Gradient
from uiat.checks import BelowOne, Between, Whole, checked, checked_fields
from uiat.data import Batch
from uiat.errors import UserError
from uiat.models.misfit import explained
from uiat.objectives.base import Examples, adversarial_of, attack_threat, correct, importance, stateless


@checked_fields
@dataclass(frozen=True, kw_only=True)
class GAIRAT:
    """w CE(f(x_adv), y), w ~ (1 + tanh(lambda + 5 (1 - 2 kappa / K))) / 2 (Zhang et al. 2021, GAIRAT).

    "Geometry-aware Instance-reweighted Adversarial Training": kappa is the number of the attack's K steps before which
    the image was still classified correctly, an estimate of its distance to the boundary (the authors' program has half
    of K rounded down, which for odd K spreads the weights further). The weights have mean 1 over
    a batch; before `from_epoch` they are all 1.

    It is here as the method that falls: weights that hide the loss of most images look robust under PGD and are not
    under attacks on the margin of logits (CW, APGD-DLR, AutoAttack). Judge it by those alone.

    Args:
        attack: the inner maximisation.
        shift: lambda; lower ones spread the weights further apart.
        from_epoch: first epoch, counted from 0, with weights; the authors' 60 of 120.
        label_smoothing: fraction of the label spread over all classes, in [0, 1).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> [round(GAIRAT().weigh(torch.tensor(float(k))).item(), 3) for k in (0, 5, 10)]
        [1.0, 0.119, 0.0]
    """

    takes_replays: ClassVar[bool] = False  # its weights are of the attack's examples
    name: Literal["gairat"] = "gairat"
    attack: PGD = field(default_factory=PGD)
    shift: Annotated[float, Between(-100, 100)] = -1.0
    from_epoch: Whole = 60
    label_smoothing: BelowOne = 0.0

    def __post_init__(self) -> None:
        if self.attack.steps < 1 or self.attack.restarts > 1:
            raise UserError("GAIRAT counts the steps of one run of its attack: set steps to at least 1, restarts to 1")

    threat = property(attack_threat)
    init = stateless

    def weigh(self, kappa: Tensor) -> Tensor:
        """Return the weights before they are scaled, for the numbers of steps that images withstood."""
        return (1 + torch.tanh(self.shift + 5 * (1 - 2 * kappa / self.attack.steps))) / 2

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the batch with x_adv and, from `from_epoch` on, its weights."""
        kappa = torch.zeros(len(batch.y), device=batch.x.device)
        every = torch.ones_like(batch.y, dtype=torch.bool)

        def watch(step: Gradient) -> Tensor:
            kappa.add_((step.logits.argmax(dim=1) == batch.y).float())
            return every

        x_adv = self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start, watch=watch)
        weights = importance(self.weigh(kappa)) if epoch >= self.from_epoch else None
        return Examples(batch.x, batch.y, x_adv, importance=weights)

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"adv_ce": (B,)}, weighted."""
        logits = model(adversarial_of(examples))
        ce = losses.cross_entropy(logits, examples.y, label_smoothing=self.label_smoothing)
        weighted = ce if examples.importance is None else examples.importance * ce
        return {"adv_ce": weighted, "correct": correct(logits, examples.y)}
