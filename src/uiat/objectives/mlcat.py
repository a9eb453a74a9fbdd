"""MLCAT: adversarial training that does not fit examples of small loss any further."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import Amount, BelowOne, checked, checked_fields
from uiat.models.misfit import explained
from uiat.objectives.base import Examples, adversarial_of, attack_batch, attack_threat, correct, stateless


@checked_fields
@dataclass(frozen=True, kw_only=True)
class MLCAT:
    """max(CE(f(x_adv), y), l_min), by loss scaling (Yu et al. 2022, minimum loss constrained adversarial training).

    "Understanding Robust Overfitting of Adversarial Training and Beyond": an example whose loss l is below l_min has it
    multiplied by l_min / l. In the authors' program the factor is differentiated too, so that the product is constant
    and such an example gives no gradient, which is what their argument asks for (it is the fitting of small-loss
    examples that overfits); so it is here. The paper's other form raises the loss of these examples by perturbing the
    weights. Their program crafts in train mode, which moves the BatchNorm statistics; here `attack.batchnorm` says how.

    Args:
        attack: the inner maximisation.
        least_loss: l_min; the authors' 1.5 on CIFAR-10.
        label_smoothing: fraction of the label spread over all classes, in [0, 1).

    Example:
        >>> MLCAT().least_loss
        1.5
    """

    takes_soft_labels: ClassVar[bool] = True  # they enter by the cross entropy alone
    name: Literal["mlcat"] = "mlcat"
    attack: PGD = field(default_factory=PGD)
    least_loss: Amount = 1.5
    label_smoothing: BelowOne = 0.0

    threat = property(attack_threat)
    init = stateless
    perturb = attack_batch

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"adv_ce": (B,)}, not below `least_loss`."""
        logits = model(adversarial_of(examples))
        ce = losses.cross_entropy(logits, examples.labels, label_smoothing=self.label_smoothing)
        return {"adv_ce": ce.clamp_min(self.least_loss), "correct": correct(logits, examples.y)}
