"""Read a data set from folders of image files, on demand: for sets that may be too large for memory."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uiat.checks import checked, checked_fields
from uiat.data.folder_layout import list_part, open_base
from uiat.data.image_file import read_image
from uiat.data.image_set import ImageSet, describe_set
from uiat.errors import UserError
from uiat.shapes import Int, UInt8


@checked_fields
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

    def __repr__(self) -> str:
        return describe_set(self, f"image files, {self.image_shape} once decoded")

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
        try:
            images = torch.empty(len(self), *self.image_shape, dtype=torch.uint8)
        except (RuntimeError, MemoryError) as fault:
            raise UserError(
                f"{self.name}: {len(self)} images of {self.image_shape[1:]} pixels do not fit in memory; give a "
                "smaller image size"
            ) from fault

        def put(i: int) -> None:
            images[i] = self[i][0]

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the interpreter's lock
            for _ in pool.map(put, range(len(self))):
                pass  # going through the results raises what a thread raised
        return ImageSet(images, self.labels, self.classes, self.name, partial=True)


@checked
def open_folder(path: str | os.PathLike[str], split: str, *, image_size: int | None = None) -> Folder:
    """List a folder of images: PATH/train/CLASS/* and PATH/test/CLASS/* (or PATH/val), or PATH/CLASS/* to train only.

    Train, training, Test, testing, valid and the like are taken as well, with a warning that says so. Classes are in
    the order of their names, or of their numbers if all of them are integers. Hidden folders and files are passed over.

    Args:
        path: the folder, PATH above.
        split: "train" or "test".
        image_size: side in pixels of the square that images are resized and cropped to; needed if sizes differ.

    Raises:
        UserError: the folder, the split or the images of a class are missing; the test part has other classes; the
            layout leaves in doubt what the classes are; a link leads to a folder that holds it.

    Example:
        >>> open_folder("/nowhere", "train")
        Traceback (most recent call last):
        uiat.errors.UserError: imagefolder:/nowhere: there is no such folder; check the path
    """
    name = f"imagefolder:{path}"
    base = open_base(path, name)
    if image_size is not None and image_size < 1:
        raise UserError(f"{name}: image size must be at least 1 pixel, not {image_size}")
    listing = list_part(base, split, name)
    paths, labels = zip(*listing.files, strict=True)
    _, h, w = read_image(paths[0], image_size=image_size).shape
    return Folder(paths, torch.tensor(labels), listing.classes, name, (3, h, w), image_size)
