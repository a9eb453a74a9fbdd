"""Estimate the cost of a run: passes of a step, operations, time, memory, and the machine's roofline."""

import contextlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from uiat import models
from uiat.config.schema import Run
from uiat.data import STATS, Batch, ImageSet
from uiat.data.catalog import DATA_SETS
from uiat.inverse import InverseState, apply_universal
from uiat.models.freeze import freeze_parameters
from uiat.objectives.abilities import attack_of, generator_in, universal_inverse_of, without_warm_start
from uiat.speed.throughput import convolution_rate, matrix_rate, median_seconds
from uiat.training.attack_memory import add_memory
from uiat.training.autotune import resolve_auto
from uiat.training.device import can_use_channels_last, pick_device
from uiat.training.extra_images import open_extra_images
from uiat.training.idle_settings import warn_of_idle_settings
from uiat.training.pass_count import PassCount, count_flops, step_for, step_passes
from uiat.training.setup import load_datasets, model_spec, seeded_torch
from uiat.training.step import Step
from uiat.training.step_options import PRECISIONS


@dataclass(frozen=True)
class Cost:
    """Cost of a step, in the epochs of a run in which steps cost the same.

    Args:
        epochs: number of these epochs, and the first of them, counted from 0.
        passes: passes of one image in one step.
        seconds: seconds a step, the median of those measured.
        flops: floating-point operations of a step; a multiplication with its addition counts as two.
    """

    epochs: tuple[int, int]
    passes: PassCount
    seconds: float
    flops: float


@dataclass(frozen=True)
class Kept:
    """A tensor that the training method keeps between steps, such as the universal perturbations z.

    Args:
        name: name of the tensor.
        shape: its shape in the whole run.
        dtype: name of its type.
        bytes: memory that it takes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


@dataclass(frozen=True)
class CostReport:
    """Cost of a run on this machine.

    Args:
        costs: cost of a step, by phases of the run.
        forward_flops: floating-point operations of a forward pass of one image.
        precision: precision of the run's passes.
        rates: operations a second of this machine, by precision, in "matrix" products and in a "convolution".
        steps: number of steps an epoch.
        batch_size: images a step.
        peak_bytes: peak memory in steps, of the device or, on a CPU, of this whole process.
        device: name of the device.
        kept: tensors that the method keeps between steps.
        universal_seconds: seconds that moving and applying universal perturbations takes in a step that refines them,
            its passes through the model left out; None for a method without them.
        to_label: number of extra images that a teacher labels first, by one forward pass of its own each.
    """

    costs: tuple[Cost, ...]
    forward_flops: float
    precision: str
    rates: dict[str, dict[str, float]]
    steps: int
    batch_size: int
    peak_bytes: int
    device: str
    kept: tuple[Kept, ...] = ()
    universal_seconds: float | None = None
    to_label: int = 0

    def roofline_seconds(self, cost: Cost, precision: str | None = None) -> float:
        """Return the seconds that a step's operations take at the higher of the two rates of a precision.

        Args:
            cost: one of `costs`.
            precision: "fp32" or "bf16"; the run's by default.
        """
        return cost.flops / max(self.rates[precision or self.precision].values())

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, without validation."""
        return sum(cost.epochs[0] * self.steps * cost.seconds for cost in self.costs)


def estimate_cost(run: Run, *, steps: int = 3) -> CostReport:
    """Estimate what a run costs on this machine: counts passes, measures steps. Trains on noise, keeps nothing.

    Extra images change neither the passes of an image nor the number of steps; their file is looked at, not read.

    Args:
        run: every setting, such as `recipes.get("cifar10-small-uiat")`.
        steps: number of steps to measure, after one that warms up.

    Raises:
        UserError: the device is not there, or the images of a folder cannot be read.

    Example:
        >>> from uiat import recipes
        >>> report = estimate_cost(recipes.get("digits-pgd-at"), steps=1)
        >>> report.costs[0].passes.units, report.steps
        (23.0, 17)
    """
    warn_of_idle_settings(run)
    device = pick_device(run.compute.device)
    data, images = _make_noise(run)
    with seeded_torch(run.seed, device):
        model = models.build(**model_spec(run, data)).to(device)
        last = can_use_channels_last(model, requested=run.compute.resolved.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        model.to(memory_format=layout)
        freeze_parameters(model, run.model.freeze)
        x = data.images.to(device).float().div(255).contiguous(memory_format=layout)
        batch = Batch(x, data.labels.to(device), torch.arange(len(x), device=device))
        whole = images // len(x) * run.optimisation.epochs
        run = resolve_auto(run, model, image_shape=data.image_shape, num_classes=data.num_classes, steps=whole)
        forward = count_flops(model, x[:1])
        passes = step_passes(run, model, batch, num_classes=data.num_classes)
        step = step_for(run, model, batch, num_classes=data.num_classes, eager=False)  # after that other one is gone
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        costs = _time_phases(step, batch, passes, steps, forward)
        peak, precision = _peak_bytes(device), run.compute.resolved.precision
        universal = _time_universal(step, batch, steps, device)
        extra = open_extra_images(run.data, data)
        rows = images + (0 if extra is None else len(extra))
        kept, rates = _list_kept(step, batch, rows, data), _measure_rates(device)
    return CostReport(
        costs=costs,
        forward_flops=forward,
        precision=precision,
        rates=rates,
        steps=images // len(x),
        batch_size=len(x),
        peak_bytes=peak,
        device=_device_name(device),
        kept=kept,
        universal_seconds=universal,
        to_label=0 if extra is None or extra.labels is not None else len(extra),
    )


def _time_phases(
    step: Step, batch: Batch, passes: Mapping[tuple[int, int], PassCount], steps: int, forward: float
) -> tuple[Cost, ...]:
    """Measure the steps of each phase of a run, whose passes are known; `forward` is what one of an image computes."""
    costs = []
    for (count, epoch), each in passes.items():
        work = partial(step, batch, epoch=epoch)
        # Four warm-up steps with a CUDA graph: compiled, watched, recorded, and replayed once.
        seconds = median_seconds(work, steps, step.device, warm=4 if step.graphed else 1)
        costs.append(Cost((count, epoch), each, seconds, each.units * forward * len(batch.y)))
    return tuple(costs)


def _time_universal(step: Step, batch: Batch, steps: int, device: torch.device) -> float | None:
    """Measure what a step's updates of z take, from gradients of noise, and applying it after each."""
    inverse, attack = universal_inverse_of(step.objective), attack_of(step.objective)
    if inverse is None or attack is None or not isinstance(step.state, InverseState):
        return None
    gradient, state = torch.randn_like(batch.x), step.state

    def refine() -> None:
        assert state.z is not None
        inverse.update(state, gradient, batch.y, attack.threat)
        apply_universal(batch.x, batch.y, state.z, inverse.cell)

    return inverse.steps * median_seconds(refine, steps, device)


def _list_kept(step: Step, batch: Batch, images: int, data: ImageSet) -> tuple[Kept, ...]:
    """List the tensors of the method's state; a side that grows with the training set has the size of the run's."""
    larger = without_warm_start(step.objective).init(
        num_classes=data.num_classes, image_shape=data.image_shape, num_examples=len(batch.y) + 1
    )
    add_memory(step.objective, larger, image_shape=data.image_shape, num_examples=len(batch.y) + 1)
    kept = []
    for name, one in step.state.named_buffers(recurse=False):
        other = larger.get_buffer(name).shape
        shape = tuple(a if a == b else images for a, b in zip(one.shape, other, strict=True))
        dtype, size = str(one.dtype).removeprefix("torch."), math.prod(shape) * one.element_size()
        kept.append(Kept(name, shape, dtype, size))
    if (generator := generator_in(step.state)) is not None:
        tensors = generator.state_dict().values()  # its weights and the moments of its optimiser
        count = sum(tensor.numel() for tensor in tensors)
        kept.append(Kept("generator", (count,), "float32", sum(t.numel() * t.element_size() for t in tensors)))
    return tuple(kept)


def _measure_rates(device: torch.device) -> dict[str, dict[str, float]]:
    """Measure operations a second in each precision that the device has."""
    rates: dict[str, dict[str, float]] = {}
    for precision in PRECISIONS:
        with contextlib.suppress(RuntimeError):  # a device without bf16
            kinds = {"matrix": matrix_rate, "convolution": convolution_rate}
            rates[precision] = {kind: rate(device, precision) for kind, rate in kinds.items()}
    return rates


def _make_noise(run: Run) -> tuple[ImageSet, int]:
    """Return a batch of noise shaped like the run's images, and the number of images that the run trains on."""
    name, size = run.data.name, run.data.batch_size
    row = DATA_SETS.get(name)
    if row is not None:  # also one that cannot be read by name: its sizes are known
        shape, classes = row.image_shape, row.classes
        left = row.train - (run.data.validation or min(1_000, row.train // 20))
        images = min(run.data.subset or left, left)
    else:
        data, _ = load_datasets(run.data, run.seed, own_code=True)
        shape, classes, images = data.image_shape, data.num_classes, len(data)
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=random)
    names = tuple(str(c) for c in range(classes))
    known = name if name in STATS else "noise"
    return ImageSet(noise, torch.arange(size) % classes, names, known, partial=True), images


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a CPU"
