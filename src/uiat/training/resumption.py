"""What a run takes over from the machine and the processes that it began in, and what it says if they are others."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from uiat.system.distributed import current_rank
from uiat.system.environment import describe_environment, find_changes

logger = logging.getLogger("uiat")


def own_sum(sums: Tensor) -> Tensor:
    """Return this process's sum of those in a checkpoint; their mean, if it is of another number of processes.

    Args:
        sums: one value a process (P,), or the one value of a checkpoint of version 0.1.

    Example:
        >>> own_sum(torch.tensor([3.0])), own_sum(torch.tensor([1.0, 2.0])), own_sum(torch.tensor(3.0))
        (tensor(3.), tensor(1.5000), tensor(3.))
    """
    rank = current_rank()
    return sums[rank.rank] if sums.ndim and len(sums) == rank.size else sums.mean()


def warn_of_changes(then: Mapping[str, Any], device: torch.device, *, processes: Any) -> None:
    """Warn, once a run, of what keeps its weights from being bit for bit those of an undisturbed run.

    Args:
        then: the environment that the run began in.
        device: the device of the model.
        processes: the number of processes that wrote the checkpoint.

    Example:
        >>> warn_of_changes(describe_environment(), torch.device("cpu"), processes=1)
    """
    rank = current_rank()
    if processes != rank.size:
        logger.warning(
            "this run began in %s processes and resumes in %d: BatchNorm sees other parts of a batch, and sums have "
            "another order, so its weights will not be bit for bit those of an undisturbed run",
            processes,
            rank.size,
        )
    changes = find_changes(then, describe_environment(), on_cpu=device.type == "cpu")
    if changes and rank.first:
        logger.warning(
            "this run began in another environment (%s), so its weights will not be bit for bit those of an "
            "undisturbed run",
            "; ".join(changes),
        )
