"""What a step of a run costs, counted and not timed: passes, and what is kept for the backward pass."""

import copy

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from uiat.config import Run
from uiat.data import Batch
from uiat.passes import Passes, own_step, step_passes
from uiat.probe import device_of

IMAGES = 8  # of the batch that is counted on


def step_cost(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int) -> Passes:
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
    return Passes(**means)


def _noise(model: nn.Module, image_shape: tuple[int, int, int], classes: int) -> Batch:
    device, source = device_of(model), torch.Generator().manual_seed(0)
    x = torch.rand(IMAGES, *image_shape, generator=source).to(device)
    index = torch.arange(IMAGES, device=device)
    return Batch(x, index % classes, index)


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
    batch = _noise(model, image_shape, classes)
    step = own_step(run, model, batch, num_classes=classes)
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
