"""One training step: inner problems, loss, backward pass, optimiser. The trainer runs this very object."""

import itertools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import Optimizer

from uiat.attacks import PGD
from uiat.checks import check_shapes, check_values
from uiat.data import Batch
from uiat.errors import UserError, nearest
from uiat.objectives import Examples, Objective, total
from uiat.speed.activation_checkpointing import checkpointed_blocks, find_blocks
from uiat.speed.compile import compile_model
from uiat.speed.cuda_graphs import GraphedSteps
from uiat.speed.cudnn import cudnn_benchmark
from uiat.speed.malloc import keep_memory
from uiat.system.distributed import current_rank
from uiat.training.averaging import average_statistics
from uiat.training.awp import adversarial_weights

PRECISIONS = ("fp32", "bf16")


class Step:
    """`step(batch, epoch=)` trains on one batch and returns the means of the loss terms, as tensors on the device.

    Made by `make_step`. `state` is the objective's state (perturbations, remembered predictions), a module of buffers.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        *,
        state: nn.Module,
        num_classes: int,
        autocast: Callable[[], AbstractContextManager[object]],
        clip_norm: float | None,
        awp: float,
        awp_from_epoch: int,
        compile: bool,
        accumulate: int,
        replays: int,
        recompute: bool,
        cuda_graphs: bool,
        try_kernels: bool,
    ) -> None:
        # Inner problems run the same parameters through one fixed graph many times a step; training passes do not,
        # and repay compilation on a GPU alone.
        self.crafted = compile_model(model) if compile else model
        self.trained = compile_model(model) if compile and _fits(model, objective) else _parallel(model)
        self.model, self.objective, self.optimizer, self.state = model, objective, optimizer, state
        self.num_classes, self.autocast = num_classes, autocast
        self.clip_norm, self.awp, self.awp_from_epoch = clip_norm, awp, awp_from_epoch
        self.accumulate, self.replays = accumulate, replays
        self.recomputing = partial(checkpointed_blocks, find_blocks(model)) if recompute else nullcontext
        self.graphed = GraphedSteps(self._means, tuple(model.parameters())) if cuda_graphs else None
        self.try_kernels, self._checked = try_kernels, False

    def __call__(self, batch: Batch, *, epoch: int = 0) -> dict[str, Tensor]:
        """Train on one batch; no host synchronisation after the first call, which checks the values.

        Args:
            batch: images in [0, 1], labels and, for per-example momentum, positions in the training set.
            epoch: counted from 0; decides ramps and one-off epochs.

        Returns:
            Means over the batch of each loss term, and of "correct": scalars on the device.

        Raises:
            UserError: images or labels that cannot be what was meant.
        """
        check_shapes(batch.x, batch.y)
        if not self._checked:
            check_values(batch.x, batch.y, num_classes=self.num_classes)
            self._checked = True
        self.model.train()
        with cudnn_benchmark(self.try_kernels):
            terms, moved = self._update(batch, epoch, None)
            for _ in range(self.replays - 1):
                terms, moved = self._update(batch, epoch, moved)
        return terms

    def rest(self) -> None:
        """Give back what a step leaves behind for the next one: gradients and, on a GPU, a recording's memory."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.graphed is not None:
            self.graphed.forget()

    def _update(self, batch: Batch, epoch: int, moved: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """One update of the weights; with replays, also where the images of the next one are."""
        if self.graphed is None:
            means, images = self._gradients(batch, epoch, moved)
        else:
            means, images = self.graphed(batch, epoch), []
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        average_statistics(self.model)
        return means, torch.cat(images) if images else None

    def _means(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        return self._gradients(batch, epoch, None)[0]

    def _gradients(self, batch: Batch, epoch: int, moved: Tensor | None) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Leaves the gradients of a batch in the parameters; with replays, also gives the moved images."""
        self.optimizer.zero_grad(set_to_none=True)
        whole, means, images = len(batch.y), dict[str, Tensor](), list[Tensor]()
        for part in _parts(whole, self.accumulate):
            examples = self._examples(batch[part], epoch)
            if self.replays:
                at = examples.x_adv if moved is None else moved[part]
                assert at is not None
                examples = replace(examples, x_adv=at.detach().requires_grad_())
            for name, value in self._backward(examples, epoch, len(examples.y) / whole).items():
                means[name] = means[name] + value if name in means else value
            if self.replays:
                images.append(self._moved(examples))
        return means, images

    def _examples(self, batch: Batch, epoch: int) -> Examples:
        with self.autocast(), self.recomputing():
            return self.objective.perturb(self.crafted, batch, self.state, epoch=epoch)

    def _backward(self, examples: Examples, epoch: int, weight: float) -> dict[str, Tensor]:
        """Adds the gradients of a part of the batch; returns its share of the means of the terms."""
        with self.recomputing(), self._weights(examples, epoch):
            terms = self._terms(self.trained, examples)
            loss = total(terms).mean()
            (loss if weight == 1 else weight * loss).backward()
        return {name: weight * value.detach().float().mean() for name, value in terms.items()}

    def _moved(self, examples: Examples) -> Tensor:
        """The images a step of the attack further, by the gradient that the weights' backward pass has left there."""
        assert examples.x_adv is not None
        if (gradient := examples.x_adv.grad) is None:
            raise UserError(f"replays need a loss of adversarial examples, which {self.objective.name!r} has not")
        attack: PGD = self.objective.attack  # type: ignore[attr-defined]
        return attack.single_step(examples.x_adv.detach(), gradient, examples.x)

    def _terms(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        with self.autocast():
            terms = self.objective.loss(model, examples)
        for name, value in terms.items():
            # (B, B) from a missing squeeze would train without complaint.
            if value.shape != examples.y.shape:
                raise UserError(
                    f"loss term {name!r} must have shape {tuple(examples.y.shape)}, not {tuple(value.shape)}"
                )
        return terms

    def _weights(self, examples: Examples, epoch: int) -> AbstractContextManager[None]:
        if not self.awp or epoch < self.awp_from_epoch:
            return nullcontext()
        return adversarial_weights(self.model, lambda: total(self._terms(self.model, examples)).mean(), gamma=self.awp)


def _fits(model: nn.Module, objective: Objective) -> bool:
    """Whether training passes can be compiled, and gain by it: on one GPU, for losses without second derivatives."""
    return next(model.parameters()).is_cuda and current_rank().size == 1 and not getattr(objective, "alignment", 0.0)


def _parts(count: int, parts: int) -> list[slice]:
    """`count` rows in so many parts of nearly one size, none of them empty."""
    parts = min(parts, count)
    edges = [round(count * i / parts) for i in range(parts + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(edges)]


def _parallel(model: nn.Module) -> nn.Module:
    """Of several processes, a form of the module whose gradients are the means over all of them.

    BatchNorm layers see this process's images; what they have seen is averaged after each step, so that all processes
    hold one model.
    """
    if current_rank().size == 1:
        return model
    with warnings.catch_warnings():
        # torch 2.14 has another name for this setting, which 2.9 does not know.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Where passes are computed in bf16, or, with "fp32", as they are.

    Example:
        >>> with autocast(torch.device("cpu"), "bf16"):
        ...     nn.Linear(2, 2)(torch.zeros(1, 2)).dtype
        torch.bfloat16
    """
    if precision not in PRECISIONS:
        raise nearest("precision", precision, PRECISIONS)
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def make_step(
    model: nn.Module,
    objective: Objective,
    optimizer: Optimizer,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    num_examples: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    clip_norm: float | None = None,
    awp: float = 0.0,
    awp_from_epoch: int = 0,
    compile: bool = False,
    accumulate: int = 1,
    replays: int = 0,
    recompute: bool = False,
    cuda_graphs: bool = False,
    try_kernels: bool = False,
) -> Step:
    """The training step of an objective, for one's own loop; the trainer runs the same.

    On a CPU the process keeps its memory from then on (`uiat.speed.malloc`). Where `torch.distributed` is initialised,
    each process gives its part of the batch, all of one size, and the step is that of the whole batch.

    Args:
        model: maps images in [0, 1] to logits (B, K); on its device, in the memory format that images will have.
        objective: such as `UIAT()`.
        optimizer: over the model's parameters.
        num_classes: K.
        image_shape: (C, H, W).
        num_examples: N, size of the training set; for per-example momentum.
        precision: "bf16" runs forward and backward passes under autocast; weights and optimiser stay as they are.
        clip_norm: largest gradient norm; none by default.
        awp: relative size of the adversarial weight perturbation; 0 for none.
        awp_from_epoch: first epoch with it.
        compile: compile the model for the inner problems, and on a GPU for the training passes; needs a compiler
            and half a minute at the first step.
        accumulate: parts of a batch that are passed one after the other, for large models. Each part's inner problems
            are its own, and BatchNorm and the universal perturbations see one part at a time.
        replays: Free adversarial training (Shafahi et al. 2019): this many updates on each batch, whose images move a
            step of the attack by the gradient of the loss that each update takes anyway. The attack gives the start.
        recompute: keep the outputs of blocks alone, and compute what is inside them again for the backward pass.
        cuda_graphs: on a GPU, record the step once an epoch and replay it (`uiat.speed.cuda_graphs`); not with
            recompute, replays
            or several processes, where it is left as it is. Between two steps of an epoch leave alone which parameters
            are trained and which modules there are: a replay would not see it.
        try_kernels: on a GPU, let cuDNN try its kernels at each new shape and keep to the fastest (`uiat.speed.cudnn`).

    Example:
        >>> from uiat import UIAT, Batch, models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> step = make_step(model, UIAT(), optimizer, num_classes=10, image_shape=(1, 8, 8))
        >>> terms = step(Batch(torch.rand(4, 1, 8, 8), torch.arange(4), torch.arange(4)), epoch=0)
        >>> sorted(terms)
        ['adv_ce', 'correct', 'inverse_kl']
    """
    device = next(model.parameters()).device
    keep_memory(device)
    state = objective.init(num_classes=num_classes, image_shape=image_shape, num_examples=num_examples).to(device)
    return Step(
        model,
        objective,
        optimizer,
        state=state,
        num_classes=num_classes,
        autocast=partial(autocast, device, precision),
        clip_norm=clip_norm,
        awp=awp,
        awp_from_epoch=awp_from_epoch,
        compile=compile,
        accumulate=accumulate,
        replays=_allowed(replays, objective),
        recompute=recompute,
        try_kernels=try_kernels,
        cuda_graphs=cuda_graphs and device.type == "cuda" and not (recompute or replays or current_rank().size > 1),
    )


def _allowed(replays: int, objective: Objective) -> int:
    """Refuse replays of what has no attack, or of an inverse adversary that looks at the adversarial example.

    And an attack without steps that are to come from replays: its examples would be noise.
    """
    attack = getattr(objective, "attack", None)
    if not replays and isinstance(attack, PGD) and attack.steps == 0:
        raise UserError("an attack of 0 steps takes them from replays: set optimisation.replays, or attack.steps")
    if replays and attack is None:
        raise UserError(f"replays need a method that trains on adversarial examples, not {objective.name!r}")
    if replays and getattr(getattr(objective, "inverse", None), "regulariser", "none") != "none":
        raise UserError("an inverse regulariser reads the adversarial examples, which replays move: set it to none")
    return replays
