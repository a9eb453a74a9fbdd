"""Random changes of training images, a batch at a time on its device: pure functions of (seed, epoch, step).

All random numbers are drawn on the CPU for the whole batch of all processes, so that a batch is the same on every
device, with any number of workers and processes, and after a resume.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uiat.checks import Amount, AtMostOne, Between, Whole, checked_fields
from uiat.data.rand_augment import MOST_MAGNITUDE, rand_augment
from uiat.data.sampling import crop_flip, draw, generator
from uiat.errors import UserError, nearest
from uiat.shapes import Float, Int, Shaped
from uiat.system.distributed import Rank

Crop = Literal["none", "crop", "crop-flip", "resized-crop", "resized-crop-flip"]
AUGMENTATIONS: tuple[str, ...] = get_args(Crop)
_RATIOS, _ERASED_RATIOS = (3 / 4, 4 / 3), (0.3, 10 / 3)
_ERASED_AREA = (0.02, 1 / 3)
_TRIES = 10  # to draw a box that fits, as torchvision does
# Streams of random numbers of a step, beside the one of `draw`.
_RESIZED, _OPERATIONS, _ERASING, _MIXING = 0, 1, 2, 3


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are changed at random, in this order.

    Args:
        crop: "none"; "crop" (pad by zeros, cut out at random), "resized-crop" (cut a box of random size and shape out
            and resize it to the whole image; Szegedy et al. 2015), either with "-flip" (mirrored half of the time).
        least_area: smallest fraction of the image's area in a resized crop; the largest is 1.
        randaugment: number of random operations on each image (RandAugment; Cubuk et al. 2020), 0 for none.
        randaugment_magnitude: their strength, 0 to 30 (timm's m9 is 27 here).
        erasing: fraction of the images of which a box is painted in the image's mean colour (Zhong et al. 2020).
        mixup: alpha of MixUp (Zhang et al. 2018): pairs of images are blended by a share from Beta(alpha, alpha), one
            for the batch, and their labels with them. 0 for none.
        cutmix: alpha of CutMix (Yun et al. 2019): a box of an image comes from another, and its area's part of the
            label. 0 for none. With both, each batch takes one of them, half of the time each.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> Augmentation(crop="resized-crop-flip", cutmix=1.0).mixes
        True
    """

    crop: Crop = "none"
    least_area: Annotated[float, Between(0, 1, above=True)] = 0.08
    randaugment: Whole = 0
    randaugment_magnitude: Annotated[int, Between(0, MOST_MAGNITUDE)] = 9
    erasing: AtMostOne = 0.0
    mixup: Amount = 0.0
    cutmix: Amount = 0.0

    @property
    def mixes(self) -> bool:
        """True if pairs of images are mixed, so that labels are probabilities."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def keeps_pixels(self) -> bool:
        """True if each pixel is one of the image, at a place that `Batch.moves` tells, or empty."""
        return not (self.mixes or self.randaugment or self.crop.startswith("resized"))

    def check_batch(self, batch_size: int, rank: Rank) -> None:
        """Refuse a batch whose images cannot be mixed in pairs within each process.

        Raises:
            UserError: it is no multiple of twice the number of processes.

        Example:
            >>> Augmentation(mixup=0.8).check_batch(7, Rank(rank=0, size=1))
            Traceback (most recent call last):
            uiat.errors.UserError: MixUp and CutMix mix pairs: take a batch size that is a multiple of 2, not 7
        """
        if self.mixes and batch_size % (2 * rank.size):
            raise UserError(
                f"MixUp and CutMix mix pairs: take a batch size that is a multiple of {2 * rank.size}, not {batch_size}"
            )


def as_augmentation(augment: "str | Augmentation") -> Augmentation:
    """Return the augmentation of a name of `AUGMENTATIONS`, and another one as it is.

    Raises:
        UserError: no such name.

    Example:
        >>> as_augmentation("crop-flip") == Augmentation(crop="crop-flip")
        True
    """
    if isinstance(augment, Augmentation):
        return augment
    if augment not in AUGMENTATIONS:
        raise nearest("augmentation", augment, AUGMENTATIONS)
    return Augmentation(crop=augment)  # type: ignore[arg-type]


class Boxes(NamedTuple):
    """Boxes in images, (b,) each, in pixels."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def select(self, rows: slice, device: torch.device) -> "Boxes":
        """Return the boxes of some images, on a device."""
        return Boxes(*(each[rows].to(device, non_blocking=True) for each in self))


def change_images(
    images: Shaped[Tensor, "b c h w"],
    augmentation: Augmentation,
    *,
    rows: slice,
    batch: int,
    padding: int,
    key: tuple[int, int, int],
) -> tuple[Shaped[Tensor, "b c h w"], Int[Tensor, "3 b"] | None]:
    """Crop, mirror, change by RandAugment and erase, each image for itself.

    Args:
        images: (b, c, h, w), uint8 or float32 in [0, 1].
        augmentation: what is done.
        rows: the rows of the whole batch that the images are; the others are with other processes.
        batch: number of images in the batch of all processes, for which the random numbers are drawn.
        padding: number of zeros on each side before a crop, in pixels.
        key: (seed, epoch, step), which decides every random draw.

    Returns:
        The images, and how a crop by padding moved each of them, as in `Batch`; None where none was.

    Example:
        >>> x = torch.rand(2, 3, 8, 8)
        >>> changed, _ = change_images(
        ...     x, Augmentation(erasing=1.0), rows=slice(0, 2), batch=2, padding=4, key=(0, 0, 0)
        ... )
        >>> bool((changed != x).any())
        True
    """
    (h, w), moves = images.shape[2:], None
    if augmentation.crop in ("crop", "crop-flip"):
        # non_blocking, because a plain copy would wait for the device.
        drawn = draw(batch, augmentation.crop, padding=padding, key=key)[:, rows]
        choice = drawn.to(images.device, non_blocking=True)
        images = crop_flip(images, choice, padding=padding)
        moves = torch.cat([choice[:2] - padding, choice[2:]])
    elif augmentation.crop != "none":
        random = generator(*key, _RESIZED)
        boxes = draw_boxes(batch, h, w, area=(augmentation.least_area, 1.0), ratios=_RATIOS, random=random)
        mirror = torch.rand(batch, generator=random) < (0.5 if augmentation.crop.endswith("flip") else 0.0)
        boxes, here = boxes.select(rows, images.device), mirror[rows].to(images.device, non_blocking=True)
        images = resize_boxes(images, boxes, mirror=here)
    if augmentation.randaugment:
        how = {"operations": augmentation.randaugment, "magnitude": augmentation.randaugment_magnitude}
        images = rand_augment(images, **how, rows=rows, batch=batch, random=generator(*key, _OPERATIONS))
    if augmentation.erasing:
        random = generator(*key, _ERASING)
        boxes = draw_boxes(batch, h, w, area=_ERASED_AREA, ratios=_ERASED_RATIOS, random=random)
        left_whole = torch.rand(batch, generator=random) >= augmentation.erasing
        boxes = boxes._replace(height=boxes.height.masked_fill(left_whole, 0))
        images = erase_boxes(images, boxes.select(rows, images.device))
    return images, moves


def draw_boxes(
    n: int, h: int, w: int, *, area: tuple[float, float], ratios: tuple[float, float], random: torch.Generator
) -> Boxes:
    """Draw a box for each of n images: area uniform, width to height uniform in its logarithm, at any place in it.

    An image for which no box of `_TRIES` fits gets the whole image, as in a narrow one with a wide box.

    Args:
        n: number of images.
        h: height of an image.
        w: width of an image.
        area: smallest and largest fraction of the image's area.
        ratios: smallest and largest width in heights.
        random: where the numbers come from.

    Example:
        >>> boxes = draw_boxes(5, 8, 8, area=(0.25, 1.0), ratios=(1.0, 1.0), random=generator(0))
        >>> bool((boxes.height == boxes.width).all()), bool((boxes.top + boxes.height <= 8).all())
        (True, True)
    """
    u = torch.rand(4, _TRIES, n, generator=random, dtype=torch.float64)
    pixels = h * w * (area[0] + (area[1] - area[0]) * u[0])
    low, high = (math.log(ratio) for ratio in ratios)
    ratio = torch.exp(low + (high - low) * u[1])
    widths, heights = (pixels * ratio).sqrt().round().long(), (pixels / ratio).sqrt().round().long()
    fits = (widths > 0) & (widths <= w) & (heights > 0) & (heights <= h)
    first = fits.byte().argmax(dim=0, keepdim=True)
    some = fits.any(dim=0)
    width = torch.where(some, widths.gather(0, first)[0], w)
    height = torch.where(some, heights.gather(0, first)[0], h)
    top = (u[2, 0] * (h - height + 1)).long()
    left = (u[3, 0] * (w - width + 1)).long()
    return Boxes(top, left, height, width)


def resize_boxes(
    images: Shaped[Tensor, "b c h w"], boxes: Boxes, *, mirror: Shaped[Tensor, "b"]
) -> Shaped[Tensor, "b c h w"]:
    """Cut a box out of each image and resize it to the whole, in one pass: torchvision's `resized_crop`, batched.

    Boxes are enlarged and never made smaller, so that bilinear interpolation needs no antialiasing.

    Args:
        images: uint8 or float, (b, c, h, w).
        boxes: a box in each image.
        mirror: True for the images to mirror, (b,).

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> whole = Boxes(*(torch.tensor([v]) for v in (0, 0, 8, 8)))
        >>> torch.allclose(resize_boxes(x, whole, mirror=torch.tensor([False])), x, atol=1e-6)
        True
    """
    b, _, h, w = images.shape

    def places(start: Tensor, length: Tensor, side: int) -> Tensor:
        """Return where in the image the middle of each pixel of the result lies, (b, side), held inside the box."""
        middle = (torch.arange(side, device=images.device) + 0.5) * (length[:, None] / side) - 0.5
        return start[:, None] + middle.clamp_min(0).minimum(length[:, None] - 1)

    rows, columns = places(boxes.top, boxes.height, h), places(boxes.left, boxes.width, w)
    columns = torch.where(mirror[:, None], columns.flip(1), columns)
    grid = torch.stack(
        [
            (2 * columns / max(w - 1, 1) - 1)[:, None, :].expand(b, h, w),
            (2 * rows / max(h - 1, 1) - 1)[:, :, None].expand(b, h, w),
        ],
        dim=3,
    )
    result = F.grid_sample(images.float(), grid.float(), mode="bilinear", padding_mode="border", align_corners=True)
    return result.round().to(torch.uint8) if images.dtype == torch.uint8 else result.clamp(0, 1)


def erase_boxes(images: Shaped[Tensor, "b c h w"], boxes: Boxes) -> Shaped[Tensor, "b c h w"]:
    """Paint a box of each image in the image's mean colour; one of height 0 is none.

    Example:
        >>> x = torch.tensor([[[[0.0, 1.0]]]])
        >>> erase_boxes(x, Boxes(*(torch.tensor([v]) for v in (0, 1, 1, 1)))).tolist()
        [[[[0.0, 0.5]]]]
    """
    _, _, h, w = images.shape

    def inside(start: Tensor, length: Tensor, side: int) -> Tensor:
        place = torch.arange(side, device=images.device)
        return (place >= start[:, None]) & (place < (start + length)[:, None])

    box = inside(boxes.top, boxes.height, h)[:, None, :, None] & inside(boxes.left, boxes.width, w)[:, None, None, :]
    mean = images.float().mean(dim=(2, 3), keepdim=True)
    mean = mean.round() if images.dtype == torch.uint8 else mean
    return torch.where(box, mean.to(images.dtype), images)


def mix_pairs(
    x: Float[Tensor, "b c h w"],
    y: Int[Tensor, "b"],
    augmentation: Augmentation,
    *,
    num_classes: int,
    key: tuple[int, int, int],
) -> tuple[Float[Tensor, "b c h w"], Int[Tensor, "b"], Float[Tensor, "b k"]]:
    """Mix each image with its neighbour in the batch, by MixUp or CutMix, and their labels with them.

    Neighbours 2i and 2i + 1 are as random a pair as any, since the order of a batch is, and lie in one process.

    Args:
        x: images in [0, 1].
        y: labels.
        augmentation: alpha of MixUp and of CutMix.
        num_classes: K.
        key: (seed, epoch, step), which decides every random draw.

    Returns:
        Images; the label of the larger share of each, of equal shares its own; probabilities (b, K).

    Example:
        >>> x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
        >>> mixed, largest, soft = mix_pairs(x, y, Augmentation(mixup=1.0), num_classes=2, key=(0, 0, 0))
        >>> bool((soft.argmax(1) == largest).all()), soft.sum(1).tolist()
        (True, [1.0, 1.0])
    """
    numbers = np.random.default_rng([len(key) + 1, *key, _MIXING])
    both = augmentation.mixup > 0 and augmentation.cutmix > 0
    cuts = augmentation.cutmix > 0 and (not both or numbers.random() < 0.5)
    alpha = augmentation.cutmix if cuts else augmentation.mixup
    share = float(numbers.beta(alpha, alpha))
    b, _, h, w = x.shape
    partner = (torch.arange(b, device=x.device) ^ 1).clamp_max(b - 1)  # the last of an odd number is its own
    if cuts:
        # Yun et al. 2019, section 3.1: sides of h and w times sqrt(1 - share), around any pixel, cut at the edges.
        half = 0.5 * math.sqrt(1 - share)
        middle = numbers.integers(0, (h, w))
        (top, left), (bottom, right) = (
            [min(max(int(m + sign * half * side), 0), side) for m, side in zip(middle, (h, w), strict=True)]
            for sign in (-1, 1)
        )
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x[partner, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (h * w)
    else:
        mixed = share * x + (1 - share) * x[partner]
    own, other = (F.one_hot(labels, num_classes).to(x.dtype) for labels in (y, y[partner]))
    return mixed, y if share >= 0.5 else y[partner], share * own + (1 - share) * other
