"""Read a data set from folders of image files, on demand: for sets that may be too large for memory."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from uiat.data.image_set import ImageSet
from uiat.errors import UserError


def import_torchvision(purpose: str) -> Any:
    """Import and return torchvision, which the rest of the package works without.

    Raises:
        UserError: torchvision is missing or does not fit the installed torch.

    Example:
        >>> import_torchvision("cifar10").__name__  # doctest: +SKIP
        'torchvision'
    """
    try:
        import torchvision
        import torchvision.datasets
        import torchvision.transforms.functional
    except (ImportError, RuntimeError, OSError) as fault:
        raise UserError(
            f"{purpose} needs torchvision, which cannot be imported ({fault}); install the torchvision that fits "
            f"torch {torch.__version__}, for example with `pip install torchvision`"
        ) from fault
    return torchvision


@dataclass(frozen=True)
class Folder:
    """Labelled image files; has what an `ImageSet` has, except that pixels are decoded on demand. See `open_folder`.

    Args:
        paths: the image files.
        labels: int64, (n,).
        classes: the name of each class.
        name: what the set is called in reports.
        image_shape: (channels, height, width) of each image once decoded.
        image_size: side of the square that images are resized and cropped to; None leaves them as they are.

    Example:
        >>> folder = Folder(("a.png",), torch.tensor([0]), ("a",), "example", (3, 32, 32), 32)
        >>> len(folder), folder.num_bytes
        (1, 3072)
    """

    paths: tuple[str, ...]
    labels: Int[Tensor, "n"]
    classes: tuple[str, ...]
    name: str
    image_shape: tuple[int, int, int]
    image_size: int | None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "c h w"], int, int]:
        """Return (image, label, position), which the workers of a `StreamingLoader` collect into batches."""
        image = read_image(self.paths[index], image_size=self.image_size)
        if tuple(image.shape) != self.image_shape:
            raise UserError(
                f"{self.paths[index]}: the image is {tuple(image.shape[1:])} pixels but the first one of the set is "
                f"{self.image_shape[1:]}; give an image size that all are resized to"
            )
        return image, int(self.labels[index]), index

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def num_bytes(self) -> int:
        """Bytes of memory that the decoded set takes."""
        c, h, w = self.image_shape
        return len(self) * c * h * w

    def subset(self, index: Sequence[int] | Tensor) -> "Folder":
        """Return the files at `index`, in that order."""
        where = torch.as_tensor(index, dtype=torch.int64)
        return replace(self, paths=tuple(self.paths[i] for i in where.tolist()), labels=self.labels[where])

    def decode(self) -> ImageSet:
        """Load the whole set into memory, as uint8.

        Raises:
            UserError: a file cannot be read, or has another size than the first and no image size was given.
        """
        images = torch.empty(len(self), *self.image_shape, dtype=torch.uint8)

        def put(i: int) -> None:
            images[i] = self[i][0]

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter's lock
            for _ in pool.map(put, range(len(self))):
                pass  # going through the results raises what a thread raised
        return ImageSet(images, self.labels, self.classes, self.name, partial=True)


def read_image(path: str, *, image_size: int | None = None) -> UInt8[Tensor, "3 h w"]:
    """Read an image file as RGB; resize its shorter side to `image_size` and cut out the middle square.

    Raises:
        UserError: the file is no image that Pillow reads.

    Example:
        >>> read_image("missing.png")  # doctest: +SKIP
        Traceback (most recent call last):
        uiat.errors.UserError: cannot read the image missing.png (FileNotFoundError); repair or remove the file
    """
    torchvision = import_torchvision("an image folder")
    ops: Any = torchvision.transforms.functional
    try:
        image = torchvision.datasets.folder.default_loader(path)
    except OSError as fault:
        raise UserError(f"cannot read the image {path} ({type(fault).__name__}); repair or remove the file") from fault
    if image_size is not None:
        image = ops.center_crop(ops.resize(image, image_size), [image_size, image_size])
    pixels: Tensor = ops.pil_to_tensor(image)
    return pixels


def open_folder(path: str | os.PathLike[str], split: str, *, image_size: int | None = None) -> Folder:
    """List a folder of images: PATH/train/CLASS/* and PATH/test/CLASS/* (or PATH/val), or PATH/CLASS/* to train only.

    Args:
        path: the folder, PATH above.
        split: "train" or "test".
        image_size: side in pixels of the square that images are resized and cropped to; needed if sizes differ.

    Raises:
        UserError: the folder, the split or the images of a class are missing; the test part has other classes.

    Example:
        >>> open_folder("/nowhere", "train")
        Traceback (most recent call last):
        uiat.errors.UserError: imagefolder:/nowhere: there is no such folder; check the path
    """
    base, name = Path(path).expanduser(), f"imagefolder:{path}"
    if not base.is_dir():
        raise UserError(f"{name}: there is no such folder; check the path")
    if image_size is not None and image_size < 1:
        raise UserError(f"{name}: image size must be at least 1 pixel, not {image_size}")
    where = _split_folder(base, split, name)
    try:
        listed = import_torchvision(name).datasets.ImageFolder(str(where))
    except FileNotFoundError as fault:
        raise UserError(f"{name}: {where} must hold one folder of images a class ({fault})") from fault
    _check_classes(listed.classes, base / "train", name)
    paths, labels = zip(*listed.samples, strict=True)
    first = read_image(paths[0], image_size=image_size)
    _, h, w = first.shape
    return Folder(paths, torch.tensor(labels), tuple(listed.classes), name, (3, h, w), image_size)


def _split_folder(base: Path, split: str, name: str) -> Path:
    if not (base / "train").is_dir():
        if split == "train":
            return base
        raise UserError(
            f"{name}: the class folders lie directly in it, so it has a train part only; "
            f"move them to {base}/train and add {base}/{split}"
        )
    for folder in ("train",) if split == "train" else ("test", "val"):
        if (base / folder).is_dir():
            return base / folder
    raise UserError(f"{name}: neither {base}/test nor {base}/val exists; add one of them")


def _check_classes(classes: list[str], train: Path, name: str) -> None:
    """Refuse a test part with other class folders than the train part: it would silently renumber the labels."""
    if not train.is_dir():
        return
    expected = sorted(entry.name for entry in train.iterdir() if entry.is_dir())
    if expected != classes:
        odd = ", ".join(sorted(set(expected) ^ set(classes))[:5])
        raise UserError(
            f"{name}: the test part has other class folders than the train part ({odd}); make them the same"
        )
