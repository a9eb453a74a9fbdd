"""Load batches of a set that lies whole on the training device; shuffle, crop, mirror and convert them there."""

from collections.abc import Iterator

import torch
from torch import Tensor

from uiat.checks import Count, Seed, checked, checked_fields
from uiat.data.augmentation import Augmentation, as_augmentation, change_images, mix_pairs
from uiat.data.extra import ExtraImages, mix
from uiat.data.image_set import Batch, ImageSet, as_float
from uiat.data.sampling import BatchPlan, batch_count, check_divisible, check_sampling, check_start
from uiat.shapes import Int, Shaped
from uiat.system.distributed import Rank, current_rank


@checked_fields
class Loader:
    """Loads batches of an `ImageSet`, which is kept as one tensor on the device.

    The contents of a batch depend on (seed, epoch, step) alone, so that resumed training sees the very same bits.

    Args:
        data: the training set.
        batch_size: number of examples in a batch, of all processes together.
        augment: an `Augmentation`, or the name of one that crops and mirrors alone, such as "crop-flip".
        device: the device on which the set is kept and batches are made.
        seed: seed of the shuffling and the augmentation.
        shuffle: True to visit the set in a new order each epoch.
        drop_last: True to leave out a last batch that is smaller than the rest.
        padding: number of zeros on each side before cropping, in pixels.
        channels_last: True for x in torch.channels_last memory format.
        rank: the process whose rows of each batch are loaded; by default this one, see `current_rank`.
        extra: images to add to those of the set, which stay where they are; see `uiat.data.open_extra`.
        extra_share: fraction of each batch that they are; see `uiat.data.sampling.BatchPlan`.

    Raises:
        UserError: a batch larger than the set, or that the processes cannot share evenly; an unknown augmentation, a
            negative seed or padding.

    Example:
        >>> from uiat.data import load
        >>> loader = Loader(load("digits", "train"), batch_size=128, augment="crop", padding=1)
        >>> batch = next(loader.epoch(0))
        >>> len(loader), batch.x.shape
        (9, torch.Size([128, 1, 8, 8]))
    """

    def __init__(
        self,
        data: ImageSet,
        *,
        batch_size: Count,
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
        self.device = torch.device(device)
        self.images = data.images.to(self.device)
        self.labels = data.labels.to(self.device)
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
        """Yield the batches of an epoch from step `start` on; the skipped ones cost nothing."""
        check_start(start, len(self))
        order = self.plan.order(epoch)
        if self.extra is None:
            order = order.to(self.device, non_blocking=True)
        return (self._batch(order, epoch, step) for step in range(start, len(self)))

    def _batch(self, order: Int[Tensor, "n"], epoch: int, step: int) -> Batch:
        whole = self.plan.positions(epoch, step, order)
        rows = self.rank.rows(len(whole))
        index = whole[rows]
        images, labels = self._take(index)
        return make_batch(
            images,
            labels,
            index.to(self.device, non_blocking=True),
            num_classes=self.num_classes,
            rows=rows,
            batch=len(whole),
            augment=self.augment,
            padding=self.padding,
            key=(self.seed, epoch, step),
            channels_last=self.channels_last,
        )

    def _take(self, index: Int[Tensor, "b"]) -> tuple[Tensor, Tensor]:
        """Return the images and labels at some positions, on the device."""
        own = index if self.extra is None else index[index < self.plan.own].to(self.device, non_blocking=True)
        pair = self.images.index_select(0, own), self.labels.index_select(0, own)
        return pair if self.extra is None else mix(pair, self.extra, index, first=self.plan.own, device=self.device)


def make_batch(
    images: Shaped[Tensor, "b c h w"],
    labels: Int[Tensor, "b"],
    index: Int[Tensor, "b"],
    *,
    num_classes: int,
    rows: slice,
    batch: int,
    augment: Augmentation,
    padding: int,
    key: tuple[int, int, int],
    channels_last: bool,
) -> Batch:
    """Augment images on their device and convert them to float32 in [0, 1]; uint8 moves a quarter of the bytes.

    Args:
        images: (b, c, h, w), uint8 or float32 in [0, 1].
        labels: labels, int64.
        index: position of each image in the training set.
        num_classes: K.
        rows: the rows of the whole batch that they are; the others are with other processes.
        batch: number of images in the batch of all processes, for which the random numbers are drawn.
        augment: what is done at random.
        padding: as in `Loader`.
        key: (seed, epoch, step), which decides every random draw.
        channels_last: as in `Loader`.

    Example:
        >>> options = {"padding": 4, "key": (0, 0, 0), "channels_last": False, "num_classes": 2}
        >>> x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
        >>> make_batch(
        ...     x, y, y, rows=slice(0, 2), batch=2, augment=Augmentation(cutmix=1.0), **options
        ... ).soft_labels.shape
        torch.Size([2, 2])
    """
    changed, moves = change_images(images, augment, rows=rows, batch=batch, padding=padding, key=key)
    x = as_float(changed)
    soft = None
    if augment.mixes:
        x, labels, soft = mix_pairs(x, labels, augment, num_classes=num_classes, key=key)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return Batch(x, labels, index, moves, soft_labels=soft)
