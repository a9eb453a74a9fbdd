"""ADR: labels are mixed with the predictions of the model's own running average, more and more and ever sharper."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import AtMostOne, BelowOne, Count, Positive, checked, checked_fields
from uiat.data import Batch
from uiat.errors import UserError
from uiat.models.misfit import explained
from uiat.objectives.base import Examples, adversarial_of, attack_threat, correct, part_of, stateless
from uiat.objectives.networks import AverageNetwork, network_in


def _soft_attack() -> PGD:
    return PGD(loss="kl")


@checked_fields
@dataclass(frozen=True, kw_only=True)
class ADR:
    """CE(t, f(x_adv)) with rectified labels t, in the attack too (Wu et al. 2024, ADR, algorithm 1).

    "Annealing Self-Distillation Rectification Improves Adversarial Training": q = softmax(f_average(x) / tau) is what a
    running average of the model's weights predicts, and t = l q + (1 - l) e_y with l = clip(lambda - (max_k q_k - q_y),
    0, 1), so that the label stays the likeliest class. tau falls and lambda grows along half a cosine: here from epoch
    to epoch, in the authors' program from step to step. Formulas and defaults are those of that program for CIFAR-10;
    for CIFAR-100 it has tau from 1.5 to 1, and with AWP tau from 2.5 to 1.5 and lambda to 0.85. It crafts in train
    mode, which moves the BatchNorm statistics; here `attack.batchnorm` says how, "eval" by default.

    Args:
        attack: the inner maximisation; its loss "kl" has the gradient of the cross entropy against t.
        decay: fraction of the average that is kept in a step; the authors' 0.995 remembers half of their epoch.
        temperatures: tau in the first and in the last epoch.
        interpolations: lambda in the first and in the last epoch, in [0, 1].
        epochs: number of epochs of the half cosine.

    Raises:
        UserError: a field out of its range, or an attack of another loss.

    Example:
        >>> [round(value, 3) for value in ADR(epochs=10).schedule(5)]
        [2.25, 0.825]
    """

    name: Literal["adr"] = "adr"
    attack: PGD = field(default_factory=_soft_attack)
    decay: BelowOne = 0.995
    temperatures: tuple[Positive, Positive] = (2.5, 2.0)
    interpolations: tuple[AtMostOne, AtMostOne] = (0.7, 0.95)
    epochs: Count = 200

    def __post_init__(self) -> None:
        if self.attack.loss != "kl":
            raise UserError('the labels of ADR are probabilities, in its attack too: give it the loss "kl"')

    threat = property(attack_threat)
    init = stateless

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the running average of the model, to be kept in the state."""
        return {"average": AverageNetwork(model)}

    def schedule(self, epoch: int) -> tuple[float, float]:
        """Return (tau, lambda) in an epoch counted from 0."""
        left = (1 + math.cos(math.pi * min(epoch / self.epochs, 1.0))) / 2
        (tau, last_tau), (mix, last_mix) = self.temperatures, self.interpolations
        return last_tau + left * (tau - last_tau), last_mix + left * (mix - last_mix)

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Update the average to the model's present weights; return the batch with x_adv and its rectified labels."""
        average = network_in(state, "average")
        assert isinstance(average, AverageNetwork)
        average.update(model, decay=self.decay)
        target = self.rectify(average(batch.x), batch.y, epoch=epoch)
        x_adv = self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start, reference=losses.log_of(target))
        return Examples(batch.x, batch.y, x_adv, target=target)

    def rectify(self, logits: Tensor, y: Tensor, *, epoch: int) -> Tensor:
        """Return the labels t (B, K) for the average's logits on the natural images."""
        tau, mix = self.schedule(epoch)
        q = torch.softmax(losses.full_precision(logits) / tau, dim=1)
        behind = q.amax(dim=1, keepdim=True) - q.gather(1, y[:, None])
        fraction = (mix - behind).clamp(0, 1)
        return fraction * q + (1 - fraction) * losses.smooth_labels(y, q.shape[1], label_smoothing=0.0)

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"adv_ce": (B,)}, against the rectified labels."""
        logits = model(adversarial_of(examples))
        return {
            "adv_ce": losses.soft_cross_entropy(logits, part_of(examples, "target")),
            "correct": correct(logits, examples.y),
        }
