"""CUDA graphs: record the kernels of a training step once an epoch, then launch them with one call."""

import logging
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from uiat.data import Batch
from uiat.errors import UserError
from uiat.system.distributed import exchanges

logger = logging.getLogger("uiat")
Work = Callable[[Batch, int], dict[str, Tensor]]
# Steps that are watched for waits of the host before recording is given up.
TRIES = 3
# Steps at first that are not watched: kernels are chosen and compiled in them, which waits.
SETTLING = 1


@dataclass
class GraphedSteps:
    """A training step that is replayed from a CUDA graph: `graphed(batch, epoch)` does what `work(batch, epoch)` does.

    With small images a step is a few thousand kernels of some microseconds each; a GPU is done with them before the
    host has launched them. A CUDA graph launches all of them at once. Values that change with the epoch (the weight of
    a term, whether perturbations are refined) are fixed in a graph, so each epoch, each shape of a batch, and batches
    with soft labels and without, have their own.

    The first steps of an epoch run as usual. During one of them torch reports waits for the device, which a graph
    cannot hold, and the host's random generators are compared, whose draws a graph would repeat. Work that waits or
    draws in `TRIES` of them, such as a model that reads a value, is never recorded. `make_step` says what else is not.

    With several processes each records its own work. What they exchange is no part of a graph: work that exchanges
    something is left as it is for the epoch, and gradients are averaged after it (`uiat.training.step`).

    Args:
        work: function from a batch and an epoch to tensors on the device, which leaves gradients in the parameters and
            waits for nothing. Tensors that it reads or writes in every call (weights, buffers, state) stay in place.
        parameters: parameters whose gradients it leaves.

    Raises:
        UserError: when called, if the work cannot be recorded for another reason than waiting.
    """

    work: Work
    parameters: tuple[nn.Parameter, ...]
    recorded: "RecordedStep | None" = field(default=None, init=False)
    _key: tuple[object, ...] = field(default=(), init=False)
    _settling: int = field(default=SETTLING, init=False)
    _watched: bool = field(default=False, init=False)
    _waits: int = field(default=0, init=False)
    _exchanging: tuple[object, ...] = field(default=(), init=False)

    def __call__(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Run or replay the step; the tensors are new ones at each call."""
        with _on_device(batch.x.device):
            return self._run(batch, epoch)

    def forget(self) -> None:
        """Free the memory of a recording; the next step begins a new one."""
        self._key, self.recorded = (), None

    def _run(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        optional = [getattr(batch, name) is not None for name in RecordedStep.read]
        key = (epoch, batch.x.shape, batch.x.stride(), *optional)
        if key != self._key:
            self._key, self._watched, self.recorded = key, False, None
        if self._waits == TRIES or key == self._exchanging:
            return self.work(batch, epoch)
        if self._settling:
            self._settling -= 1
            return self.work(batch, epoch)
        if not self._watched:
            return self._watch(batch, epoch)
        if self.recorded is None:
            self.recorded = RecordedStep.record(self.work, batch, epoch, self.parameters)
        return self.recorded(batch)

    def _watch(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Run a step, and note whether anything in it keeps it from being recorded."""
        with exchanges() as exchanged, host_waits() as waits, host_draws() as draws:
            result = self.work(batch, epoch)
        if exchanged:  # the same in each process, so that all of them go on alike
            logger.debug("steps of epoch %d are not recorded as a CUDA graph: %s", epoch, exchanged[0])
            self._exchanging = self._key
            return result
        reasons = waits + draws
        self._watched = not reasons
        self._waits = self._waits + 1 if reasons else 0
        if self._waits == TRIES:
            logger.info("steps are not recorded as a CUDA graph: %s", reasons[0])
        return result


@dataclass(frozen=True)
class RecordedStep:
    """A recorded step, with the tensors that it reads its batch from and leaves its results and gradients in."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    terms: dict[str, Tensor]
    gradients: list[tuple[nn.Parameter, Tensor | None]]
    read: ClassVar[tuple[str, ...]] = ("x", "y", "index", "moves", "soft_labels")  # of a batch, where it has them

    @staticmethod
    def record(work: Work, batch: Batch, epoch: int, parameters: tuple[nn.Parameter, ...]) -> "RecordedStep":
        """Record the work without doing it.

        Raises:
            UserError: the work holds something that a CUDA graph cannot.
        """
        here = batch.apply(torch.clone)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as one that pins memory for a loader, may continue meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                terms = work(here, epoch)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"the step cannot be recorded as a CUDA graph ({reason}): set compute.cuda_graphs to false"
            ) from error
        return RecordedStep(graph, here, terms, [(p, p.grad) for p in parameters])

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Do the recorded work on another batch of the same shape."""
        for name in self.read:
            place, value = getattr(self.batch, name), getattr(batch, name)
            if place is not None and value is not None:
                place.copy_(value, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return {name: value.clone() for name, value in self.terms.items()}


def _on_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU torch's current device inside, because a graph records the work of that one alone."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def host_waits() -> Iterator[list[str]]:
    """List what waits for the GPU inside, as far as torch sees it; the list fills at the end.

    Example:
        >>> with host_waits() as waits:  # doctest: +SKIP
        ...     _ = torch.ones(1, device="cuda").item()
        >>> len(waits)  # doctest: +SKIP
        1
    """
    before, waits = torch.cuda.get_sync_debug_mode(), list[str]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in caught:
        if "synchronizing CUDA operation" in str(warning.message):
            waits.append(f"{warning.filename}, line {warning.lineno}, waits for the device")
        elif "prototype feature" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def host_draws() -> Iterator[list[str]]:
    """List the random generators of the host that are drawn from inside; the list fills at the end.

    Example:
        >>> with host_draws() as draws:
        ...     _ = torch.rand(1)
        >>> draws
        ["it draws from torch's random generator of the CPU"]
    """
    draws = list[str]()
    before = _generator_states()
    yield draws
    for name, state in _generator_states().items():
        if state != before[name]:
            draws.append(f"it draws from {name}")


def _generator_states() -> dict[str, object]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch's random generator of the CPU": torch.get_rng_state().numpy().tobytes(),
        "Python's random": random.getstate(),
        "NumPy's random generator": (kind, keys.tobytes(), *rest),  # type: ignore[union-attr]
    }
