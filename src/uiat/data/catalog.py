"""The data sets known by name: files, classes, sizes, statistics; load or download them."""

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

from uiat.data.image_folder import Folder, import_torchvision, open_folder
from uiat.data.image_set import ImageSet, as_float
from uiat.data.sampling import generator
from uiat.data.split import stratified_index
from uiat.errors import UserError, nearest

Channels = tuple[float, ...]

# Of the training images in [0, 1], all pixels pooled; `statistics` finds these numbers again on the same sets.
STATS: dict[str, tuple[Channels, Channels]] = {
    "digits": ((0.3058,), (0.3763,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}


def statistics(data: ImageSet | Folder, *, sample: int = 10_000) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel of images in [0, 1], over at most `sample` images.

    A channel that hardly varies is given a deviation of one grey level, so that dividing by it stays harmless.

    Args:
        data: the training set; its known figures, where it is one of the standard sets, are in `STATS`.
        sample: how many images to look at; the choice is the same each time.

    Example:
        >>> from uiat.data import load
        >>> mean, std = statistics(load("digits", "train"))
        >>> round(mean[0], 2)
        0.31
    """
    chosen = torch.randperm(len(data), generator=generator(0))[:sample]
    total = torch.zeros(2, data.image_shape[0], dtype=torch.float64)
    pixels = 0
    for part in chosen.split(256):  # in parts: the float64 copy of a large sample would not fit in memory
        x = as_float(data.subset(part).decode().images).double().cpu()
        total += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        pixels += x.numel() // x.shape[1]
    mean, square = total / pixels
    std = (square - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


# (image shape, classes, training images) of the sets whose files need not be read to know it.
KNOWN = {
    "mnist": ((1, 28, 28), 10, 60_000),
    "fashion-mnist": ((1, 28, 28), 10, 60_000),
    "cifar10": ((3, 32, 32), 10, 50_000),
    "cifar100": ((3, 32, 32), 100, 50_000),
    "svhn": ((3, 32, 32), 10, 73_257),
}

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
    reader = getattr(import_torchvision(name).datasets, source.reader)
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


# MNIST: Tramer & Boneh (2019), Maini et al. (2020). CIFAR-10: Croce & Hein (2022), the L1 and L2 radii since Maini et
# al. (2020). ImageNet: Croce & Hein (2022). CIFAR-100 and SVHN have CIFAR-10's, as is usual for Linf and L2, and by
# likeness for L1: images of the same size.
_CIFAR = ("Linf:8/255", "L2:0.5", "L1:12")
USUAL: dict[str, tuple[str, ...]] = {
    "mnist": ("Linf:0.3", "L2:2", "L1:10"),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "svhn": _CIFAR,
    "imagenet": ("Linf:4/255", "L2:2", "L1:255"),
}
