"""The files of torchvision's data sets: which of them is missing or damaged, since torchvision does not say."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uiat.errors import UserError
from uiat.system.bounded_files import pieces_of

# torchvision knows the sums of MNIST's packed files only, and never looks at what lies unpacked.
MNIST_SUMS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
# Bytes of the four files, header included: Fashion-MNIST has the same.
_IDX_SIZES = (47_040_016, 60_008, 7_840_016, 10_008)
_LARGEST = 2**30  # bytes; the largest of these files has 200 million
POINTER = b"version https://git-lfs"


def find_damage(dataset: Any, root: Path, split: str) -> str:
    """Return what is wrong with the files of a data set, naming the first of them; "" if nothing is seen.

    Args:
        dataset: its class in torchvision.datasets.
        root: the folder that torchvision is given.
        split: "train" or "test".

    Example:
        >>> class Official:
        ...     base_folder, test_list, meta = "example", [], {"filename": "names", "md5": ""}
        ...     train_list = [("batch", "")]
        >>> find_damage(Official, Path("/nowhere"), "train")
        '/nowhere/example/batch is missing'
    """
    if hasattr(dataset, "mirrors"):
        return next(_mnist_damage(root / dataset.__name__, split, official=dataset.__name__ == "MNIST"), "")
    expected = _expected(dataset, root, split)
    return next((f"{file} {fault}" for file, md5 in expected if (fault := _fault(file, md5=md5))), "")


def has_old_layout(folder: Path) -> bool:
    """Return True if torchvision will read MNIST's or Fashion-MNIST's folder as it was laid out before 2021.

    Example:
        >>> has_old_layout(Path("/nowhere/MNIST"))
        False
    """
    return all((folder / "processed" / file).is_file() for file in ("training.pt", "test.pt"))


def _expected(dataset: Any, root: Path, split: str) -> Iterator[tuple[Path, str]]:
    if hasattr(dataset, "split_list"):  # SVHN
        _, file, md5, *_ = dataset.split_list[split]
        yield root / file, md5
        return
    folder = root / dataset.base_folder  # CIFAR
    yield from ((folder / file, md5) for file, md5 in (*dataset.train_list, *dataset.test_list))
    yield folder / dataset.meta["filename"], dataset.meta["md5"]


def _mnist_damage(folder: Path, split: str, *, official: bool) -> Iterator[str]:
    old = folder / "processed" / ("training.pt" if split == "train" else "test.pt")
    if has_old_layout(folder):
        yield f"{old}, of torchvision's old layout, cannot be read; remove {old.parent} to read {folder / 'raw'}"
    for (name, md5), size in zip(MNIST_SUMS.items(), _IDX_SIZES, strict=True):
        file = folder / "raw" / name
        # torchvision wants the files of the other split to be there, and never reads them.
        own = name.startswith("train" if split == "train" else "t10k")
        fault = _fault(file, size=size, md5=md5 if official else None) if own else _fault(file)
        if fault:
            yield f"{file} {fault}"


def _fault(file: Path, *, md5: str | None = None, size: int | None = None) -> str:
    """Return what is wrong with a file, as the end of a sentence; "" if nothing."""
    try:
        length = file.stat().st_size
        pieces = pieces_of(file, most=_LARGEST)
        start = next(pieces, b"")
        if start.startswith(POINTER):
            return "is a git-lfs pointer (run `git lfs pull`)"
        if size is not None and length != size:
            return f"is damaged: it has {length:,} bytes, not {size:,}"
        if md5 is not None:
            total = hashlib.md5(start)
            for piece in pieces:
                total.update(piece)
            if total.hexdigest() != md5:
                return "is damaged: it is not the official file"
    except FileNotFoundError:
        return "is missing"
    except UserError as fault:
        return f"cannot be read: {str(fault).rpartition(': ')[2]}"
    except OSError as fault:
        return f"cannot be read: {fault.strerror}"
    return ""
