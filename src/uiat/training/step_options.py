"""The options of a training step, once: their names, defaults and meaning, from a run or from keyword arguments."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, is_dataclass, replace
from typing import Literal, TypedDict

import torch

from uiat.checks import Amount, Count, Whole, checked_fields
from uiat.config.schema import Positive, Run
from uiat.errors import UserError
from uiat.objectives import Objective
from uiat.objectives.abilities import attack_of, crafts_in_eval_mode, with_radius, with_steps
from uiat.training.replays import check_replays

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


@checked_fields
@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a training step is computed, and what is added to it; `uiat.make_step` takes each as a keyword argument.

    Args:
        precision: "bf16" runs forward and backward passes under autocast; weights and optimiser stay as they are.
        clip_norm: largest gradient norm; none by default.
        radius_warmup_epochs: number of first epochs in which radius and step of the attack grow to their own.
        steps_warmup_epochs: number of first epochs in which the steps of the attack grow to their own number.
        awp: relative size gamma of the adversarial weight perturbation (Wu et al. 2020); 0 for none.
        awp_from_epoch: first epoch with the weight perturbation, counted from 0.
        fold: pass the inner problems through a copy of the network that each step prepares for them: BatchNorm folded
            into convolutions, weights cast once (`uiat.speed.inner_model`). For networks of known layers, the package's
            own methods and attacks in eval mode; others pass the model itself.
        compile: compile the model for the inner problems, and on a GPU for the training passes; needs a compiler
            and half a minute at the first step.
        accumulate: number of parts of a batch that are passed one after the other, for large models. Each part's inner
            problems are its own, and BatchNorm, the universal perturbations, a generator of inverse examples, weights
            with a mean of 1 over a batch (GAIRAT, self-adaptive training), the last term of DHAT and running averages
            (remembered predictions, ADR's network) see one part at a time: with k parts, gamma ** (1 / k)
            remembers as long as gamma did.
        replays: Free adversarial training (Shafahi et al. 2019): number of updates on each batch, whose images move a
            step of the attack by the gradient of the loss that each update takes anyway. The attack gives the start.
        recompute: keep the outputs of blocks alone, and compute what is inside them again for the backward pass.
        cuda_graphs: on a GPU, record the step once an epoch and replay it (`uiat.speed.cuda_graphs`). Not with
            recompute or replays, nor with several processes a step in which they exchange more than gradients, such as
            UIAT's while z is refined. Between two steps of an epoch leave alone which parameters are trained and which
            modules there are: a replay would not see it.
        try_kernels: on a GPU, let cuDNN try its kernels at each new shape and keep to the fastest (`uiat.speed.cudnn`).

    Example:
        >>> StepOptions(awp=0.005).awp_from_epoch
        0
    """

    precision: Precision = "fp32"
    clip_norm: Positive | None = None
    radius_warmup_epochs: Whole = 0
    steps_warmup_epochs: Whole = 0
    awp: Amount = 0.0
    awp_from_epoch: Whole = 0
    fold: bool = True
    compile: bool = False
    accumulate: Count = 1
    replays: Whole = 0
    recompute: bool = False
    cuda_graphs: bool = False
    try_kernels: bool = False

    @classmethod
    def from_run(cls, run: Run) -> "StepOptions":
        """Return the options of a run's steps.

        Example:
            >>> StepOptions.from_run(Run()).cuda_graphs
            True
        """
        optimisation, compute, resolved = run.optimisation, run.compute, run.compute.resolved
        return cls(
            precision=resolved.precision,
            clip_norm=optimisation.clip_norm,
            radius_warmup_epochs=optimisation.radius_warmup_epochs,
            steps_warmup_epochs=optimisation.steps_warmup_epochs,
            awp=optimisation.awp,
            awp_from_epoch=optimisation.awp_from_epoch,
            fold=resolved.fold,
            compile=resolved.compile,
            accumulate=optimisation.accumulate,
            replays=optimisation.replays,
            recompute=compute.recompute,
            cuda_graphs=resolved.cuda_graphs,
            try_kernels=not compute.plain,
        )

    def objective_at(self, objective: Objective, epoch: int) -> Objective:
        """Return the objective of an epoch, counted from 0: while its attack warms up, with a weaker one.

        Example:
            >>> from uiat import PGDAT
            >>> options = StepOptions(steps_warmup_epochs=4)
            >>> [options.objective_at(PGDAT(), epoch).attack.steps for epoch in range(6)]
            [2, 4, 6, 8, 10, 10]
        """
        if epoch < self.radius_warmup_epochs:
            objective = with_radius(objective, (epoch + 1) / (self.radius_warmup_epochs + 1))
        if epoch < self.steps_warmup_epochs:
            objective = with_steps(objective, (epoch + 1) / (self.steps_warmup_epochs + 1))
        return objective

    def adapt_to(self, objective: Objective, device: torch.device) -> "StepOptions":
        """Return what of these options the device and the objective allow.

        Raises:
            UserError: the objective cannot be trained with them.

        Example:
            >>> from uiat import PGDAT
            >>> StepOptions(cuda_graphs=True).adapt_to(PGDAT(), torch.device("cpu")).cuda_graphs
            False
        """
        check_replays(self.replays, objective)
        for what, epochs in (("radius", self.radius_warmup_epochs), ("steps", self.steps_warmup_epochs)):
            if epochs and (attack_of(objective) is None or not is_dataclass(objective)):
                raise UserError(f"a warm-up of the {what} needs a method with an attack, not {objective.name!r}")
        recordable = device.type == "cuda" and not (self.recompute or self.replays)
        foldable = not self.recompute and crafts_in_eval_mode(objective)
        return replace(self, cuda_graphs=self.cuda_graphs and recordable, fold=self.fold and foldable)


class StepKeywords(TypedDict, total=False):
    """The fields of `StepOptions` for type checkers, as keyword arguments; a test holds that the two agree."""

    precision: Precision
    clip_norm: Positive | None
    radius_warmup_epochs: Whole
    steps_warmup_epochs: Whole
    awp: Amount
    awp_from_epoch: Whole
    fold: bool
    compile: bool
    accumulate: Count
    replays: Whole
    recompute: bool
    cuda_graphs: bool
    try_kernels: bool


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Inside, passes are computed in bf16 or, with "fp32", as they are.

    Example:
        >>> from torch import nn
        >>> with autocast(torch.device("cpu"), "bf16"):
        ...     nn.Linear(2, 2)(torch.zeros(1, 2)).dtype
        torch.bfloat16
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
