"""Count the forward and backward passes of a training step."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from uiat.config.schema import Run
from uiat.data import Batch
from uiat.inverse import UniversalInverse
from uiat.models.inspect import device_of
from uiat.models.modes import frozen
from uiat.training.optimizer import make_optimizer
from uiat.training.step import Step, make_step


@dataclass
class PassCount:
    """Images that went through a model, by what was asked of the pass.

    Args:
        forward: forward passes, all of them.
        input_backward: backward passes to the images alone, for which no gradient of a weight is computed.
        training_backward: backward passes to the weights.

    Example:
        >>> PassCount(forward=12, input_backward=10, training_backward=1).units
        24.0
    """

    forward: float = 0
    input_backward: float = 0
    training_backward: float = 0

    @property
    def units(self) -> float:
        """In F, the price of a forward pass: a backward pass to the images costs one more, one to the weights two."""
        return float(self.forward + self.input_backward + 2 * self.training_backward)

    def per(self, images: int) -> "PassCount":
        """The same for one image of so many."""
        return PassCount(self.forward / images, self.input_backward / images, self.training_backward / images)


@contextmanager
def count_passes(model: nn.Module, example: Tensor) -> Iterator[PassCount]:
    """Count the images that pass inside, whichever way the model is entered (`forward`, or `features` and `head`).

    They are counted at the first layer with weights that an image meets.

    Example:
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> with count_passes(model, x) as passes:
        ...     model(x).sum().backward()
        >>> passes
        PassCount(forward=3, input_backward=0, training_backward=3)
    """
    passes, layer = PassCount(), _first_layer(model, example)

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        passes.forward += len(output)
        if output.requires_grad:
            training = any(p.requires_grad for p in module.parameters())
            output.register_hook(lambda gradient: back(len(gradient), training))

    def back(images: int, training: bool) -> None:
        if training:
            passes.training_backward += images
        else:
            passes.input_backward += images

    hook = layer.register_forward_hook(note)
    try:
        yield passes
    finally:
        hook.remove()


def _first_layer(model: nn.Module, example: Tensor) -> nn.Module:
    met: list[nn.Module] = []
    leaves = [m for m in model.modules() if not any(m.children()) and any(True for _ in m.parameters())]
    hooks = [m.register_forward_hook(lambda module, inputs, output: met.append(module)) for m in leaves]
    try:
        with torch.no_grad(), frozen(model):
            model(example[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return met[0]


def step_for(run: Run, model: nn.Module, batch: Batch, *, num_classes: int, eager: bool = True) -> Step:
    """The run's training step on the examples of one batch, as far as its cost goes: it hardly moves a weight.

    Eager, so that layers are called one by one and can be counted, or compiled and recorded as the run has it.

    Example:
        >>> from uiat import models
        >>> model = models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4)
        >>> batch = Batch(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]), torch.arange(4))
        >>> sorted(step_for(Run(), model, batch, num_classes=2)(batch))
        ['adv_ce', 'correct', 'inverse_kl']
    """
    config = run.optimisation
    objective: Any = run.objective
    inverse = getattr(objective, "inverse", None)
    if isinstance(inverse, UniversalInverse):  # where it began does not matter here
        objective = replace(objective, inverse=replace(inverse, warm_start=None))
    _, c, h, w = batch.x.shape
    return make_step(
        model,
        objective,
        # So that noise moves nothing to where a number is no longer one.
        make_optimizer(model, replace(config, learning_rate=1e-6), plain=run.compute.plain),
        num_classes=num_classes,
        image_shape=(c, h, w),
        num_examples=len(batch.y),
        precision=run.compute.levers.precision,
        clip_norm=config.clip_norm,
        awp=config.awp,
        awp_from_epoch=config.awp_from_epoch,
        compile=not eager and run.compute.levers.compile,
        accumulate=config.accumulate,
        replays=config.replays,
        recompute=run.compute.recompute,
        cuda_graphs=not eager and run.compute.levers.cuda_graphs,
        try_kernels=not run.compute.plain,
    )


def step_passes(run: Run, model: nn.Module, batch: Batch, *, num_classes: int) -> dict[tuple[int, int], PassCount]:
    """Passes of an image in a step of the run, by the epochs that cost the same (see `phases`), as they are made.

    Example:
        >>> from uiat import models
        >>> model = models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4)
        >>> batch = Batch(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]), torch.arange(4))
        >>> {k: v.units for k, v in step_passes(Run(), model, batch, num_classes=2).items()}
        {(30, 0): 28.0}
    """
    step, found = step_for(run, model, batch, num_classes=num_classes), {}
    for count, epoch in phases(run):
        with count_passes(model, batch.x) as passes:
            step(batch, epoch=epoch)
        found[count, epoch] = passes.per(len(batch.y))
    return found


def phases(run: Run) -> list[tuple[int, int]]:
    """(how many epochs, the first of them) that cost the same: a one-off's epoch, and those before and after it.

    Example:
        >>> from uiat import recipes
        >>> phases(recipes.get("digits-uiat-one-off"))
        [(10, 0), (1, 10), (29, 11)]
    """
    epochs, inverse = run.optimisation.epochs, getattr(run.objective, "inverse", None)
    once = inverse.epoch if isinstance(inverse, UniversalInverse) else None
    awp = run.optimisation.awp_from_epoch if run.optimisation.awp else 0
    edges = sorted({0, epochs, *((once, once + 1) if once is not None else ()), min(awp, epochs)})
    return [(last - first, first) for first, last in itertools.pairwise(edges)]


IMAGES = 8  # of the batch that is counted on


def step_cost(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int) -> PassCount:
    """Passes of a run's training step through the model, the mean over its epochs: one-off runs change their ways.

    Example:
        >>> from uiat import PGDAT, models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> step_cost(Run(objective=PGDAT()), model, image_shape=(1, 8, 8), classes=10).units
        23.0
    """
    model = copy.deepcopy(model).train()
    with torch.random.fork_rng():
        found = step_passes(run, model, _noise(model, image_shape, classes), num_classes=classes)
    epochs = run.optimisation.epochs
    means = {
        name: sum(getattr(passes, name) * count for (count, _), passes in found.items()) / epochs
        for name in ("forward", "input_backward", "training_backward")
    }
    return PassCount(**means)


def _noise(model: nn.Module, image_shape: tuple[int, int, int], classes: int) -> Batch:
    device, source = device_of(model), torch.Generator().manual_seed(0)
    x = torch.rand(IMAGES, *image_shape, generator=source).to(device)
    index = torch.arange(IMAGES, device=device)
    return Batch(x, index % classes, index)


def activation_bytes(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int) -> int:
    """Bytes that the training pass of a step keeps for its backward pass, for a batch of the run's size.

    What differs between methods: a second training pass keeps as much again. In fp32, at the last epoch.

    Example:
        >>> from uiat import PGDAT, UIAT, models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> once, twice = (
        ...     activation_bytes(Run(objective=o), model, image_shape=(1, 8, 8), classes=10) for o in (PGDAT(), UIAT())
        ... )
        >>> 1.8 < twice / once < 2.2
        True
    """
    model = copy.deepcopy(model).train()
    batch = _noise(model, image_shape, classes)
    step = step_for(run, model, batch, num_classes=classes)
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
