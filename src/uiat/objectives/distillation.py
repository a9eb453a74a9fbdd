"""Robust distillation: the student learns a robust teacher's predictions (ARD, RSLAD)."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import Amount, AtMostOne, Positive, checked, checked_fields
from uiat.data import Batch
from uiat.models.misfit import explained
from uiat.objectives.base import Examples, adversarial_of, attack_threat, correct, kl_attack, part_of, stateless
from uiat.objectives.networks import TeacherMethod, ask_teacher


@checked_fields
@dataclass(frozen=True, kw_only=True)
class ARD:
    """w alpha t^2 KL(p_T(x; t) || p(x_adv; t)) + (1 - alpha) CE(f(x), y) (Goldblum et al. 2020, ARD, its objective).

    "Adversarially Robust Distillation": p(.; t) is softmax of the logits divided by t, T the teacher. x_adv is found by
    the student's cross entropy, in their program in train mode, here as `attack.batchnorm` says. w is 1 in the paper;
    the program averages over classes, w = 1/K, in runs of 200 epochs. In short ones that learns too little.

    Args:
        attack: the inner maximisation.
        alpha: fraction of the teacher's term, in [0, 1]; the authors' 1 needs no labels but for the attack.
        temperature: t.
        weight: w.
        teacher: a run folder or a file of weights of a robust network; by default one is trained by PGD-AT first.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> ARD().temperature
        30.0
    """

    teacher_method: ClassVar[TeacherMethod] = "pgd-at"
    name: Literal["ard"] = "ard"
    attack: PGD = field(default_factory=PGD)
    alpha: AtMostOne = 1.0
    temperature: Positive = 30.0
    weight: Amount = 1.0
    teacher: str | None = None

    threat = property(attack_threat)
    init = stateless

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the batch with x_adv and the teacher's prediction on x, at the temperature, as the target."""
        target = torch.softmax(losses.full_precision(ask_teacher(state, batch.x)) / self.temperature, dim=1)
        return Examples(
            batch.x, batch.y, self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start), target=target
        )

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"teacher_kl": (B,)} and, with alpha below 1, {"ce": (B,)}, each weighted."""
        adv_logits = losses.full_precision(model(adversarial_of(examples)))
        kl = losses.kl(
            losses.log_of(part_of(examples, "target")), losses.log_probabilities(adv_logits / self.temperature)
        )
        terms = {
            "teacher_kl": self.weight * self.alpha * self.temperature**2 * kl,
            "correct": correct(adv_logits, examples.y),
        }
        if self.alpha < 1:
            terms["ce"] = (1 - self.alpha) * losses.cross_entropy(model(examples.x), examples.y)
        return terms


@checked_fields
@dataclass(frozen=True, kw_only=True)
class RSLAD:
    """w (5/6 KL(p_T(x) || p(x_adv)) + 1/6 KL(p_T(x) || p(x))) (Zi et al. 2021, RSLAD, its objective).

    "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better": the teacher's soft labels
    take the place of the labels everywhere, in the attack too, which maximises KL(p_T(x) || p(x_adv)). w is 1 in
    the paper; the authors' programs average over classes, and multiply by 10 for CIFAR-100, so that w is 1/10 in both,
    in runs of 300 epochs. In short ones that learns too little.

    Args:
        attack: the inner maximisation, of loss "kl".
        adversarial: fraction of the adversarial term, in [0, 1].
        weight: w.
        teacher: a run folder or a file of weights of a robust network; by default one is trained by PGD-AT first.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> round(RSLAD().adversarial, 4)
        0.8333
    """

    teacher_method: ClassVar[TeacherMethod] = "pgd-at"
    name: Literal["rslad"] = "rslad"
    attack: PGD = field(default_factory=kl_attack)
    adversarial: AtMostOne = 5 / 6
    weight: Amount = 1.0
    teacher: str | None = None

    threat = property(attack_threat)
    init = stateless

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the batch with x_adv and the teacher's prediction on x as the target."""
        log_p = losses.log_probabilities(ask_teacher(state, batch.x))
        x_adv = self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start, reference=log_p)
        return Examples(batch.x, batch.y, x_adv, target=log_p.exp())

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"adv_teacher_kl": (B,), "teacher_kl": (B,)}, each weighted."""
        log_target, adv_logits = losses.log_of(part_of(examples, "target")), model(adversarial_of(examples))
        adversarial = losses.kl(log_target, losses.log_probabilities(adv_logits))
        natural = losses.kl(log_target, losses.log_probabilities(model(examples.x)))
        return {
            "adv_teacher_kl": self.weight * self.adversarial * adversarial,
            "teacher_kl": self.weight * (1 - self.adversarial) * natural,
            "correct": correct(adv_logits, examples.y),
        }
