"""LBGAT: the robust model's adversarial logits are pulled to those of a natural network that is trained with it."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import Amount, BelowOne, checked, checked_fields
from uiat.data import Batch
from uiat.errors import UserError
from uiat.models.misfit import explained
from uiat.models.outputs import logits_of
from uiat.objectives.base import Examples, adversarial_of, attack_threat, correct, kl_attack, stateless
from uiat.objectives.networks import copy_for_training, network_in


@checked_fields
@dataclass(frozen=True, kw_only=True)
class LBGAT:
    """CE(g(x), y) + mean_k (f_k(x_adv) - g_k(x))^2 + beta KL(p(x) || p(x_adv)) (Cui et al. 2021, LBGAT).

    "Learnable Boundary Guided Adversarial Training": g is a second network that sees natural images alone; it is
    trained jointly, and its gradient is that of all terms that it is in. Here g has the architecture of f and begins
    with the same weights; the authors' g is a smaller network of its own. The optimiser holds both, one after the
    other, and AWP moves f alone. f passes x too where beta is 0, for its BatchNorm statistics, as in their program.

    Args:
        attack: the inner maximisation, that of TRADES.
        weight: beta; the authors' 0 (LBGAT0, on CIFAR-10) or 6.
        label_smoothing: fraction of the label spread over all classes in the first term, in [0, 1).

    Example:
        >>> LBGAT().weight
        0.0
    """

    takes_soft_labels: ClassVar[bool] = True  # they enter by the cross entropy alone
    name: Literal["lbgat"] = "lbgat"
    attack: PGD = field(default_factory=kl_attack)
    weight: Amount = 0.0
    label_smoothing: BelowOne = 0.0

    threat = property(attack_threat)
    init = stateless

    def networks(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the natural network, to be kept in the state."""
        return {"natural": copy_for_training(model)}

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the batch with x_adv and the natural network."""
        x_adv = self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start, soft_labels=batch.soft_labels)
        return Examples(batch.x, batch.y, x_adv, network=network_in(state, "natural"), soft_labels=batch.soft_labels)

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"natural_ce": (B,), "squared": (B,)}, and {"kl": (B,)}, weighted, where it has a weight."""
        if examples.network is None:
            raise UserError("the examples have no network: perturb gives them the natural one")
        adv_logits = losses.full_precision(model(adversarial_of(examples)))
        natural = losses.full_precision(logits_of(examples.network(examples.x)))
        terms = {
            "natural_ce": losses.cross_entropy(natural, examples.labels, label_smoothing=self.label_smoothing),
            "squared": (adv_logits - natural).square().mean(dim=1),
            "correct": correct(adv_logits, examples.y),
        }
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.weight > 0):
            log_p = losses.log_probabilities(model(examples.x))
        if self.weight:
            terms["kl"] = self.weight * losses.kl(log_p, losses.log_probabilities(adv_logits))
        return terms
