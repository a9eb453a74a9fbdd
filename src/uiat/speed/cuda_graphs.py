"""CUDA graphs: what a step asks of a GPU, recorded once an epoch and then launched by one call."""

import logging
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from uiat.data import Batch
from uiat.errors import UserError

logger = logging.getLogger("uiat")
Work = Callable[[Batch, int], dict[str, Tensor]]
# Steps that are looked at for waits of the host, before recording is given up.
TRIES = 3
# Unwatched steps at first: kernels are chosen and compiled in them, which waits.
SETTLING = 1


@dataclass
class GraphedSteps:
    """`graphed(batch, epoch)` is `work(batch, epoch)`, the gradients of the parameters included, on a GPU.

    A network of small images is a few thousand kernels of some microseconds each a step; a GPU is done with them before
    the host has launched them. A CUDA graph launches all of them at once. What an epoch decides (the weight of a term,
    whether perturbations are refined) is fixed in a graph, so each epoch, and each shape of a batch, has its own.

    The first steps of an epoch are made as ever. In one of them torch is asked to tell of waits for the device, which a
    graph cannot hold, and the host's random generators are compared, whose draws a graph would repeat. Work that waits
    or draws in `TRIES` of them, such as a model that reads a value, is never recorded. `make_step` says what else is
    not.

    Args:
        work: from a batch and an epoch to tensors on the device; leaves gradients in the parameters and waits for
            nothing. All that it reads and writes from call to call is at one place: weights, buffers, state.
        parameters: whose gradients it leaves.

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

    def __call__(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """The tensors, new ones at each call."""
        with _current(batch.x.device):
            return self._made(batch, epoch)

    def forget(self) -> None:
        """Give back the memory of a recording; the next step begins a new one."""
        self._key, self.recorded = (), None

    def _made(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        key = (epoch, batch.x.shape, batch.x.stride())
        if key != self._key:
            self._key, self._watched, self.recorded = key, False, None
        if self._waits == TRIES:
            return self.work(batch, epoch)
        if self._settling:
            self._settling -= 1
            return self.work(batch, epoch)
        if not self._watched:
            return self._watch(batch, epoch)
        if self.recorded is None:
            self.recorded = RecordedStep.of(self.work, batch, epoch, self.parameters)
        return self.recorded(batch)

    def _watch(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        with host_waits() as found, host_draws() as drawn:
            result = self.work(batch, epoch)
        found += drawn
        self._watched = not found
        self._waits = self._waits + 1 if found else 0
        if self._waits == TRIES:
            logger.info("steps are not recorded as a CUDA graph: %s", found[0])
        return result


@dataclass(frozen=True)
class RecordedStep:
    """A recorded step: where it reads its batch, where it leaves its results and gradients."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    terms: dict[str, Tensor]
    gradients: list[tuple[nn.Parameter, Tensor | None]]

    @staticmethod
    def of(work: Work, batch: Batch, epoch: int, parameters: tuple[nn.Parameter, ...]) -> "RecordedStep":
        """Record the work; it is not done."""
        here = Batch(batch.x.clone(), batch.y.clone(), batch.index.clone())
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as one that pins memory for a loader, may go on meanwhile.
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
        for place, value in ((self.batch.x, batch.x), (self.batch.y, batch.y), (self.batch.index, batch.index)):
            place.copy_(value, non_blocking=True)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return {name: value.clone() for name, value in self.terms.items()}


def _current(device: torch.device) -> AbstractContextManager[object]:
    """The device that torch works on inside: what other devices are asked for meanwhile, a graph does not hold."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def host_waits() -> Iterator[list[str]]:
    """What inside waits for the GPU, as far as torch sees it: a list that fills.

    Example:
        >>> with host_waits() as found:  # doctest: +SKIP
        ...     _ = torch.ones(1, device="cuda").item()
        >>> len(found)  # doctest: +SKIP
        1
    """
    before, found = torch.cuda.get_sync_debug_mode(), list[str]()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for warning in said:
        if "synchronizing CUDA operation" in str(warning.message):
            found.append(f"{warning.filename}, line {warning.lineno}, waits for the device")
        elif "prototype feature" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def host_draws() -> Iterator[list[str]]:
    """Which of the host's random generators are drawn from inside: a list that fills.

    Example:
        >>> with host_draws() as found:
        ...     _ = torch.rand(1)
        >>> found
        ["it draws from torch's random generator of the CPU"]
    """
    found = list[str]()
    before = _generators()
    yield found
    for name, state in _generators().items():
        if state != before[name]:
            found.append(f"it draws from {name}")


def _generators() -> dict[str, object]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch's random generator of the CPU": torch.get_rng_state().numpy().tobytes(),
        "Python's random": random.getstate(),
        "NumPy's random generator": (kind, keys.tobytes(), *rest),  # type: ignore[union-attr]
    }
