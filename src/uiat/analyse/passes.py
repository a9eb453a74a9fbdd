"""What a step of a run costs, counted and not timed: passes, and what is kept for the backward pass."""

import copy
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from uiat.config import Run
from uiat.data import Batch
from uiat.inverse import InstanceInverse, UniversalInverse
from uiat.probe import device_of
from uiat.step import Step, make_step

IMAGES = 8  # of the batch that is counted on


@dataclass(frozen=True)
class Cost:
    """Passes of a step over a batch.

    Args:
        forward: forward passes.
        input_backward: backward passes to the images alone.
        training_backward: backward passes to the weights.

    Example:
        >>> Cost(11, 10, 1).total  # PGD-AT with ten steps
        23
    """

    forward: float
    input_backward: float
    training_backward: float

    @property
    def total(self) -> float:
        """In forward passes: one for a backward pass to the images, two for one to the weights."""
        return self.forward + self.input_backward + 2 * self.training_backward


def step_cost(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int) -> Cost:
    """Passes of a run's training step through the model, the mean over its epochs: one-off runs change their ways.

    Example:
        >>> from uiat import PGDAT, models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> step_cost(Run(objective=PGDAT()), model, image_shape=(1, 8, 8), classes=10).total
        23.0
    """
    kinds: Counter[tuple[bool, ...]] = Counter()
    first: dict[tuple[bool, ...], int] = {}
    for epoch in range(run.optimisation.epochs):
        kind = _kind(run, epoch)
        kinds[kind] += 1
        first.setdefault(kind, epoch)
    totals: dict[str, float] = {}
    for kind, share in kinds.items():
        counted = _counted(run, model, image_shape=image_shape, classes=classes, epoch=first[kind])
        for name, count in counted.items():
            totals[name] = totals.get(name, 0.0) + count * share
    means = {name: count / run.optimisation.epochs for name, count in totals.items()}
    return Cost(*(means.get(name, 0.0) for name in ("forward", "input", "training")))


def _kind(run: Run, epoch: int) -> tuple[bool, ...]:
    """Which epochs cost the same."""
    inverse = getattr(run.objective, "inverse", None)
    perturbed = run.optimisation.awp > 0 and epoch >= run.optimisation.awp_from_epoch
    if isinstance(inverse, UniversalInverse):
        return inverse.active(epoch), inverse.refines(epoch), perturbed
    return isinstance(inverse, InstanceInverse), False, perturbed


def _counted(
    run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int, epoch: int
) -> Counter[str]:
    model = copy.deepcopy(model).train()
    counts: Counter[str] = Counter()

    def passed(_: nn.Module, __: Any, output: Tensor) -> None:
        counts["forward"] += 1
        if output.requires_grad:
            kind = "training" if any(p.requires_grad for p in model.parameters()) else "input"
            output.register_hook(lambda _: counts.update([kind]))

    # A classifier of this package passes through its body also where only its features are wanted.
    body = getattr(model, "body", model)
    handle = body.register_forward_hook(passed)
    step, batch = _step(run, model, image_shape=image_shape, classes=classes)
    with torch.random.fork_rng():
        step(batch, epoch=epoch)
    handle.remove()
    return counts


def _step(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int) -> tuple[Step, Batch]:
    device = device_of(model)
    config = run.optimisation
    objective: Any = run.objective
    if isinstance(getattr(objective, "inverse", None), UniversalInverse):  # where it began does not matter here
        objective = replace(objective, inverse=replace(objective.inverse, warm_start=None))
    step = make_step(
        model,
        objective,
        torch.optim.SGD(model.parameters(), lr=0.0),
        num_classes=classes,
        image_shape=image_shape,
        num_examples=IMAGES,
        awp=config.awp,
        awp_from_epoch=config.awp_from_epoch,
    )
    source = torch.Generator().manual_seed(0)
    x = torch.rand(IMAGES, *image_shape, generator=source).to(device)
    index = torch.arange(IMAGES, device=device)
    return step, Batch(x, index % classes, index)


def kept_bytes(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int) -> int:
    """Bytes that the training pass of a step keeps for its backward pass, for a batch of the run's size.

    What differs between methods: a second training pass keeps as much again. In fp32, at the last epoch.

    Example:
        >>> from uiat import PGDAT, UIAT, models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> once, twice = (
        ...     kept_bytes(Run(objective=o), model, image_shape=(1, 8, 8), classes=10) for o in (PGDAT(), UIAT())
        ... )
        >>> 1.8 < twice / once < 2.2
        True
    """
    model = copy.deepcopy(model).train()
    step, batch = _step(run, model, image_shape=image_shape, classes=classes)
    own = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng():
        examples = step.objective.perturb(model, batch, step.state, epoch=run.optimisation.epochs - 1)
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            terms = step.objective.loss(model, examples)
    del terms
    return sum(kept.values()) * run.data.batch_size // IMAGES
