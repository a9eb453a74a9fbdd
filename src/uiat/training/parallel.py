"""Share the work of a training step: among processes, and among parts of a batch one after the other."""

import itertools
import warnings
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from uiat.speed.compile import compile_model
from uiat.system.distributed import current_rank


def data_parallel(model: nn.Module) -> nn.Module:
    """Return the model or, of several processes, a form of it whose gradients are the means over all of them.

    BatchNorm layers see this process's images; their statistics are averaged after each step, so that all processes
    hold one model.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> data_parallel(model) is model  # one process
        True
    """
    if current_rank().size == 1:
        return model
    with warnings.catch_warnings():
        # torch 2.14 has another name for this setting, which 2.9 does not know.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def training_form(model: nn.Module, *, compiled: bool, recorded: bool) -> nn.Module:
    """Return the form of a model that training passes take.

    DistributedDataParallel averages gradients while the backward pass goes on. Compiled or recorded passes gain more
    than that hides, and go without it: `average_gradients` follows them.

    Args:
        model: the model.
        compiled: compile it.
        recorded: its steps are recorded as a CUDA graph.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> training_form(model, compiled=False, recorded=True) is model
        True
    """
    if compiled:
        return compile_model(model)
    return model if recorded else data_parallel(model)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters over the processes, in place, in one reduction.

    All processes reduce the same list: a parameter that this one's images did not reach counts as zeros here, and has a
    gradient afterwards.

    Example:
        >>> average_gradients([])
    """
    if current_rank().size == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    current_rank().mean_each([p.grad for p in trained if p.grad is not None])


def start_alike(model: nn.Module) -> None:
    """Give each process the first one's weights and buffers.

    Example:
        >>> start_alike(nn.Linear(2, 2))  # one process
    """
    with torch.no_grad():
        current_rank().send_first([*model.parameters(), *model.buffers()])


def exchanges_within(model: nn.Module) -> bool:
    """True if layers of the model exchange values with other processes themselves.

    Example:
        >>> exchanges_within(nn.SyncBatchNorm(3))  # one process
        False
    """
    return current_rank().size > 1 and any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())


def split_rows(count: int, parts: int) -> list[slice]:
    """Split `count` rows into so many parts of nearly one size, none of them empty.

    Example:
        >>> split_rows(5, 2)
        [slice(0, 2, None), slice(2, 5, None)]
    """
    parts = min(parts, count)
    edges = [round(count * i / parts) for i in range(parts + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(edges)]
