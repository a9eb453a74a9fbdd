"""An evaluation split over the processes of `torch.distributed`: every world_size-th image each, and what all know."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor

from uiat.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The part of the images that a process judges.

    Args:
        rank: number of this process, from 0.
        size: processes.

    Example:
        >>> Share(rank=1, size=3).index(8).tolist()
        [1, 4, 7]
    """

    rank: int = 0
    size: int = 1

    def index(self, n: int) -> Int[Tensor, "m"]:
        """Positions of this process's images among all n."""
        return torch.arange(self.rank, max(n, self.rank), self.size)

    def path(self, path: Path | None) -> Path | None:
        """The file of this process: with several, ".rankR-of-W" comes last in the name."""
        if path is None or self.size == 1:
            return path
        return path.with_name(f"{path.name}.rank{self.rank}-of-{self.size}")

    def gather(self, value: T) -> list[T]:
        """What each process gives, in the order of the ranks, for all of them; waits for the slowest."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def agree(self, work: Callable[[], T]) -> T:
        """What `work` returns here; where the user's mistake stops one process, it stops all, not one after a wait.

        Raises:
            UserError: that of the first process that has one.
        """
        try:
            result, mistake = work(), None
        except UserError as error:
            result, mistake = None, error
        if (first := next((words for words in self.gather(mistake and str(mistake)) if words), None)) is not None:
            raise mistake or UserError(first)
        return result  # type: ignore[return-value]


def share() -> Share:
    """The share of this process: all images, unless `torch.distributed` was initialised, as under `torchrun`.

    Example:
        >>> share()
        Share(rank=0, size=1)
    """
    if dist.is_available() and dist.is_initialized():
        return Share(dist.get_rank(), dist.get_world_size())
    return Share()
