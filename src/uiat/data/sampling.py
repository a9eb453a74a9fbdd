"""The order of examples and the random crops and flips: pure functions of (seed, epoch, step)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uiat.errors import UserError
from uiat.shapes import Int, Shaped
from uiat.system.distributed import Rank

_EXTRA = 4  # the stream of random numbers of a step that draws extra images; 0 to 3 are those of the augmentations


def generator(*key: int) -> torch.Generator:
    """Return a CPU random generator whose stream depends on the key alone, such as (seed, epoch, step).

    Example:
        >>> int(torch.randint(100, (), generator=generator(0, 1))) == int(
        ...     torch.randint(100, (), generator=generator(0, 1))
        ... )
        True
    """
    # Neighbouring seeds of torch's generator start alike; SeedSequence mixes the key into an unrelated one.
    # The length goes in as well: without it (1,) and (1, 0) are the same key.
    mixed = np.random.SeedSequence([len(key), *key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed))


def permutation(n: int, seed: int, *, epoch: int, shuffle: bool = True) -> Int[Tensor, "n"]:
    """Return the order in which an epoch visits n examples.

    Example:
        >>> permutation(3, 0, epoch=5, shuffle=False)
        tensor([0, 1, 2])
    """
    return torch.randperm(n, generator=generator(seed, epoch)) if shuffle else torch.arange(n)


def check_sampling(n: int, *, batch_size: int, seed: int, padding: int) -> None:
    """Refuse settings that no loader can serve.

    Raises:
        UserError: a batch that is empty or larger than the set, a negative seed or padding.

    Example:
        >>> check_sampling(10, batch_size=2, seed=0, padding=4)
    """
    if batch_size < 1:
        raise UserError(f"batch size must be at least 1, not {batch_size}")
    if batch_size > n:
        raise UserError(
            f"batch size {batch_size} is larger than the set of {n} images; use a batch size of at most {n}"
        )
    if seed < 0 or padding < 0:
        raise UserError(f"seed and padding must not be negative (seed {seed}, padding {padding})")


def check_divisible(batch_size: int, rank: Rank) -> None:
    """Refuse a batch size that the number of processes does not divide.

    Raises:
        UserError: it is no multiple of their number, so that some would hold more images than others.

    Example:
        >>> check_divisible(128, Rank(rank=0, size=3))
        Traceback (most recent call last):
        uiat.errors.UserError: 3 processes cannot share a batch of 128 images evenly: take a multiple of 3
    """
    if batch_size % rank.size:
        raise UserError(
            f"{rank.size} processes cannot share a batch of {batch_size} images evenly: take a multiple of {rank.size}"
        )


def check_start(start: int, batches: int) -> None:
    """Refuse to begin an epoch at a step that it does not have.

    Raises:
        UserError: start is negative or past the end.

    Example:
        >>> check_start(3, 3)  # right at the end is no mistake: that epoch was complete
    """
    if not 0 <= start <= batches:
        raise UserError(f"cannot start at step {start} of an epoch of {batches} batches")


def batch_count(n: int, batch_size: int, *, drop_last: bool) -> int:
    """Return the number of batches in an epoch.

    Example:
        >>> batch_count(10, 4, drop_last=True), batch_count(10, 4, drop_last=False)
        (2, 3)
    """
    return n // batch_size if drop_last else -(-n // batch_size)


@dataclass(frozen=True)
class BatchPlan:
    """Which examples each batch of an epoch has: a part of the epoch's order and, with extra images, some of these.

    With extra images an epoch has as many batches as without, as in the papers that train on generated images (Gowal et
    al. 2021; Wang et al. 2023): so it visits the fraction 1 - share of the training set, another one in each epoch,
    and each image at most once. The extra ones are drawn anew for each batch, none of them twice in it, because state
    that is kept for an image is written once a step; and its rows are mixed, so that each process has some of both.

    Args:
        own: number of images in the training set.
        batch_size: number of examples in a batch.
        seed: seed of the order and the draws.
        shuffle: True to visit the set in a new order each epoch.
        extra: number of extra images, whose positions follow those of the training set.
        share: fraction of a batch that they are, rounded down to whole images.

    Raises:
        UserError: the share is no whole image of a batch, or all of it, or more than there are extra images.

    Example:
        >>> plan = BatchPlan(100, 10, seed=0, extra=50, share=0.7)
        >>> (plan.positions(0, 0) >= 100).sum()
        tensor(7)
    """

    own: int
    batch_size: int
    seed: int
    shuffle: bool = True
    extra: int = 0
    share: float = 0.0

    def __post_init__(self) -> None:
        if self.extra and not 1 <= self.extra_in_batch < self.batch_size:
            raise UserError(
                f"a share of {self.share:g} of a batch of {self.batch_size} is {self.extra_in_batch} extra images; "
                f"choose one that gives 1 .. {self.batch_size - 1}"
            )
        if self.extra < self.extra_in_batch:
            raise UserError(
                f"a share of {self.share:g} of a batch of {self.batch_size} is {self.extra_in_batch} extra images, but "
                f"there are {self.extra}: choose a smaller share, or give more images"
            )

    @property
    def extra_in_batch(self) -> int:
        """Number of extra images in a batch."""
        return int(self.batch_size * self.share + 1e-9) if self.extra else 0  # 29, and not 28, of 100 * 0.29

    def order(self, epoch: int) -> Int[Tensor, "n"]:
        """Return the order in which an epoch visits the training set."""
        return permutation(self.own, self.seed, epoch=epoch, shuffle=self.shuffle)

    def positions(self, epoch: int, step: int, order: Int[Tensor, "n"] | None = None) -> Int[Tensor, "b"]:
        """Return the position of each example of a batch, of all processes together.

        Args:
            epoch: number of the epoch, from 0.
            step: number of the batch, from 0.
            order: that of the epoch, where it is at hand; on the CPU if there are extra images.
        """
        each = self.batch_size - self.extra_in_batch
        own = (self.order(epoch) if order is None else order)[step * each : (step + 1) * each]
        if not self.extra:
            return own
        random = generator(self.seed, epoch, step, _EXTRA)
        drawn = self.own + draw_distinct(self.extra, self.extra_in_batch, random)
        whole = torch.cat([own, drawn])
        return whole[torch.randperm(len(whole), generator=random)]


def draw_distinct(n: int, count: int, random: torch.Generator) -> Int[Tensor, "m"]:
    """Draw `count` different numbers below n, in no particular order, without making all n where they are many.

    Example:
        >>> sorted(draw_distinct(3, 3, generator(0)).tolist())
        [0, 1, 2]
    """
    if n <= 64 * count:
        return torch.randperm(n, generator=random)[:count]
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:  # once, but for one time in more than there are steps
        found = torch.randint(n, (2 * count,), generator=random).unique()
    return found[torch.randperm(len(found), generator=random)[:count]]


def draw(n: int, augment: str, *, padding: int, key: tuple[int, ...]) -> Int[Tensor, "3 n"]:
    """Draw for each of n images the rows and columns to move by, 0 .. 2 * padding, and 1 to mirror it or 0.

    Example:
        >>> draw(2, "crop", padding=4, key=(0, 1, 2)).shape
        torch.Size([3, 2])
    """
    random = generator(*key)
    shift = torch.randint(0, 2 * padding + 1, (2, n), generator=random)
    mirror = torch.randint(0, 2, (1, n), generator=random) if augment == "crop-flip" else torch.zeros(1, n).long()
    return torch.cat([shift, mirror])


def crop_flip(
    images: Shaped[Tensor, "b c h w"], choice: Int[Tensor, "3 b"], *, padding: int
) -> Shaped[Tensor, "b c h w"]:
    """Pad images by zeros, cut each out at its own place and mirror some of them, in one gather on the device.

    Args:
        images: uint8 or float, (b, c, h, w); uint8 is the faster.
        choice: rows, columns and mirroring from `draw`, on the device of the images.
        padding: number of zeros added on each side, in pixels.

    Example:
        >>> still = torch.tensor([[4], [4], [0]])  # the middle of the padded image, unmirrored
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.equal(crop_flip(x, still, padding=4), x)
        True
    """
    b, c, h, w = images.shape
    down, right, mirror = choice[:, :, None]
    rows = down + torch.arange(h, device=images.device)
    across = torch.arange(w, device=images.device).expand(b, w)
    columns = right + torch.where(mirror.bool(), w - 1 - across, across)
    # One flat index a pixel, shared by the channels: about three times faster on a CPU than indexing by four tensors.
    flat = rows[:, :, None] * (w + 2 * padding) + columns[:, None, :]
    padded = F.pad(images, (padding,) * 4).flatten(2)
    return padded.gather(2, flat.view(b, 1, h * w).expand(b, c, h * w)).view(b, c, h, w)


def move(images: Shaped[Tensor, "b c h w"], moves: Int[Tensor, "3 b"]) -> Shaped[Tensor, "b c h w"]:
    """Move values that lie on images as augmentation moved those (`Batch.moves`); 0 where there was no image.

    Example:
        >>> move(torch.tensor([[[[1, 2, 3]]]]), torch.tensor([[0], [1], [0]])).tolist()
        [[[[2, 3, 0]]]]
    """
    (_, _, h, w), (down, right, mirror) = images.shape, moves[:, :, None]
    across = torch.arange(w, device=images.device)
    rows = down + torch.arange(h, device=images.device)
    columns = right + torch.where(mirror.bool(), w - 1 - across, across)
    values, inside = _take(images, rows, columns)
    return values * inside


def move_back(
    moved: Shaped[Tensor, "b c h w"], moves: Int[Tensor, "3 b"], *, before: Shaped[Tensor, "b c h w"]
) -> Shaped[Tensor, "b c h w"]:
    """Move values back to where they lie on the images of the set, the inverse of `move`.

    Args:
        moved: values on the augmented images.
        moves: as in `Batch`.
        before: values on the images of the set, kept where augmentation has cut them off.

    Example:
        >>> moves, before = torch.tensor([[0], [1], [0]]), torch.tensor([[[[1, 2, 3]]]])
        >>> move_back(torch.tensor([[[[7, 8, 9]]]]), moves, before=before).tolist()
        [[[[1, 7, 8]]]]
    """
    (_, _, h, w), (down, right, mirror) = moved.shape, moves[:, :, None]
    rows = torch.arange(h, device=moved.device) - down
    columns = torch.arange(w, device=moved.device) - right
    values, inside = _take(moved, rows, torch.where(mirror.bool(), w - 1 - columns, columns))
    return torch.where(inside, values, before)


def _take(images: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Gather pixels by row (b, h) and column (b, w), and say which are on the image; the others are any value."""
    b, c, h, w = images.shape
    flat = rows.clamp(0, h - 1)[:, :, None] * w + columns.clamp(0, w - 1)[:, None, :]
    values = images.flatten(2).gather(2, flat.view(b, 1, h * w).expand(b, c, h * w)).view(b, c, h, w)
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    return values, inside[:, None]
