"""Labelled images in memory, checked once, and the batches that training draws from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uiat.checks import Classes, checked, checked_fields
from uiat.data.notices import warn_once
from uiat.errors import UserError
from uiat.shapes import Float, Int, Shaped

MOST_CLASSES = 1_000_000
TOLERANCE = 1e-6  # how far rounding, as in resizing, may carry a float image out of [0, 1]


@checked_fields
@dataclass(frozen=True)
class Batch:
    """One batch of a training set: images in [0, 1], labels, and the position of each example in the set.

    Args:
        x: images in [0, 1], (b, c, h, w).
        y: labels, int64, (b,); of mixed images, that of the larger share.
        index: position of each example in the training set, int64, (b,); state kept per example is addressed by it, and
            nothing else needs it.
        moves: how each image was moved from where it is in the set, int64, (3, b): rows and columns cut off at its top
            and left (negative: added), and 1 where it was mirrored after that; None where none was.
        x_start: images that an attack with `start="memory"` starts from, (b, c, h, w); the training step fills it in.
        soft_labels: labels as probabilities, (b, k), of images that MixUp or CutMix has mixed; None for others.

    Example:
        >>> batch = Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), torch.tensor([7, 5]))
        >>> batch.x.shape
        torch.Size([2, 3, 8, 8])
    """

    x: Float[Tensor, "b c h w"]
    y: Int[Tensor, "b"]
    index: Int[Tensor, "b"] | None = None
    moves: Int[Tensor, "3 b"] | None = None
    x_start: Float[Tensor, "b c h w"] | None = None
    soft_labels: Float[Tensor, "b k"] | None = None

    def __repr__(self) -> str:
        return f"Batch of {len(self.y)} images {tuple(self.x.shape[1:])}"

    def __getitem__(self, rows: slice) -> "Batch":
        """Return some rows of the batch."""
        index, start, soft = (
            None if each is None else each[rows] for each in (self.index, self.x_start, self.soft_labels)
        )
        moves = None if self.moves is None else self.moves[:, rows]
        return Batch(self.x[rows], self.y[rows], index, moves, start, soft)

    def apply(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with each of its tensors changed by a function."""
        optional = (self.index, self.moves, self.x_start, self.soft_labels)
        return Batch(change(self.x), change(self.y), *(None if each is None else change(each) for each in optional))


@checked_fields
@dataclass(frozen=True)
class ImageSet:
    """Labelled images in one tensor, which passed `check_images`.

    Args:
        images: (n, c, h, w), uint8 or float32 in [0, 1].
        labels: int64, (n,), each in 0 .. len(classes) - 1.
        classes: the name of each class.
        name: what the set is called in reports.
        partial: True for a part of a larger set, in which a class may be absent.

    Raises:
        UserError: see `check_images`.

    Example:
        >>> data = ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), ("zero", "one"), "example")
        >>> len(data), data.num_classes, data.image_shape
        (2, 2, (1, 8, 8))
    """

    images: Shaped[Tensor, "n c h w"]
    labels: Shaped[Tensor, "n"]
    classes: tuple[str, ...]
    name: str
    partial: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_images(self)

    def __repr__(self) -> str:
        return describe_set(self, f"images {self.image_shape} of {str(self.images.dtype).removeprefix('torch.')}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Number of classes, those absent from this part of the set included."""
        return len(self.classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of each image."""
        c, h, w = self.images.shape[1:]
        return (c, h, w)

    def subset(self, index: Sequence[int] | Tensor) -> "ImageSet":
        """Return the examples at `index`, in that order; the classes stay those of the whole set."""
        where = torch.as_tensor(index, dtype=torch.int64, device=self.images.device)
        return replace(self, images=self.images[where], labels=self.labels[where], partial=True)

    def decode(self) -> "ImageSet":
        """Return the set itself; a `Folder` loads its files here, so that both kinds have the method."""
        return self


def describe_set(data: Any, images: str) -> str:
    """Describe a set in a line: its name, its images, its classes.

    Example:
        >>> ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), ("zero", "one"), "example")
        ImageSet example: 2 images (1, 8, 8) of float32, 2 classes (zero, one)
    """
    shown = ", ".join(data.classes[:5]) + (", ..." if len(data.classes) > 5 else "")
    return f"{type(data).__name__} {data.name}: {len(data):,} {images}, {len(data.classes)} classes ({shown})"


@checked
def check_images(data: ImageSet) -> None:
    """Refuse a set that would train badly or crash late, saying what is wrong with it and what to do.

    Raises:
        UserError: the set is empty; shapes or types are wrong; an image holds NaN or leaves [0, 1]; a label is out of
            range; a class has no image (except in a part of a set).

    Example:
        >>> check_images(ImageSet(torch.ones(1, 1, 8, 8), torch.tensor([0]), ("one",), "example"))
    """
    _check_images(data.images, data.name)
    _check_labels(data.labels, len(data.images), len(data.classes), data.name)
    present = torch.bincount(data.labels, minlength=len(data.classes)) > 0
    if not data.partial and not bool(present.all()):
        absent = [name for name, here in zip(data.classes, present.tolist(), strict=True) if not here]
        shown = ", ".join(map(repr, absent[:5])) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        raise UserError(f"{data.name}: no image of class {shown}; add images of it or drop the class from the labels")


def _check_images(images: Tensor, name: str) -> None:
    if images.ndim != 4:
        raise UserError(f"{name}: images must have shape (n, channels, height, width), not {tuple(images.shape)}")
    if images.numel() == 0:
        raise UserError(f"{name}: the set is empty (shape {tuple(images.shape)}); give it at least one image")
    if images.dtype not in (torch.uint8, torch.float32):
        raise UserError(f"{name}: images must be uint8 or float32 in [0, 1], not {images.dtype}; {_advice(images)}")
    _, c, h, w = images.shape
    if w in (3, 4) and c > 4 and h > 4:
        raise UserError(
            f"{name}: images of shape {tuple(images.shape)} have their channels last; bring them to "
            "(n, channels, height, width), for a tensor by x.permute(0, 3, 1, 2)"
        )
    if images.dtype == torch.uint8:
        _check_bytes(images, name)
        return
    # aminmax lets NaN through to its result, so one pass without temporaries sees everything.
    low, high = (float(v) for v in images.aminmax())
    if low != low:
        raise UserError(f"{name}: the images hold NaN; remove or repair those images")
    if low < -TOLERANCE:
        raise UserError(
            f"{name}: images reach down to {low:.4g} but must lie in [0, 1]; leave normalisation out of the transform, "
            "it is the model's first layer"
        )
    if high > 1 + TOLERANCE:
        hint = "divide by 255, or give uint8" if 1.5 < high <= 255 else "scale them to [0, 1]"
        raise UserError(f"{name}: images reach up to {high:.4g} but must lie in [0, 1]; {hint}")


def _advice(images: Tensor) -> str:
    """Say how images of another type are converted; their range cannot be known from the type alone."""
    if images.dtype == torch.bool:
        return "convert them by x.float()"
    if images.is_floating_point() or images.is_complex():
        return "convert them by x.float()" if images.is_floating_point() else "give real numbers"
    high = int(images.double().max())
    if high <= 255:
        return "convert them by x.to(torch.uint8)"
    return f"divide them by the largest value that they may take (65535 for 16 bits; here they reach {high}) as float32"


def _check_bytes(images: Tensor, name: str) -> None:
    """Warn of bytes that are 0 and 1 alone: floats in [0, 1] that were converted without multiplying by 255."""
    if int(images[:64].max()) <= 1 and int(images.max()) == 1:
        warn_once(f"{name}: the images are uint8, where 255 is white, and none is above 1; multiply them by 255")


def _check_labels(labels: Tensor, images: int, classes: int, name: str) -> None:
    if labels.ndim != 1 or len(labels) != images:
        raise UserError(f"{name}: labels must have shape ({images},), one for each image, not {tuple(labels.shape)}")
    if labels.dtype != torch.int64:
        raise UserError(f"{name}: labels must be int64 class numbers, not {labels.dtype}; convert them with .long()")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise UserError(
            f"{name}: labels run from {low} to {high} but must lie in 0 .. {classes - 1} ({classes} classes)"
        )


@checked
def as_float(images: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return images as float32 in [0, 1]: uint8 is divided by 255 into a new tensor, floats pass through.

    Example:
        >>> as_float(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([0., 1.])
    """
    return images.float().div_(255) if images.dtype == torch.uint8 else images


@checked
def from_tensors(
    x: Tensor | np.ndarray,
    y: Tensor | np.ndarray | Sequence[int],
    *,
    num_classes: Classes | None = None,
    name: str = "tensors",
    partial: bool = False,
) -> ImageSet:
    """Make a set from images and labels that are already in memory.

    Args:
        x: images, (n, c, h, w), uint8 or floating point in [0, 1].
        y: integer labels, (n,).
        num_classes: number of classes; one more than the largest label when left out.
        name: what the set is called in reports.
        partial: True for a part of a larger set, in which a class may be absent.

    Raises:
        UserError: see `check_images`.

    Example:
        >>> data = from_tensors(torch.rand(4, 3, 8, 8), [0, 1, 0, 1])
        >>> data.classes
        ('0', '1')
    """
    images, labels = as_tensor(x, "images", name), as_tensor(y, "labels", name)
    if images.is_floating_point():
        images = images.float()
    if labels.dtype in (torch.int8, torch.int16, torch.int32, torch.uint8):
        labels = labels.long()
    known = labels.numel() > 0 and labels.dtype == torch.int64
    count = num_classes if num_classes is not None else (int(labels.max()) + 1 if known else 1)
    if count > MOST_CLASSES:
        raise UserError(
            f"{name}: the labels name {count:,} classes, more than {MOST_CLASSES:,}: are they class numbers?"
        )
    return ImageSet(images, labels, tuple(map(str, range(count))), name, partial=partial)


def as_tensor(values: Any, what: str, name: str) -> Tensor:
    """Convert an array of any byte order and strides, or nested lists, to a tensor."""
    try:
        if isinstance(values, np.ndarray):
            values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
        tensor = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as fault:
        kind = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise UserError(f"{name}: {what} must be a tensor or an array of numbers, not {kind}") from fault
    if tensor.is_meta or tensor.layout != torch.strided:
        raise UserError(f"{name}: {what} must be a plain tensor with values, not {tensor.layout} on {tensor.device}")
    return tensor
