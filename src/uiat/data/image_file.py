"""Read one image file as 8-bit RGB, whatever Pillow makes of it, and refuse what has no one meaning by its name."""

import io
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from uiat.data.notices import warn_once
from uiat.errors import UserError
from uiat.shapes import UInt8
from uiat.system.extras import from_extra

# Where Pillow itself refuses an image as a decompression bomb, unless its limit was lifted by somebody else.
MAX_PIXELS = 178_956_970
# What is often found under an image's name, by its first bytes, and what to do.
_IMPOSTORS = {
    b"version https://git-lfs": "it is a git-lfs pointer; run `git lfs pull` in its repository",
    b"<!DOCTYPE": "it is a web page; download the image again",
    b"<html": "it is a web page; download the image again",
    b"PK\x03\x04": "it is a zip archive; unpack it",
    b"%PDF": "it is a PDF document; export it as an image",
}


def import_torchvision(purpose: str) -> Any:
    """Import and return torchvision, which the rest of the package works without.

    Raises:
        UserError: torchvision is missing or does not fit the installed torch.

    Example:
        >>> import_torchvision("cifar10").__name__  # doctest: +SKIP
        'torchvision'
    """
    with from_extra("data", purpose):
        import torchvision
        import torchvision.datasets
        import torchvision.transforms.functional
    return torchvision


def read_image(path: str, *, image_size: int | None = None) -> UInt8[Tensor, "3 h w"]:
    """Read an image file as RGB; resize its shorter side to `image_size` and cut out the middle square.

    16-bit pixels are scaled to 8 bits, grey becomes three equal channels, and an alpha channel is dropped, with a
    warning where it was not opaque.

    Raises:
        UserError: the file is no image that Pillow reads, is damaged or gigantic, or its pixels have no fixed range.

    Example:
        >>> read_image("missing.png")  # doctest: +SKIP
        Traceback (most recent call last):
        uiat.errors.UserError: cannot read the image missing.png: there is no such file; repair or remove it
    """
    try:
        _check_file(path)
        with open(path, "rb") as file:
            return decode_image(file, path, image_size=image_size)
    except UserError:
        raise
    except Exception as fault:
        raise _unreadable(path, _reason(fault)) from fault


def decode_image(file: io.BufferedIOBase, what: str, *, image_size: int | None = None) -> UInt8[Tensor, "3 h w"]:
    """Decode an image as `read_image` does.

    Args:
        file: the open file, or the bytes of one.
        what: the file or item, for messages.
        image_size: as for `read_image`.

    Raises:
        UserError: as for `read_image`.

    Example:
        >>> import io
        >>> decode_image(io.BytesIO(b"%PDF"), "row 3")
        Traceback (most recent call last):
        uiat.errors.UserError: cannot read the image row 3: it is a PDF document; export it as an image
    """
    ops: Any = import_torchvision("an image folder").transforms.functional
    try:
        image = _decode(file, what)
        if image_size is not None:
            image = ops.center_crop(ops.resize(image, image_size), [image_size, image_size])
        pixels: Tensor = ops.pil_to_tensor(image)
    except UserError:
        raise
    except Exception as fault:  # Pillow's readers raise whatever a damaged file leads them to
        raise _unreadable(what, _reason(fault)) from fault
    return pixels


def to_8_bit(image: Any, what: str) -> Any:
    """Return a PIL image as mode L or RGB, its values scaled by the range of its format.

    Args:
        image: the image, of any mode but F, whose values have no fixed range.
        what: the file or item, for messages.

    Raises:
        UserError: its values have no fixed range.
    """
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "F":
        raise UserError(
            f"{what}: its pixels are floating-point numbers, which have no fixed range; save it with 8 or 16 bits a "
            "channel"
        )
    if image.mode.startswith("I"):
        return _from_integers(image, what)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            warn_once(
                f"{what} is transparent in places: the alpha channel is dropped, and the colours beneath it count; "
                "this is said for the first such image only",
                key=f"alpha of {Path(what).parent.parent}",
            )
    return image.convert("RGB")


def _from_integers(image: Any, what: str) -> Any:
    """Scale a grey image of more than 8 bits, rounding to the nearest; Pillow's own conversion would clip it."""
    from PIL import Image

    # Mode I holds 32 bits, yet is also how Pillow reads formats whose values end at 65535.
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise UserError(
            f"{what}: its pixels are 32-bit integers, which have no fixed range; save it with 8 or 16 bits a channel"
        )
    largest = 2 ** _bits(image) - 1
    values = np.array(image).astype(np.int64)
    if values.min() < 0 or values.max() > largest:
        raise UserError(f"{what}: its pixels leave the range 0 .. {largest} of its format; save it with 8 bits")
    if largest == 65535 and 255 < values.max() < 4096:
        warn_once(
            f"{what} has 16 bits a pixel and none above 4095 of 65535, so it becomes nearly black: if it was taken "
            "with 12 bits, multiply its pixels by 16; this is said for the first such image only",
            key=f"dark pixels of {Path(what).parent.parent}",
        )
    return Image.fromarray(((values * 255 + largest // 2) // largest).astype(np.uint8))


def _bits(image: Any) -> int:
    """Return the bits that a grey pixel has in the file: TIFF also knows 10 and 12."""
    tags = getattr(image, "tag_v2", None)  # of TIFF only; 258 is BitsPerSample
    return int(tags[258][0]) if tags is not None and 258 in tags and tags[258][0] > 8 else 16


def _check_file(path: str) -> None:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise _unreadable(path, "it is a folder")
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise _unreadable(path, "it is no regular file")
    if status.st_size == 0:
        raise _unreadable(path, "it is empty")


def _decode(file: Any, what: str) -> Any:
    from PIL import Image

    start = file.read(32).lstrip()
    for magic, reason in _IMPOSTORS.items():
        if start.lower().startswith(magic.lower()):
            raise _unreadable(what, reason)
    file.seek(0)
    image = Image.open(file)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _unreadable(what, _too_large(width, height))
    image.load()
    return to_8_bit(image, what).convert("RGB")


def _too_large(width: int, height: int) -> str:
    return f"it has {width} x {height} pixels, and at most {MAX_PIXELS:,} are read; scale it down"


def _reason(fault: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(fault, FileNotFoundError):
        return "there is no such file"
    if isinstance(fault, UnidentifiedImageError):
        return "it is no image that Pillow knows"
    if isinstance(fault, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it is gigantic ({fault})"
    if isinstance(fault, MemoryError):
        return "it does not fit in memory"
    words = " ".join((fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)).split())
    return f"{words[:150] or 'it is damaged'} ({type(fault).__name__})"


def _unreadable(path: str, reason: str) -> UserError:
    repair = "" if ";" in reason else "; repair or remove it"
    return UserError(f"cannot read the image {path}: {reason}{repair}")
