"""Labelled images that pass by once: any iterable of (images, labels), checked as it comes, in chunks."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from uiat.checks import check_batch, checked
from uiat.data.image_folder import Folder
from uiat.data.image_set import Batch, ImageSet, as_float, as_tensor
from uiat.data.map_dataset import one_label, to_tensor
from uiat.errors import UserError

CHUNK_BYTES = 64 * 2**20  # of the pixels of a chunk: all that is in memory of a stream, besides what is made of it
_PIECE = 64  # images of a folder or a set that are read at a time

Piece = tuple[Tensor, Tensor]


class _Labelled(type):
    def __instancecheck__(cls, value: object) -> bool:
        """True for what can be gone through and is no tensor, array, text or mapping."""
        if isinstance(value, Tensor | np.ndarray | np.generic | str | bytes | Mapping | type):
            return False
        return isinstance(value, ImageSet | Folder | Stream) or hasattr(value, "__iter__") or _is_indexed(value)


class Labelled(metaclass=_Labelled):
    """Anything that yields labelled images: a DataLoader, a dataset, an `ImageSet`, a generator, a list of batches.

    Example:
        >>> isinstance([], Labelled), isinstance(torch.zeros(1), Labelled), isinstance("text", Labelled)
        (True, False, False)
    """

    IN_WORDS: ClassVar[str] = "an iterable of (images, labels)"


@dataclass(frozen=True)
class Stream:
    """Labelled images that pass by once.

    Args:
        pieces: pairs of images (b, c, h, w) and labels (b,), the head included; gone through once.
        head: the first of them.
        name: what the set is called in reports.
        classes: the name of each class; empty where they are not known.
        total: number of images, where it is known beforehand.
        most: number of images in a chunk, at most.

    Example:
        >>> stream = open_stream([(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))] * 3)
        >>> stream.image_shape, [len(y) for x, y in stream.chunks()]
        ((1, 8, 8), [6])
    """

    IN_WORDS: ClassVar[str] = Labelled.IN_WORDS
    pieces: Iterator[Piece]
    head: Piece
    name: str
    classes: tuple[str, ...] = ()
    total: int | None = None
    most: int | None = None

    def __repr__(self) -> str:
        return f"Stream {self.name} of images {self.image_shape}"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of each image."""
        c, h, w = self.head[0].shape[1:]
        return (c, h, w)

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 where they are not known."""
        return len(self.classes)

    @property
    def chunk_size(self) -> int:
        """Number of images in a chunk: those whose pixels take `CHUNK_BYTES`, no more than `most`, and at least one."""
        image = self.head[0][0]
        size = max(1, CHUNK_BYTES // max(1, image.numel() * image.element_size()))
        return size if self.most is None else min(size, self.most)

    def first(self, n: int) -> "Stream":
        """Return a stream of the first n images."""
        total = n if self.total is None else min(n, self.total)
        x, y = self.head
        return replace(self, pieces=_first(self.pieces, n), head=(x[:n], y[:n]), total=total if self.total else None)

    def chunks(self) -> Iterator[Piece]:
        """Yield all images in chunks of `chunk_size`; the last one may be smaller.

        Raises:
            UserError: images or labels that cannot be what was meant, or that end early; names the batch.
        """
        size, filled = self.chunk_size, 0
        chunk: Piece | None = None
        for x, y in self.pieces:
            done = 0
            while done < len(y):
                if chunk is None:
                    chunk = (x.new_empty(size, *x.shape[1:]), y.new_empty(size))
                count = min(size - filled, len(y) - done)
                chunk[0][filled : filled + count] = x[done : done + count]
                chunk[1][filled : filled + count] = y[done : done + count]
                filled, done = filled + count, done + count
                if filled == size:
                    whole, chunk, filled = chunk, None, 0
                    yield whole
                    del whole  # or it would be in memory beside the next one
        if chunk is not None:
            yield chunk[0][:filled], chunk[1][:filled]


def _first(pieces: Iterator[Piece], n: int) -> Iterator[Piece]:
    for x, y in pieces:
        yield x[:n], y[:n]
        n -= len(y)
        if n <= 0:
            return


@checked
def open_stream(data: Labelled | Any, *, name: str | None = None) -> Stream:
    """Open labelled images to go through them once; the first batch is read at once.

    Args:
        data: a DataLoader or any other iterable of batches (images (b, c, h, w), labels (b,)) or of single (image,
            label); a pair of tensors; a map-style dataset, an `ImageSet` or a `Folder`. Images are floats in [0, 1] or
            uint8; a PIL image is converted as `from_dataset` does.
        name: what the set is called in messages and reports.

    Raises:
        UserError: nothing in it, or a first batch that is no images and labels.

    Example:
        >>> open_stream(torch.utils.data.TensorDataset(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))).total
        4
    """
    if isinstance(data, Stream):
        return data
    name = name or getattr(data, "name", None) or "data"
    if is_pair(data):
        return open_stream([data], name=name)  # one batch
    pieces = iter(_read_set(data) if isinstance(data, ImageSet | Folder) else _read_items(data, name))
    head = next(pieces, None)
    if head is None:
        raise UserError(f"{name}: there are no images in it; give at least one")
    classes = getattr(data, "classes", None) or getattr(getattr(data, "dataset", None), "classes", None) or ()
    return Stream(itertools.chain([head], pieces), head, name, tuple(map(str, classes)), _count_images(data))


def is_pair(data: object) -> bool:
    """True for a pair of tensors, images and labels.

    Example:
        >>> is_pair((torch.zeros(1), torch.zeros(1))), is_pair([])
        (True, False)
    """
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def is_iterable_only(data: object) -> bool:
    """True for what yields labelled images and cannot be asked for the i-th one; also for a list of batches.

    Example:
        >>> is_iterable_only(iter([])), is_iterable_only([(torch.zeros(2, 1, 8, 8), torch.zeros(2))])
        (True, True)
    """
    if isinstance(data, list | tuple):
        return any(isinstance(part, list | tuple) and part and getattr(part[0], "ndim", 0) == 4 for part in data[:1])
    return isinstance(data, Labelled) and not _is_indexed(data)


def _is_indexed(data: object) -> bool:
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _count_images(data: Any) -> int | None:
    if isinstance(data, ImageSet | Folder) or (_is_indexed(data) and not is_iterable_only(data)):
        return len(data)
    return None


def _read_set(data: ImageSet | Folder) -> Iterator[Piece]:
    for rows in torch.arange(len(data)).split(_PIECE):
        part = data.subset(rows).decode()
        yield as_float(part.images), part.labels


def _read_items(data: Any, name: str) -> Iterator[Piece]:
    """Yield what an iterable does as batches; each must be like the first."""
    first: tuple[torch.Size, torch.dtype] | None = None
    expected, count = _expected(data), 0
    # A dataset need not raise IndexError behind its end.
    items = iter(data) if hasattr(data, "__iter__") else (data[i] for i in range(len(data)))
    for count, item in enumerate(items, 1):
        where = f"{name}: batch {count}"
        x, y = _to_piece(item, where, name)
        first = first or (x.shape[1:], x.dtype)
        if x.shape[1:] != first[0]:
            raise UserError(f"{where} has images of shape {tuple(x.shape[1:])} and the first one {tuple(first[0])}")
        if x.dtype != first[1]:
            raise UserError(f"{where} has images of {x.dtype} and the first one of {first[1]}")
        x = as_float(x)
        try:
            check_batch(x, y)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        yield x, y
    if expected is not None and count < expected:
        raise UserError(f"{name}: it ended after {count} of {expected} batches")


def _expected(data: Any) -> int | None:
    """Return the number of items that an iterable says it has, if it does."""
    try:
        return len(data)
    except (TypeError, NotImplementedError, AttributeError):
        return None


def _to_piece(item: Any, where: str, name: str) -> Piece:
    if isinstance(item, Batch):
        return item.x, item.y
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(f"{where} must be a pair (images, labels), not {type(item).__name__}")
    x, y = item
    if getattr(x, "ndim", 0) == 4:
        what = where.removeprefix(f"{name}: ")
        return as_tensor(x, f"images of {what}", name), as_tensor(y, f"labels of {what}", name)
    image = to_tensor(x, where, name)
    return image[None], torch.tensor([one_label(y, where)])
