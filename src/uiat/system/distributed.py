"""Rank and world size under `torchrun`, and the process group of a command."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from uiat.errors import Lost, UserError
from uiat.shapes import Int

T = TypeVar("T")
_NOTES: list[list[str]] = []  # of the contexts of `exchanges`


@dataclass(frozen=True)
class Rank:
    """The number of a process among all of them, and with it the images that it trains on or evaluates.

    Args:
        rank: number of this process, counted from 0.
        size: number of processes.

    Example:
        >>> Rank(rank=1, size=3).index(8).tolist()
        [1, 4, 7]
        >>> Rank(rank=1, size=2).rows(8)
        slice(4, 8, None)
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """True for the process that writes files and prints."""
        return self.rank == 0

    def index(self, n: int) -> Int[Tensor, "m"]:
        """Return the positions of this process's images among all n."""
        return torch.arange(self.rank, max(n, self.rank), self.size)

    def rows(self, count: int) -> slice:
        """Return this process's rows of a training batch of `count` images, a multiple of the number of processes."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def draw(self, like: Tensor, fill: Callable[[Tensor], Tensor]) -> Tensor:
        """Draw random numbers for images (B, ...), the very ones that they would get in a single process.

        Each process draws for the whole batch, so that the generators stay together, and takes its own rows.

        Args:
            like: this process's images; the numbers have their shape, device and dtype.
            fill: fills a tensor with random numbers and returns it.
        """
        if self.size == 1:
            return fill(torch.empty_like(like))
        whole = torch.empty_like(like.repeat(self.size, *[1] * (like.ndim - 1)))
        return fill(whole)[self.rows(len(whole))]

    def total(self, value: Tensor) -> Tensor:
        """Sum a tensor over the processes, in place."""
        if self.size > 1:
            _note("it sums values over the processes")
            dist.all_reduce(value)
        return value

    def mean(self, value: Tensor) -> Tensor:
        """Average a tensor over the processes, in place."""
        return self.total(value) if self.size == 1 else self.total(value).div_(self.size)

    def mean_each(self, values: Sequence[Tensor]) -> None:
        """Average each of the tensors over the processes, in place, in one reduction: cheaper than one of each."""
        if self.size == 1 or not values:
            return
        flat = self.mean(torch.cat([value.flatten() for value in values]))
        for value, mean in zip(values, flat.split([value.numel() for value in values]), strict=True):
            value.copy_(mean.view_as(value))

    def send_first(self, values: Iterable[Tensor]) -> None:
        """Give each process the first one's tensors, in place."""
        if self.size > 1:
            for value in values:
                dist.broadcast(value, 0)

    def concatenate(self, value: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of the ranks; each gives equally many."""
        if self.size == 1:
            return value
        _note("it gathers values of the processes")
        values = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(values, value.contiguous())
        return torch.cat(values)

    def path(self, path: Path | None) -> Path | None:
        """Return the file of this process: with several of them, ".rankR-of-W" is added to the name."""
        if path is None or self.size == 1:
            return path
        return path.with_name(f"{path.name}.rank{self.rank}-of-{self.size}")

    @classmethod
    def paths(cls, path: Path) -> dict["Rank", Path]:
        """Return the files that exist for a path, by rank and world size, whatever the number of processes; see `path`.

        Example:
            >>> Rank.paths(Path("missing"))
            {}
        """
        files = {cls(): path} if path.exists() else {}
        for other in sorted(path.parent.glob("*-of-*")):
            if match := re.fullmatch(re.escape(path.name) + r"\.rank(\d+)-of-(\d+)", other.name):
                files[cls(int(match[1]), int(match[2]))] = other
        return files

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of the ranks, to each of them; waits for the slowest."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def agree(self, work: Callable[[], T]) -> T:
        """Call `work` in every process and return this one's result; a UserError in one of them is raised in all.

        Raises:
            UserError: that of the first process that has one.
        """
        try:
            result, own_error = work(), None
        except UserError as error:
            result, own_error = None, error
        messages = self.gather(own_error and str(own_error))
        if (first := next((message for message in messages if message), None)) is not None:
            raise own_error or UserError(first)
        return result  # type: ignore[return-value]


@contextmanager
def exchanges() -> Iterator[list[str]]:
    """List what the processes exchange of tensors inside, which is the same in each of them.

    Example:
        >>> with exchanges() as found:
        ...     _ = current_rank().total(torch.ones(1))  # one process
        >>> found
        []
    """
    found = list[str]()
    _NOTES.append(found)
    try:
        yield found
    finally:
        _NOTES.pop()


def _note(text: str) -> None:
    for found in _NOTES:
        found.append(text)


def current_rank() -> Rank:
    """Return the rank of this process: 0 of 1, unless `torch.distributed` was initialised, as under `torchrun`.

    Example:
        >>> current_rank()
        Rank(rank=0, size=1)
    """
    if dist.is_available() and dist.is_initialized():
        return Rank(dist.get_rank(), dist.get_world_size())
    return Rank()


def local_device(name: str) -> str:
    """Return the device of this process: of several on a machine with GPUs, each has its own.

    Example:
        >>> local_device("cpu")
        'cpu'
    """
    if launched_processes() > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    return name


def launched_processes() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher.

    Example:
        >>> launched_processes()
        1
    """
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdigit() else 1


# Processes wait for the slowest, and all of them for the first while it does what only one need do.
PATIENCE = timedelta(days=7)
# What the backends say when a process that others wait for has gone.
_GONE = ("Connection closed", "Connection reset", "Broken pipe", "connection error", "NCCL", "remote process")


@contextmanager
def process_group() -> Iterator[Rank]:
    """Inside, `torch.distributed` is initialised if `torchrun` started several processes; yields this one's rank.

    Raises:
        UserError: the processes cannot find each other.
        Lost: another process ended while this one waited for it.

    Example:
        >>> with process_group() as rank:
        ...     rank.size
        1
    """
    if launched_processes() == 1 or dist.is_initialized():
        yield current_rank()
        return
    on_gpu = torch.cuda.is_available()
    try:
        if on_gpu:
            torch.cuda.set_device(local_device("cuda"))
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"WORLD_SIZE says that there are {launched_processes()} processes, but: {reason}") from None
    try:
        yield current_rank()
    except RuntimeError as error:
        if any(words in str(error) for words in _GONE):
            rank = current_rank()
            raise Lost(f"process {rank.rank} of {rank.size} lost another one, which has ended") from error
        raise
    finally:
        dist.destroy_process_group()
