"""Data sets by name."""

import http.client
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uiat.data.folder import Folder, open_folder, torchvision_or_error
from uiat.data.imageset import ImageSet, as_float
from uiat.data.split import stratified_index
from uiat.errors import UserError, nearest

SPLITS = ("train", "test")


@dataclass(frozen=True)
class _Source:
    """How one of torchvision's data sets is read: its class, the files it wants, and the axes of its array."""

    reader: str
    files: str
    axes: tuple[int, ...] = (0, 1, 2, 3)

    def arguments(self, split: str) -> dict[str, Any]:
        return {"split": split} if self.reader == "SVHN" else {"train": split == "train"}


_IDX = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte in"
_SOURCES = {
    "mnist": _Source("MNIST", f"{_IDX} MNIST/raw/"),
    "fashion-mnist": _Source("FashionMNIST", f"{_IDX} FashionMNIST/raw/"),
    "cifar10": _Source("CIFAR10", "the folder cifar-10-batches-py/ of cifar-10-python.tar.gz", (0, 3, 1, 2)),
    "cifar100": _Source("CIFAR100", "the folder cifar-100-python/ of cifar-100-python.tar.gz", (0, 3, 1, 2)),
    "svhn": _Source("SVHN", "train_32x32.mat and test_32x32.mat"),
}
NAMES = ("digits", *_SOURCES, "imagefolder:PATH")


def default_root() -> Path:
    """Where data sets are kept: the environment variable UIAT_DATA, else ~/.cache/uiat/data.

    Example:
        >>> isinstance(default_root(), Path)
        True
    """
    return Path(os.environ.get("UIAT_DATA") or "~/.cache/uiat/data").expanduser()


def open_data(
    name: str,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    image_size: int | None = None,
) -> ImageSet | Folder:
    """A data set by name: in memory, except that an image folder is only listed and decoded when asked.

    Args:
        name: digits, mnist, fashion-mnist, cifar10, cifar100, svhn or imagefolder:PATH.
        split: "train" or "test".
        root: where the files are or go; see `default_root`.
        download: whether to fetch files that are missing.
        image_size: for an image folder, the side in pixels that images are resized and cropped to.

    Raises:
        UserError: the name or split is unknown, files are missing and cannot be fetched, or the set fails its `check`.

    Example:
        >>> open_data("digits", "test").name
        'digits'
    """
    if split not in SPLITS:
        raise nearest("split", split, SPLITS)
    kind, _, path = name.partition(":")
    if kind == "imagefolder" and path:
        return open_folder(path, split, image_size=image_size)
    if name != "digits" and name not in _SOURCES:
        raise nearest("data set", name, NAMES)
    if image_size is not None:
        raise UserError(f"{name} has images of one size; an image size is for imagefolder:PATH only")
    if name == "digits":
        return _digits(split)
    return _from_torchvision(name, split, root=Path(root).expanduser() if root else default_root(), download=download)


def load(
    name: str,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    image_size: int | None = None,
) -> ImageSet:
    """A data set by name, in memory; arguments and errors as in `open_data`.

    Example:
        >>> data = load("digits", "train")
        >>> len(data), data.image_shape, data.num_classes
        (1258, (1, 8, 8), 10)
    """
    return open_data(name, split, root=root, download=download, image_size=image_size).decode()


def tensors(
    name: str, split: str, root: str | os.PathLike[str] | None = None
) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"]]:
    """Images in [0, 1] as float32 and int64 labels of a data set by name; arguments and errors as in `open_data`.

    Example:
        >>> x, y = tensors("digits", "test")
        >>> x.shape, x.dtype, y.dtype
        (torch.Size([539, 1, 8, 8]), torch.float32, torch.int64)
    """
    data = load(name, split, root=root)
    return as_float(data.images), data.labels


def _digits(split: str) -> ImageSet:
    """scikit-learn's 1,797 digits of 8x8, grey levels 0 .. 16; 70 % to train, 30 % to test, always the same ones."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = torch.from_numpy(bunch.target).long()
    held = stratified_index(labels, 539, num_classes=10, seed=0, keep=1)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[held] = True
    chosen = chosen if split == "test" else ~chosen
    images = torch.from_numpy(bunch.images).float().div_(16)[:, None]
    return ImageSet(images[chosen], labels[chosen], tuple(map(str, range(10))), "digits")


def _from_torchvision(name: str, split: str, *, root: Path, download: bool) -> ImageSet:
    source = _SOURCES[name]
    reader = getattr(torchvision_or_error(name).datasets, source.reader)
    dataset = _present_or_downloaded(
        lambda fetch: reader(str(root), download=fetch, **source.arguments(split)),
        f"{name} is missing or damaged under {root}; put {source.files} there",
        download=download,
    )
    labels = torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
    classes = tuple(str(c).split(" - ")[0] for c in getattr(dataset, "classes", range(10)))
    return ImageSet(_images(dataset.data, source.axes), labels, classes, name)


def _images(data: np.ndarray | Tensor, axes: tuple[int, ...]) -> Tensor:
    """The reader's own array as (n, c, h, w), without a copy where its memory already lies so (CIFAR's does)."""
    pixels = torch.as_tensor(data)
    return (pixels[:, None] if pixels.ndim == 3 else pixels.permute(axes)).contiguous()


def _present_or_downloaded(read: Callable[[bool], Any], missing: str, *, download: bool) -> Any:
    """Read the files that are there; only then, and only if allowed, fetch them."""
    # CIFAR's official files are pickles. torchvision compares the md5 of every one of them with the official sum before
    # it unpickles the first, and raises RuntimeError otherwise: a changed file is never unpickled. The same holds for
    # SVHN's .mat files; MNIST's are plain arrays, whose sums are checked when downloaded.
    faults = (RuntimeError, OSError, EOFError, ValueError, AssertionError, http.client.HTTPException)
    with warnings.catch_warnings():
        # numpy 2.4.0 complains about how these pickles of 2009 spell a dtype.
        warnings.filterwarnings("ignore", message=r"dtype\(\): align", module=r"torchvision\.datasets")
        try:
            return read(False)
        except faults as fault:
            if not download:
                raise UserError(f"{missing}, or allow the download") from fault
        try:
            return read(True)
        except faults as fault:
            reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
            raise UserError(f"{missing} (the download failed: {reason})") from fault
