"""Methods that UIAT is compared with: standard training, PGD adversarial training, TRADES, MART."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import Amount, BelowOne, checked, checked_fields
from uiat.data import Batch
from uiat.models.misfit import explained
from uiat.objectives.base import (
    Examples,
    adversarial_of,
    attack_batch,
    attack_threat,
    correct,
    kl_attack,
    stateless,
)
from uiat.objectives.grad_align import misalignment
from uiat.threat import Threat


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Standard:
    """Ordinary training on natural images: CE(f(x), y).

    Args:
        label_smoothing: fraction of the label spread over all classes, in [0, 1).

    Example:
        >>> Standard().name
        'standard'
    """

    takes_soft_labels: ClassVar[bool] = True  # they enter by the cross entropy alone
    name: Literal["standard"] = "standard"
    label_smoothing: BelowOne = 0.0

    @property
    def threat(self) -> Threat | None:
        """None: no threat model."""
        return None

    init = stateless

    @checked
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the images as they are."""
        return Examples(batch.x, batch.y, soft_labels=batch.soft_labels)

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"ce": (B,)}."""
        logits = model(examples.x)
        ce = losses.cross_entropy(logits, examples.labels, label_smoothing=self.label_smoothing)
        return {"ce": ce, "correct": correct(logits, examples.y)}


@checked_fields
@dataclass(frozen=True, kw_only=True)
class PGDAT:
    """Adversarial training (Madry et al. 2018, eq. 2.1): CE(f(x_adv), y), with x_adv from `attack`.

    Args:
        attack: the inner maximisation.
        label_smoothing: fraction of the label spread over all classes, in [0, 1).
        alignment: weight of GradAlign's term, for single-step attacks; see `uiat.objectives.grad_align`.

    Example:
        >>> from uiat import Linf
        >>> PGDAT(attack=PGD(threat=Linf("4/255"), step_size="1/255", steps=5)).attack.steps
        5
    """

    takes_soft_labels: ClassVar[bool] = True  # they enter by the cross entropy alone
    name: Literal["pgd-at"] = "pgd-at"
    attack: PGD = field(default_factory=PGD)
    label_smoothing: BelowOne = 0.0
    alignment: Amount = 0.0

    threat = property(attack_threat)
    init = stateless
    perturb = attack_batch

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"adv_ce": (B,)}, and {"alignment": (B,)} where it has a weight."""
        logits = model(adversarial_of(examples))
        ce = losses.cross_entropy(logits, examples.labels, label_smoothing=self.label_smoothing)
        terms = {"adv_ce": ce, "correct": correct(logits, examples.y)}
        if self.alignment:
            terms["alignment"] = self.alignment * misalignment(model, examples.x, examples.labels, self.attack)
        return terms


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Trades:
    """TRADES (Zhang et al. 2019, eq. 5): CE(f(x), y) + beta KL(p(x) || p(x_adv)), x_adv maximising the KL.

    Both passes are in train mode and both move the BatchNorm statistics; in the authors' program x passes twice.

    Args:
        attack: the inner maximisation; its loss should be "kl".
        weight: beta = 1 / lambda of the paper.
        label_smoothing: fraction of the label spread over all classes, in [0, 1).

    Example:
        >>> Trades().attack.loss
        'kl'
    """

    takes_soft_labels: ClassVar[bool] = True  # they enter by the cross entropy alone
    name: Literal["trades"] = "trades"
    attack: PGD = field(default_factory=kl_attack)
    weight: Amount = 6.0
    label_smoothing: BelowOne = 0.0

    threat = property(attack_threat)
    init = stateless
    perturb = attack_batch

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"ce": (B,), "kl": (B,)}; "kl" is weighted."""
        logits, adv_logits = model(examples.x), model(adversarial_of(examples))
        ce = losses.cross_entropy(logits, examples.labels, label_smoothing=self.label_smoothing)
        kl = losses.kl(losses.log_probabilities(logits), losses.log_probabilities(adv_logits))
        return {"ce": ce, "kl": self.weight * kl, "correct": correct(adv_logits, examples.y)}


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Mart:
    """MART (Wang et al. 2020, eq. 11): BCE(f(x_adv), y) + lambda KL(p(x) || p(x_adv)) (1 - p_y(x)).

    Not as in the authors' program: its attack starts from Gaussian noise, here from a point of the ball; it bounds
    -log(1 - max_k p_k) of the BCE by 9.2; and it trains a ResNet-18 by a rate of 0.01 and a weight decay of 0.0035.

    Args:
        attack: the inner maximisation.
        weight: lambda; the authors' 5 for ResNet-18, 6 for Wide ResNets.

    Example:
        >>> Mart().weight
        5.0
    """

    name: Literal["mart"] = "mart"
    attack: PGD = field(default_factory=PGD)
    weight: Amount = 5.0

    threat = property(attack_threat)
    init = stateless
    perturb = attack_batch

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"adv_bce": (B,), "weighted_kl": (B,)}."""
        adv_logits = model(adversarial_of(examples))
        log_p = losses.log_probabilities(model(examples.x))
        p_wrong = 1 - log_p.gather(1, examples.y[:, None]).squeeze(1).exp()
        kl = losses.kl(log_p, losses.log_probabilities(adv_logits))
        bce = losses.boosted_cross_entropy(adv_logits, examples.y)
        return {"adv_bce": bce, "weighted_kl": self.weight * kl * p_wrong, "correct": correct(adv_logits, examples.y)}
