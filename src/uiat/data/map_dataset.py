"""Read a map-style torch data set of (image, label) into an `ImageSet`."""

from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from uiat.checks import checked
from uiat.data.image_file import to_8_bit
from uiat.data.image_set import ImageSet, as_tensor, from_tensors
from uiat.errors import UserError


@runtime_checkable
class _Indexed(Protocol):
    """A map-style dataset: it has a length, and (image, label) by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@checked
def from_dataset(
    dataset: Any, *, name: str = "custom", num_classes: int | None = None, partial: bool = False
) -> ImageSet:
    """Read a whole map-style torch Dataset of (image, label) into memory.

    An image may be a PIL image, a uint8 or float tensor (c, h, w) or (h, w), or a numpy array (h, w) or (h, w, c).
    Floats lie in [0, 1]. PIL images of 16 bits are scaled to 8; those of mode F are floats; of palettes and CMYK the
    RGB colours are taken, and an alpha channel is dropped, with a warning where it was not opaque.

    Args:
        dataset: anything with `len(dataset)` and `dataset[i] -> (image, label)`; leave random transforms out of it.
        name: what the set is called in reports.
        num_classes: number of classes; taken from `dataset.classes` or the largest label when left out.
        partial: True for a part of a larger set, in which a class may be absent.

    Raises:
        UserError: the dataset has no length, an item is not (image, label), images differ in shape; see
            also `check_images`.

    Example:
        >>> pairs = torch.utils.data.TensorDataset(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> len(from_dataset(pairs))
        4
    """
    if not isinstance(dataset, _Indexed) or (isinstance(dataset, Tensor) and dataset.ndim == 0):
        raise UserError(
            f"{name}: the dataset must have a length and be indexable; an iterable dataset cannot be shuffled"
        )
    images, labels = _read_items(dataset, name)
    count = num_classes or _declared_classes(dataset)
    data = from_tensors(images, labels, num_classes=count, name=name, partial=partial)
    names = tuple(str(c) for c in getattr(dataset, "classes", None) or ())
    return replace(data, classes=names) if len(names) == data.num_classes else data


def _declared_classes(dataset: Any) -> int | None:
    return len(getattr(dataset, "classes", None) or ()) or None


def _read_items(dataset: _Indexed, name: str) -> tuple[Tensor, Tensor]:
    if len(dataset) == 0:
        raise UserError(f"{name}: the dataset is empty; give it at least one image")
    labels = torch.empty(len(dataset), dtype=torch.int64)
    images: Tensor | None = None
    for i in range(len(dataset)):
        item = _read_item(dataset, i, name)
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UserError(f"{name}: item {i} must be a pair (image, label), not {type(item).__name__}")
        image = to_tensor(item[0], f"{name}: image {i}", name)
        if (
            images is None
        ):  # one allocation for the whole set: a list of images and its stack would need twice the memory
            images = image.new_empty((len(dataset), *image.shape))
        if image.shape != images.shape[1:]:
            raise UserError(
                f"{name}: image {i} has shape {tuple(image.shape)} but image 0 has {tuple(images.shape[1:])}; "
                "resize them to one size in the dataset's transform"
            )
        if image.dtype != images.dtype:
            raise UserError(
                f"{name}: image {i} is {image.dtype} but image 0 is {images.dtype}; convert them to one type and range"
            )
        images[i], labels[i] = image, one_label(item[1], f"{name}: label {i}")
    assert images is not None
    return images, labels


def _read_item(dataset: _Indexed, i: int, name: str) -> Any:
    try:
        return dataset[i]
    except (IndexError, StopIteration):
        if i == 0:
            raise  # a fault of its own, and no end
        raise UserError(
            f"{name}: the dataset has a length of {len(dataset)}, but ends after {i} images; "
            "let its length say how many there are"
        ) from None


def to_tensor(image: Any, what: str, name: str) -> Tensor:
    """Convert a PIL image, an array (h, w[, c]) or a tensor ([c,] h, w) to a tensor (c, h, w).

    Args:
        image: the image.
        what: the item, after the name of the set, for messages.
        name: what the set is called in messages.

    Example:
        >>> to_tensor(np.zeros((8, 8, 3), dtype=np.uint8), "example: image 0", "example").shape
        torch.Size([3, 8, 8])
    """
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
    elif hasattr(image, "convert"):  # a PIL image, told by its method so that Pillow need not be installed
        pixels = _channels_first(_from_pil(image, what), what)
    elif hasattr(image, "__array_interface__"):
        pixels = _channels_first(as_tensor(np.array(image), what.removeprefix(f"{name}: "), name), what)
    else:
        raise UserError(f"{name}: cannot read an image of type {type(image).__name__}; give PIL images or tensors")
    pixels = pixels.float() if pixels.is_floating_point() else pixels
    return pixels[None] if pixels.ndim == 2 else pixels


def _from_pil(image: Any, what: str) -> Tensor:
    try:
        return torch.from_numpy(np.array(image if image.mode == "F" else to_8_bit(image, what)))
    except (OSError, SyntaxError, ValueError) as fault:  # Pillow decodes late: a damaged file shows here
        if isinstance(fault, UserError):
            raise
        file = f" ({image.filename})" if getattr(image, "filename", "") else ""
        raise UserError(f"{what}{file} cannot be decoded: {fault}") from fault


def _channels_first(pixels: Tensor, what: str) -> Tensor:
    if pixels.ndim != 3:
        return pixels
    h, _, c = pixels.shape
    if h in (1, 3, 4) and c > 4:
        raise UserError(
            f"{what} is an array of shape {tuple(pixels.shape)}, which seems to have its channels first; give arrays "
            "(height, width, channels) or tensors (channels, height, width)"
        )
    return pixels.permute(2, 0, 1)


def one_label(label: Any, what: str) -> int:
    """Return a label as a number, from whatever holds one whole number.

    Example:
        >>> one_label(torch.tensor([3]), "label 0")
        3
    """
    value = label.item() if isinstance(label, Tensor | np.ndarray | np.generic) and np.prod(label.shape) == 1 else label
    if not isinstance(value, int):
        raise UserError(f"{what} must be an integer class number, not {label!r}")
    return value
