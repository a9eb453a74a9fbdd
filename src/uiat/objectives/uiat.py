"""Inverse adversarial training: IAT, UIAT, one-off UIAT and their single-step forms are field values of one class."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import Amount, BelowOne, Classes, Count, Side, Whole, checked, checked_fields
from uiat.data import Batch
from uiat.errors import UserError
from uiat.inverse import GeneratorInverse, InverseAdversary, InverseState, Momentum, MomentumStart, UniversalInverse
from uiat.inverse.grid import image_shape
from uiat.models.misfit import explained
from uiat.models.modes import frozen, frozen_statistics
from uiat.objectives.base import Examples, adversarial_of, correct, positions_of
from uiat.objectives.grad_align import misalignment
from uiat.threat import Threat


@checked_fields
@dataclass(frozen=True, kw_only=True)
class UIAT:
    """CE(f(x_adv), y) + lambda KL(p(x_inv) || p(x_adv)) (UIAT, CVPR 2023).

    The prediction on the adversarial example is pulled to that on the inverse adversary, which sits in the
    high-likelihood region of its true class, in place of the natural image, whose prediction may be wrong.

    Args:
        attack: the inner maximisation. One step (FGSM, FGSM-RS) makes it single-step UIAT.
        inverse: `UniversalInverse()` (UIAT), `UniversalInverse(epoch=e0)` (one-off), `InstanceInverse()` (IAT), or
            `GeneratorInverse()`, a network that makes inverse examples.
        weight: lambda.
        ramp_epochs: lambda grows linearly from 0 over this many epochs; 0 for the full weight at once.
        kl: "inverse-adversarial" is KL(p(x_inv) || p(x_adv)), the inverse prediction being the target;
            "adversarial-inverse" is KL(p(x_adv) || p(x_inv)).
        inverse_gradient: train through p(x_inv) too, which costs a training pass (3 F). Off, the target is detached
            and comes from the universal update's own forward pass.
        momentum: p_bar <- gamma p_bar + (1 - gamma) p(x_inv) is the target (momentum of the predictions): a row an
            "example", a row a "class", or "none". With `inverse_gradient` the gradient flows through the (1 - gamma)
            part.
        momentum_start: "first-visit" lets the first prediction of a row set it; "uniform" starts rows at 1/K.
        gamma: fraction of p_bar that is remembered, in [0, 1).
        batchnorm: training passes that move the running statistics: "both", or the "adversarial" one alone.
        label_smoothing: fraction of the label spread over all classes, in [0, 1).
        alignment: weight of GradAlign's term, for single-step attacks; see `uiat.objectives.grad_align`.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> objective = UIAT(inverse=UniversalInverse(radius="4/255"), weight=2.0)
        >>> state = objective.init(num_classes=10, image_shape=(1, 8, 8))
        >>> state.z.shape
        torch.Size([10, 1, 8, 8])
    """

    name: Literal["uiat"] = "uiat"
    attack: PGD = field(default_factory=PGD)
    inverse: InverseAdversary = field(default_factory=UniversalInverse)
    weight: Amount = 3.5
    ramp_epochs: Whole = 0
    kl: Literal["inverse-adversarial", "adversarial-inverse"] = "inverse-adversarial"
    inverse_gradient: bool = True
    momentum: Momentum = "none"
    momentum_start: MomentumStart = "first-visit"
    gamma: BelowOne = 0.9
    batchnorm: Literal["both", "adversarial"] = "both"
    label_smoothing: BelowOne = 0.0
    alignment: Amount = 0.0

    def __post_init__(self) -> None:
        try:
            replace(self.attack.threat, epsilon=self.inverse.radius)
        except UserError as error:  # a radius in pixels, say
            raise UserError(str(error).replace("epsilon", "inverse.radius")) from None

    @property
    def threat(self) -> Threat | None:
        """The attack's threat model."""
        return self.attack.threat

    @property
    def takes_soft_labels(self) -> bool:
        """True without momentum: a remembered prediction is of one image or one class, and mixed images are of two.

        The inverse adversary of a mixed image is that of the class of its larger share, so that z of a class keeps
        what lowers the loss of that class; adversarial examples and the cross entropy take the probabilities.
        """
        return self.momentum == "none"

    @checked
    def init(
        self, *, num_classes: Classes, image_shape: tuple[Side, Side, Side], num_examples: Count | None = None
    ) -> InverseState:
        """Return the state: z (K, C, H, W) or a generator and, with momentum, p_bar (N, K) or (K, K).

        Raises:
            UserError: per-example momentum without `num_examples`.
        """
        if self.momentum == "example" and num_examples is None:
            raise UserError('momentum="example" keeps a row for each training image: give num_examples')
        rows = {"none": 0, "class": num_classes, "example": num_examples or 0}[self.momentum]
        inverse, threat = self.inverse, self.attack.threat
        return InverseState(
            inverse.initial(num_classes, image_shape, threat),
            gradient_momentum=isinstance(inverse, UniversalInverse) and inverse.gradient_momentum > 0,
            rows=rows,
            num_classes=num_classes,
            start=self.momentum_start,
            generator=(
                inverse.make_generator(num_classes, image_shape, threat)
                if isinstance(inverse, GeneratorInverse)
                else None
            ),
        )

    @checked
    def lambda_at(self, epoch: int) -> float:
        """Return lambda in an epoch counted from 0: ramped, and zero before a one-off's epoch."""
        if not self.inverse.active(epoch):
            return 0.0
        return self.weight * (min(1.0, epoch / self.ramp_epochs) if self.ramp_epochs else 1.0)

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Find x_adv and x_inv, and update z and p_bar.

        Returns:
            The batch with x_adv, x_inv, and the part of the target that no gradient flows through.
        """
        if not isinstance(state, InverseState):
            raise UserError(f"state must be what init returns, an InverseState, not a {type(state).__name__}")
        x, y = batch.x, batch.y
        if state.z is not None and isinstance(self.inverse, UniversalInverse):
            made, here = image_shape(state.z, self.inverse.cell), tuple(x.shape[1:])
            if made != here:
                raise UserError(f"the state was made for images of shape {made}, but those of the batch are {here}")
        soft = batch.soft_labels
        x_adv = self.attack.perturb(model, x, y, x_start=batch.x_start, soft_labels=soft)
        if not self.inverse.active(epoch):
            return Examples(x, y, x_adv, soft_labels=soft)
        with frozen(model, batchnorm=self.attack.batchnorm):
            threat = self.attack.threat
            # Universal inverse adversaries update z in here, by `steps` gradients (one-off: in their one epoch).
            x_inv, logits = self.inverse.find(model, x, x_adv, y, state=state, threat=threat, epoch=epoch)
            if logits is None and (not self.inverse_gradient or self.momentum != "none"):
                with torch.no_grad():
                    logits = model(x_inv)
        target, share = self._update_target(state, batch, logits)
        weight = self.lambda_at(epoch)
        kept = x_inv if self.inverse_gradient else None
        return Examples(x, y, x_adv, kept, target, share, weight, soft_labels=soft)

    def _update_target(
        self, state: InverseState, batch: Batch, logits: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Update p_bar; return the detached part of the target, and the fraction that this part is (None: all)."""
        if logits is None:
            return None, None
        p_inv = losses.log_probabilities(logits).exp()
        if self.momentum == "none":
            return p_inv, None
        by_class = self.momentum == "class"
        rows = batch.y if by_class else positions_of(batch)
        before, share = state.recall(rows, self.gamma)
        state.remember(rows, p_inv, self.gamma, by_class=by_class)
        if self.inverse_gradient:
            return before, share
        return state.p_bar[rows], None

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"adv_ce": (B,), "inverse_kl": (B,)}; "inverse_kl" is weighted, and left out before a one-off's epoch.

        With a weight `alignment`, also {"alignment": (B,)}.
        """
        logits = model(adversarial_of(examples))
        ce = losses.cross_entropy(logits, examples.labels, label_smoothing=self.label_smoothing)
        terms = {"adv_ce": ce, "correct": correct(logits, examples.y)}
        if examples.x_inv is not None or examples.target is not None:
            log_adv, log_inv = losses.log_probabilities(logits), self._log_target(model, examples)
            pair = (log_inv, log_adv) if self.kl == "inverse-adversarial" else (log_adv, log_inv)
            terms["inverse_kl"] = examples.weight * losses.kl(*pair)
        if self.alignment:
            terms["alignment"] = self.alignment * misalignment(model, examples.x, examples.labels, self.attack)
        return terms

    def _log_target(self, model: nn.Module, examples: Examples) -> Tensor:
        """Return log of share * remembered + (1 - share) * p(x_inv), with the gradient of the second summand."""
        if examples.x_inv is None:
            assert examples.target is not None
            return losses.log_of(examples.target)
        with nullcontext() if self.batchnorm == "both" else frozen_statistics(model):
            log_p = losses.log_probabilities(model(examples.x_inv))
        if examples.target is None or examples.share is None:
            return log_p
        return losses.log_of(examples.share * examples.target + (1 - examples.share) * log_p.exp())
