"""The data sets known by name: files, classes, sizes, statistics; read or download those of torchvision."""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uiat.checks import checked
from uiat.data.image_file import import_torchvision
from uiat.data.image_folder import Folder
from uiat.data.image_set import ImageSet, as_float
from uiat.data.sampling import generator
from uiat.data.split import stratified_index
from uiat.data.standard_files import find_damage, has_old_layout
from uiat.errors import UserError
from uiat.system.extras import from_extra

Channels = tuple[float, ...]
SPLITS = ("train", "test")


@dataclass(frozen=True)
class TorchvisionReader:
    """How one of torchvision's data sets is read.

    Args:
        name: its class in torchvision.datasets.
        files: the files that it looks for, for the message that they are missing.
        axes: order of the axes of its array that makes it (N, C, H, W).
        split_argument: the argument that says which split: "train" takes a bool, "split" a word.
    """

    name: str
    files: str
    axes: tuple[int, ...] = (0, 1, 2, 3)
    split_argument: Literal["train", "split"] = "train"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """All that is known of a data set before its files are read.

    Args:
        image_shape: (C, H, W).
        classes: number of classes.
        train: number of training images.
        test: number of test images.
        mean: of each channel of the training images in [0, 1], all pixels pooled; see `statistics`.
        std: standard deviation of each channel, likewise.
        threats: the threat models that its models are usually evaluated under, one for each norm.
        reader: how it is read; None for a set that is only known here, and read as an image folder.
    """

    image_shape: tuple[int, int, int]
    classes: int
    train: int
    test: int
    mean: Channels = ()
    std: Channels = ()
    threats: tuple[str, ...] = ()
    reader: TorchvisionReader | Callable[[str], ImageSet] | None = None


def _read_digits(split: str) -> ImageSet:
    """Read scikit-learn's 1,797 digits of 8x8, grey levels 0 .. 16; always the same 30 % are the test set."""
    pixels, digits = _digits_table()
    labels = torch.from_numpy(digits).long()
    held = stratified_index(labels, 539, num_classes=10, seed=0, keep=1)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[held] = True
    chosen = chosen if split == "test" else ~chosen
    images = torch.from_numpy(pixels).float().div_(16).view(-1, 1, 8, 8)
    return ImageSet(images[chosen], labels[chosen], tuple(map(str, range(10))), "digits")


def _digits_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixels (1797, 64) and the digits, from scikit-learn's file.

    The file is read without scikit-learn, whose import takes longer than all else before the first step of a training.
    """
    found = importlib.util.find_spec("sklearn")
    file = Path(((found and found.submodule_search_locations) or [""])[0], "datasets", "data", "digits.csv.gz")
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1]
    with from_extra("data", "digits"):
        from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.data, bunch.target.astype(float)


_IDX = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte in"
# Radii for MNIST: Tramer & Boneh (2019), Maini et al. (2020); for CIFAR-10: Croce & Hein (2022), the L1 and L2 radii
# since Maini et al. (2020); for ImageNet: Croce & Hein (2022). CIFAR-100 and SVHN have CIFAR-10's, as is usual for Linf
# and L2, and by likeness for L1: images of the same size.
_CIFAR_THREATS = ("Linf:8/255", "L2:0.5", "L1:12")

# One row a data set: all else follows from it.
DATA_SETS = {
    "digits": DataSet(
        image_shape=(1, 8, 8),
        classes=10,
        train=1_258,
        test=539,
        mean=(0.3058,),
        std=(0.3763,),
        reader=_read_digits,
    ),
    "mnist": DataSet(
        image_shape=(1, 28, 28),
        classes=10,
        train=60_000,
        test=10_000,
        mean=(0.1307,),
        std=(0.3081,),
        threats=("Linf:0.3", "L2:2", "L1:10"),
        reader=TorchvisionReader("MNIST", f"{_IDX} MNIST/raw/"),
    ),
    "fashion-mnist": DataSet(
        image_shape=(1, 28, 28),
        classes=10,
        train=60_000,
        test=10_000,
        mean=(0.2860,),
        std=(0.3530,),
        reader=TorchvisionReader("FashionMNIST", f"{_IDX} FashionMNIST/raw/"),
    ),
    "cifar10": DataSet(
        image_shape=(3, 32, 32),
        classes=10,
        train=50_000,
        test=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        threats=_CIFAR_THREATS,
        reader=TorchvisionReader(
            "CIFAR10", "the folder cifar-10-batches-py/ of cifar-10-python.tar.gz", axes=(0, 3, 1, 2)
        ),
    ),
    "cifar100": DataSet(
        image_shape=(3, 32, 32),
        classes=100,
        train=50_000,
        test=10_000,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        threats=_CIFAR_THREATS,
        reader=TorchvisionReader(
            "CIFAR100", "the folder cifar-100-python/ of cifar-100-python.tar.gz", axes=(0, 3, 1, 2)
        ),
    ),
    "svhn": DataSet(
        image_shape=(3, 32, 32),
        classes=10,
        train=73_257,
        test=26_032,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        threats=_CIFAR_THREATS,
        reader=TorchvisionReader("SVHN", "train_32x32.mat and test_32x32.mat", split_argument="split"),
    ),
    "imagenet": DataSet(
        image_shape=(3, 224, 224),
        classes=1_000,
        train=1_281_167,
        test=50_000,
        threats=("Linf:4/255", "L2:2", "L1:255"),
    ),
}
# Formats in which any set may be kept, each the first word of FORMAT:PATH.
FORMATS = ("imagefolder", "npz", "hf")
NAMES = (
    *(name for name, row in DATA_SETS.items() if row.reader is not None),
    *("imagefolder:PATH", "npz:FILE", "hf:FOLDER"),
)
STATS: dict[str, tuple[Channels, Channels]] = {name: (row.mean, row.std) for name, row in DATA_SETS.items() if row.mean}
USUAL_THREATS = {name: row.threats for name, row in DATA_SETS.items() if row.threats}


@checked
def statistics(data: ImageSet | Folder, *, sample: int = 10_000) -> tuple[Channels, Channels]:
    """Compute the mean and standard deviation of each channel of images in [0, 1], over at most `sample` of them.

    A channel that hardly varies is given a deviation of one grey level, so that dividing by it stays harmless.

    Args:
        data: the training set; the figures of the standard sets are in `STATS`.
        sample: number of images to look at; the choice is the same each time.

    Example:
        >>> from uiat.data import load
        >>> mean, std = statistics(load("digits", "train"))
        >>> round(mean[0], 2)
        0.31
    """
    chosen = torch.randperm(len(data), generator=generator(0))[:sample]
    total = torch.zeros(2, data.image_shape[0], dtype=torch.float64)
    pixels = 0
    for index in chosen.split(256):  # in chunks: the float64 copy of a large sample would not fit in memory
        x = as_float(data.subset(index).decode().images).double().cpu()
        total += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        pixels += x.numel() // x.shape[1]
    mean, square = total / pixels
    std = (square - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def read_torchvision(name: str, reader: TorchvisionReader, split: str, *, root: Path, download: bool) -> ImageSet:
    """Read one of torchvision's data sets from the files in a folder; download those that are missing, if allowed.

    Raises:
        UserError: files are missing or damaged, and cannot be fetched.

    Example:
        >>> read_torchvision("mnist", DATA_SETS["mnist"].reader, "test", root=Path("/missing"), download=False)
        Traceback (most recent call last):
        uiat.errors.UserError: mnist is missing or damaged under /missing ...
    """
    dataset_class = getattr(import_torchvision(name).datasets, reader.name)
    which = {"train": split == "train"} if reader.split_argument == "train" else {"split": split}

    def read(fetch: bool) -> ImageSet:
        dataset = dataset_class(str(root), download=fetch, **which)
        # Of the others, torchvision itself has compared the sums; those of the old layout are not known.
        verify = name == "mnist" and not has_old_layout(root / reader.name)
        if verify and (damage := find_damage(dataset_class, root, split)):
            raise UserError(damage)
        labels = torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
        classes = tuple(str(c).split(" - ")[0] for c in getattr(dataset, "classes", range(10)))
        return ImageSet(_to_nchw(dataset.data, reader.axes), labels, classes, name)

    def missing() -> str:
        damage = find_damage(dataset_class, root, split)
        return f"{name} is missing or damaged under {root}{f' ({damage})' if damage else ''}; put {reader.files} there"

    return _read_or_download(read, missing, download=download)


def _to_nchw(data: np.ndarray | Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the reader's own array as (N, C, H, W), without a copy if its memory already lies so (CIFAR's does)."""
    pixels = torch.as_tensor(data)
    return (pixels[:, None] if pixels.ndim == 3 else pixels.permute(axes)).contiguous()


def _read_or_download(read: Callable[[bool], ImageSet], missing: Callable[[], str], *, download: bool) -> ImageSet:
    """Read the files that are there; download them if they are not, and if that is allowed."""
    # CIFAR's official files are pickles. torchvision compares the md5 of every one of them with the official sum before
    # it unpickles the first, and raises RuntimeError otherwise: a changed file is never unpickled. The same holds for
    # SVHN's .mat files; MNIST's are plain arrays, whose sums are compared once they are read. What readers raise of a
    # damaged file is any exception at all.
    with warnings.catch_warnings():
        # numpy 2.4.0 complains about how these pickles of 2009 spell a dtype.
        warnings.filterwarnings("ignore", message=r"dtype\(\): align", module=r"torchvision\.datasets")
        try:
            return read(False)
        except Exception as fault:
            if not download:
                raise UserError(f"{missing()}, or allow the download") from fault
        try:
            return read(True)
        except Exception as fault:
            reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
            raise UserError(f"{missing()} (the download failed: {reason[:200]})") from fault
