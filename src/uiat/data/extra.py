"""Extra training images from an npz file, as generated sets are published: mapped into memory, never copied whole."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uiat.checks import Classes, checked
from uiat.data.image_set import as_float
from uiat.errors import UserError
from uiat.shapes import Int, UInt8
from uiat.system.home import expand_home, seen_from

# What numpy and zipfile raise of a damaged file.
_DAMAGE = (
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
_LOCAL_HEADER = 30  # bytes before the name in a zip's header of a member


@dataclass(frozen=True)
class ExtraImages:
    """Images of an npz file, beside those of the training set; see `open_extra`.

    Args:
        images: (M, H, W, C), uint8; mapped from the file, unless that is compressed.
        labels: int64, (M,); None until a teacher has labelled them.
        path: the file.
        checksum: of the file's arrays, as the file itself says it.
    """

    images: np.ndarray
    labels: Tensor | None
    path: Path
    checksum: str

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"ExtraImages of {self.path}: {len(self):,} images of uint8"

    def take(self, index: Int[Tensor, "b"]) -> UInt8[Tensor, "b c h w"]:
        """Read the images at some positions; nothing else of the file is read."""
        return torch.from_numpy(self.images[index.numpy()]).permute(0, 3, 1, 2)


@checked
def open_extra(
    path: str | Path, *, image_shape: tuple[int, int, int], num_classes: Classes, labelled: bool = True
) -> ExtraImages:
    """Open an npz file of images `image` (M, H, W, C), uint8, and their classes `label` (M,).

    It is the layout of the sets of Gowal et al. (2021) and Wang et al. (2023), of a million images and more. The images
    of a file of `numpy.savez` are mapped into memory: a batch reads its own rows, and the processes of one machine
    share what the system keeps of the file. Those of `numpy.savez_compressed` are unpacked into memory, as uint8.

    Args:
        path: the file.
        image_shape: (C, H, W) of the training set; images of one channel may be without it in the file, (M, H, W).
        num_classes: K.
        labelled: False to leave the labels of the file out.

    Raises:
        UserError: no such file, a damaged one, or one whose arrays are not these.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", image=np.zeros((5, 8, 8, 3), np.uint8), label=np.arange(5))
        ...     extra = open_extra(f"{folder}/a.npz", image_shape=(3, 8, 8), num_classes=5)
        >>> extra.labels.tolist()
        [0, 1, 2, 3, 4]
    """
    path = expand_home(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no npz file: it is no file")
    with _named(path), zipfile.ZipFile(path) as archive:
        have = [name.removesuffix(".npy") for name in archive.namelist()]
        for key in ("image", "label")[: 1 + labelled]:
            if key not in have:
                hint = " (or set data.extra_labels to teacher)" if key == "label" else ""
                raise UserError(
                    f"{path} has no array {key!r}{hint}, but {', '.join(map(repr, have[:5])) or 'nothing'}: "
                    "numpy.savez(FILE, image=images, label=labels) writes what is asked"
                )
        images = _open_images(archive, path, image_shape)
        labels = _read_labels(archive, path, count=len(images), num_classes=num_classes) if labelled else None
        sums = [archive.getinfo(f"{key}.npy").CRC for key in ("image", "label")[: 1 + labelled]]
    return ExtraImages(images, labels, path, "-".join(f"{each:08x}" for each in sums))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Inside, what is wrong with a file becomes a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            f"no such file: {path}; data.extra is an npz file of images and labels{seen_from(path)}"
        ) from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no npz file, or a damaged one: {type(error).__name__}: {reason}") from None


def _open_images(archive: zipfile.ZipFile, path: Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Map the images of an npz file, or unpack them; returns (M, H, W, C)."""
    info = archive.getinfo("image.npy")
    with archive.open(info) as file:
        shape, fortran, dtype = _read_header(file)
        size = file.tell()
    c, h, w = image_shape
    if shape[1:] != (h, w, c) and not (c == 1 and shape[1:] == (h, w)):
        raise UserError(
            f"{path}: images must be (M, {h}, {w}, {c}), height, width and channels as in the training set, not {shape}"
        )
    if dtype != np.uint8:
        raise UserError(f"{path}: images must be uint8, where 255 is white, not {dtype}")
    if shape[0] == 0:
        raise UserError(f"{path}: there is no image in it")
    if info.compress_type != zipfile.ZIP_STORED:
        with archive.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False).reshape(-1, h, w, c)
    with open(path, "rb") as whole:
        whole.seek(info.header_offset)
        name, extra = struct.unpack("<HH", whole.read(_LOCAL_HEADER)[26:])
    begin = info.header_offset + _LOCAL_HEADER + name + extra + size
    order = "F" if fortran else "C"
    mapped = np.memmap(path, dtype=np.uint8, mode="r", offset=begin, shape=shape, order=order)  # type: ignore[call-overload]
    return np.asarray(mapped)[..., None] if len(shape) == 3 else np.asarray(mapped)


def _read_labels(archive: zipfile.ZipFile, path: Path, *, count: int, num_classes: int) -> Tensor:
    with archive.open("label.npy") as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    if values.dtype.kind not in "iu" or values.shape != (count,):
        raise UserError(
            f"{path}: label must hold {count:,} whole numbers, one for each image, not {values.dtype} of shape "
            f"{values.shape}"
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_classes:
        raise UserError(
            f"{path}: labels run from {low} to {high} but must lie in 0 .. {num_classes - 1} ({num_classes} classes)"
        )
    return torch.from_numpy(values.astype(np.int64))


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape, True for Fortran's order, and the type of an array in a file; leaves the file at its data."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def mix(
    own: tuple[Tensor, Tensor], extra: ExtraImages, index: Int[Tensor, "b"], *, first: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Put the images and labels of a batch together from the training set's and the extra ones.

    Args:
        own: images (a, C, H, W) and labels (a,) of those rows of the batch that are of the training set, in order.
        extra: the extra images, labelled.
        index: position of each row of the batch, on the CPU: below `first` in the training set, else behind it.
        first: number of images in the training set.
        device: where the batch is to be.

    Returns:
        Images (b, C, H, W), of uint8 or, if the training set's are, of float32 in [0, 1]; labels (b,).
    """
    if extra.labels is None:
        raise UserError(f"{extra.path}: the extra images have no labels yet")
    is_extra = index >= first
    place = torch.argsort(torch.argsort(is_extra.int(), stable=True))  # of each row, with the extra ones last
    rows = index[is_extra] - first
    images, labels = extra.take(rows).to(device, non_blocking=True), extra.labels[rows].to(device, non_blocking=True)
    if own[0].is_floating_point():
        images = as_float(images)
    place = place.to(device, non_blocking=True)
    return torch.cat([own[0], images]).index_select(0, place), torch.cat([own[1], labels]).index_select(0, place)
