"""HAT: a helper example outside the ball keeps the margin from growing more than robustness needs."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import Amount, BelowOne, checked, checked_fields
from uiat.data import Batch
from uiat.models.misfit import explained
from uiat.objectives.base import Examples, adversarial_of, attack_threat, correct, kl_attack, part_of, stateless
from uiat.objectives.networks import TeacherMethod, ask_teacher


@checked_fields
@dataclass(frozen=True, kw_only=True)
class HAT:
    """CE(f(x), y) + beta KL(p(x) || p(x_adv)) + gamma CE(f(x_help), y_help) (Rade & Moosavi-Dezfooli 2022, HAT).

    "Reducing Excessive Margin to Achieve a Better Accuracy vs. Robustness Trade-off", its training loss. The helper
    example lies beyond the adversarial one, x_help = x + h (x_adv - x), and its label is what a naturally trained
    network, the teacher, predicts for x_adv. x_help may leave [0, 1], as the authors have it.

    Args:
        attack: the inner maximisation, that of TRADES.
        weight: beta; the authors' 2.5 on CIFAR-10 (3.5 with extra data).
        helper_weight: gamma.
        reach: h, the length of the helper's perturbation in those of the adversarial one.
        label_smoothing: fraction of the label spread over all classes in the first term, in [0, 1).
        teacher: a run folder or a file of weights of a naturally trained network; by default one is trained first.

    Example:
        >>> HAT().reach
        2.0
    """

    teacher_method: ClassVar[TeacherMethod] = "standard"
    takes_replays: ClassVar[bool] = False  # its helper examples go on from the attack's
    name: Literal["hat"] = "hat"
    attack: PGD = field(default_factory=kl_attack)
    weight: Amount = 2.5
    helper_weight: Amount = 0.5
    reach: Amount = 2.0
    label_smoothing: BelowOne = 0.0
    teacher: str | None = None

    threat = property(attack_threat)
    init = stateless

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the batch with x_adv, and the teacher's label of x_adv as the target (one-hot)."""
        x_adv = self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start)
        logits = ask_teacher(state, x_adv)
        target = torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float()
        return Examples(batch.x, batch.y, x_adv, target=target)

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"ce": (B,), "kl": (B,), "helper_ce": (B,)}, each weighted."""
        x_adv = adversarial_of(examples)
        logits, adv_logits = model(examples.x), model(x_adv)
        help_logits = model(examples.x + self.reach * (x_adv - examples.x))
        return {
            "ce": losses.cross_entropy(logits, examples.y, label_smoothing=self.label_smoothing),
            "kl": self.weight * losses.kl(losses.log_probabilities(logits), losses.log_probabilities(adv_logits)),
            "helper_ce": self.helper_weight * losses.soft_cross_entropy(help_logits, part_of(examples, "target")),
            "correct": correct(adv_logits, examples.y),
        }
