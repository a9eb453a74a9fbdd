"""Load batches of an image folder too large for memory: decoded by workers, augmented on the device."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from uiat.checks import Count, Seed, checked, checked_fields
from uiat.data.augmentation import Augmentation, as_augmentation
from uiat.data.extra import ExtraImages, mix
from uiat.data.image_folder import Folder
from uiat.data.image_set import Batch, ImageSet
from uiat.data.loader import Loader, make_batch
from uiat.data.sampling import BatchPlan, batch_count, check_divisible, check_sampling, check_start
from uiat.errors import UserError
from uiat.shapes import Int
from uiat.system.distributed import Rank, current_rank

GIBIBYTE = 1 << 30


@checked_fields
class StreamingLoader:
    """Loads the batches that a `Loader` would give of the decoded set; worker processes read the files.

    The arguments not listed are those of `Loader`.

    Args:
        data: the image files.
        num_workers: number of processes that decode; 0 decodes in this one; by default one a core, at most 8.

    Raises:
        UserError: as in `Loader`; while iterating, a file that cannot be read.

    Example:
        >>> folder = Folder(("a.png", "b.png"), torch.tensor([0, 1]), ("a", "b"), "example", (3, 32, 32), 32)
        >>> len(StreamingLoader(folder, batch_size=1, num_workers=0))
        2
    """

    def __init__(
        self,
        data: Folder,
        *,
        batch_size: Count,
        num_workers: int | None = None,
        augment: str | Augmentation = "none",
        device: str | torch.device = "cpu",
        seed: Seed = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        padding: int = 4,
        channels_last: bool = False,
        rank: Rank | None = None,
        extra: ExtraImages | None = None,
        extra_share: float = 0.0,
    ) -> None:
        self.rank = rank or current_rank()
        check_divisible(batch_size, self.rank)
        check_sampling(len(data), batch_size=batch_size, seed=seed, padding=padding)
        self.augment = as_augmentation(augment)
        self.augment.check_batch(batch_size, self.rank)
        if num_workers is not None and num_workers < 0:
            raise UserError(f"number of workers must not be negative, but is {num_workers}; 0 reads in this process")
        self.data, self.device = data, torch.device(device)
        self.num_workers = _usable_cores() if num_workers is None else num_workers
        self.extra, count = extra, 0 if extra is None else len(extra)
        self.plan = BatchPlan(len(data), batch_size, seed, shuffle, count, extra_share)
        self.num_classes, self.image_shape, self.num_examples = data.num_classes, data.image_shape, len(data) + count
        self.batch_size, self.seed = batch_size, seed
        self.drop_last, self.padding, self.channels_last = drop_last, padding, channels_last

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return batch_count(self.plan.own, self.batch_size, drop_last=self.drop_last)

    @checked
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on; files of the skipped ones are not opened."""
        check_start(start, len(self))
        order = self.plan.order(epoch)
        wholes = [self.plan.positions(epoch, step, order) for step in range(start, len(self))]
        return self._stream([whole[self.rank.rows(len(whole))] for whole in wholes], epoch, start)

    def _stream(self, indices: Sequence[Int[Tensor, "b"]], epoch: int, start: int) -> Iterator[Batch]:
        for step, (index, images, labels) in enumerate(self._read(indices), start):
            yield make_batch(
                images,
                labels,
                index.to(self.device, non_blocking=True),
                num_classes=self.num_classes,
                rows=self.rank.rows(count := len(index) * self.rank.size),
                batch=count,
                augment=self.augment,
                padding=self.padding,
                key=(self.seed, epoch, step),
                channels_last=self.channels_last,
            )

    def _read(self, indices: Sequence[Int[Tensor, "b"]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (index, images, labels) of batches; index on the CPU, the rest on the device."""
        dataset: Any = self.data  # map-style: it has __getitem__ and __len__, which is all that DataLoader uses
        own_rows = [index[index < self.plan.own].tolist() for index in indices]
        stream = DataLoader(
            dataset,
            batch_sampler=[rows for rows in own_rows if rows],
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or it would draw from the global one, and change what training draws next
        )
        batches = _plain_errors(stream)
        nothing = torch.empty(0, *self.image_shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
        for index, rows in zip(indices, own_rows, strict=True):
            pair = next(batches)[:2] if rows else nothing
            images, labels = (t.to(self.device, non_blocking=True) for t in pair)
            if self.extra is not None:
                images, labels = mix((images, labels), self.extra, index, first=self.plan.own, device=self.device)
            yield index, images, labels


def _plain_errors(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches; reduce an error of a worker, to which torch adds the traceback there, to its one line."""
    try:
        yield from batches
    except UserError as fault:
        raise UserError(str(fault).strip().splitlines()[-1].split("UserError: ")[-1]) from fault


@checked
def loader_for(
    data: ImageSet | Folder,
    *,
    batch_size: Count,
    memory_limit: int = 4 * GIBIBYTE,
    num_workers: int | None = None,
    **options: Any,
) -> Loader | StreamingLoader:
    """Return a loader: in memory if the decoded set takes at most `memory_limit` bytes, streaming otherwise.

    Args:
        data: a set from `open_data` or `split_validation`.
        batch_size: number of examples in a batch, of all processes together.
        memory_limit: largest size of a decoded image folder that is kept in memory, in bytes.
        num_workers: number of processes of a streaming loader.
        options: further arguments of `Loader`.

    Example:
        >>> from uiat.data import load
        >>> type(loader_for(load("digits", "train"), batch_size=64)).__name__
        'Loader'
    """
    if isinstance(data, Folder) and data.num_bytes > memory_limit:
        return StreamingLoader(data, batch_size=batch_size, num_workers=num_workers, **options)
    return Loader(data.decode(), batch_size=batch_size, **options)


def _usable_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)
