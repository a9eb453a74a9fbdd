"""What a training step costs: passes counted as they are made, arithmetic, the floor of the machine, the time."""

import contextlib
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from uiat import models
from uiat.config.schema import Run
from uiat.data import STATS, Batch, ImageSet
from uiat.data.catalog import DATA_SETS
from uiat.models.modes import frozen
from uiat.speed.throughput import convolution_rate, matrix_rate, median_seconds
from uiat.training.autotune import resolve_auto
from uiat.training.pass_count import PassCount, step_for, step_passes
from uiat.training.setup import can_use_channels_last, load_datasets, model_spec, pick_device, seeded
from uiat.training.step import PRECISIONS


@dataclass(frozen=True)
class Cost:
    """What one epoch's steps cost.

    Args:
        epochs: how many epochs of the run have this price, and which is the first of them, from 0.
        passes: of one image in one step.
        seconds: a step takes, the median of those measured.
        flops: floating-point operations of a step, two to a multiplication with its addition.
    """

    epochs: tuple[int, int]
    passes: PassCount
    seconds: float
    flops: float


@dataclass(frozen=True)
class CostReport:
    """A run's costs.

    Args:
        costs: of its epochs.
        forward_flops: of one image, forward.
        precision: of the run's passes.
        rates: operations a second by precision: of "matrix" products and of a "convolution".
        steps: of an epoch.
        batch_size: images a step.
        peak_bytes: the most memory that was held in steps, of the device or, on a CPU, of this whole process.
        device: the machine's name for it.
    """

    costs: tuple[Cost, ...]
    forward_flops: float
    precision: str
    rates: dict[str, dict[str, float]]
    steps: int
    batch_size: int
    peak_bytes: int
    device: str

    def floor(self, cost: Cost, precision: str | None = None) -> float:
        """Seconds that a step's operations take at the higher of the two rates; in the run's precision by default."""
        return cost.flops / max(self.rates[precision or self.precision].values())

    @property
    def seconds(self) -> float:
        """The whole run, without validation."""
        return sum(cost.epochs[0] * self.steps * cost.seconds for cost in self.costs)


def estimate_cost(run: Run, *, steps: int = 3) -> CostReport:
    """Count, measure and compare: what the run's training costs on this machine. Trains on noise, keeps nothing.

    Args:
        run: such as `recipes.get("cifar10-small-uiat")`.
        steps: to measure, after one that warms up.

    Raises:
        UserError: the device is not there, or the images of a folder cannot be read.

    Example:
        >>> from uiat import recipes
        >>> found = estimate_cost(recipes.get("digits-pgd-at"), steps=1)
        >>> found.costs[0].passes.units, found.steps
        (23.0, 17)
    """
    device = pick_device(run.compute.device)
    data, images = _noise(run)
    with seeded(run.seed, device):
        model = models.build(**model_spec(run, data)).to(device)
        last = can_use_channels_last(model, asked=run.compute.levers.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        model.to(memory_format=layout)
        x = data.images.to(device).float().div(255).contiguous(memory_format=layout)
        batch = Batch(x, data.labels.to(device), torch.arange(len(x), device=device))
        whole = images // len(x) * run.optimisation.epochs
        run = resolve_auto(run, model, image_shape=data.image_shape, num_classes=data.num_classes, steps=whole)
        forward = count_flops(model, x[:1])
        step = step_for(run, model, batch, num_classes=data.num_classes, eager=False)
        passes, costs = step_passes(run, model, batch, num_classes=data.num_classes), []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for (count, epoch), each in passes.items():
            work = partial(step, batch, epoch=epoch)
            # Compiled, watched, recorded, and replayed once.
            seconds = median_seconds(work, steps, device, warm=4 if step.graphed else 1)
            costs.append(Cost((count, epoch), each, seconds, each.units * forward * len(x)))
        peak, precision, rates = _peak(device), run.compute.levers.precision, _rates(device)
    return CostReport(tuple(costs), forward, precision, rates, images // len(x), len(x), peak, _name(device))


def _rates(device: torch.device) -> dict[str, dict[str, float]]:
    """In each precision that the device has."""
    found = {}
    for precision in PRECISIONS:
        with contextlib.suppress(RuntimeError):  # a device without bf16
            kinds = {"matrix": matrix_rate, "convolution": convolution_rate}
            found[precision] = {kind: rate(device, precision) for kind, rate in kinds.items()}
    return found


def _noise(run: Run) -> tuple[ImageSet, int]:
    """A batch of noise shaped like the run's images, with every class in its list; and how many the run trains on."""
    name, size = run.data.name, run.data.batch_size
    row = DATA_SETS.get(name)
    if row is not None and row.reader is not None:
        shape, classes = row.image_shape, row.classes
        left = row.train - (run.data.validation or min(1_000, row.train // 20))
        images = min(run.data.subset or left, left)
    else:
        data, _ = load_datasets(run.data, run.seed)
        shape, classes, images = data.image_shape, data.num_classes, len(data)
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=random)
    names = tuple(str(c) for c in range(classes))
    known = name if name in STATS else "noise"
    return ImageSet(noise, torch.arange(size) % classes, names, known, partial=True), images


def count_flops(model: nn.Module, example: Tensor) -> float:
    """Floating-point operations of a forward pass of one image, convolutions and matrix products.

    Example:
        >>> count_flops(nn.Linear(4, 2), torch.rand(1, 4))
        16.0
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad(), frozen(model):
        model(example[:1])
    return float(counter.get_total_flops())


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a CPU"
