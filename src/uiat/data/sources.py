"""Open a data set by its name: one of the catalogue, a file or folder in a known format, or code of the user's own."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from uiat.checks import checked
from uiat.data.catalog import DATA_SETS, FORMATS, NAMES, SPLITS, TorchvisionReader, read_torchvision
from uiat.data.hf_folder import is_divided_hf, read_hf
from uiat.data.image_folder import Folder, open_folder
from uiat.data.image_set import ImageSet, as_float
from uiat.data.npz_file import is_divided_npz, read_npz
from uiat.data.own_data import is_data_code, open_own_data
from uiat.data.stream import Stream
from uiat.errors import UserError, nearest
from uiat.shapes import Float, Int
from uiat.system.home import expand_home

_READERS: dict[str, Callable[..., ImageSet | Folder]] = {"imagefolder": open_folder, "npz": read_npz, "hf": read_hf}
_ARE_DIVIDED: dict[str, Callable[[str], bool]] = {"npz": is_divided_npz, "hf": is_divided_hf}


def default_root() -> Path:
    """Return the folder that data sets are kept in: the environment variable UIAT_DATA, else ~/.cache/uiat/data.

    Example:
        >>> isinstance(default_root(), Path)
        True
    """
    return expand_home(os.environ.get("UIAT_DATA") or "~/.cache/uiat/data")


@checked
def open_data(
    name: str,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    image_size: int | None = None,
) -> ImageSet | Folder | Stream:
    """Open a data set by name: in memory, except that an image folder is only listed and decoded when asked.

    Args:
        name: one of `NAMES`, such as "digits", "cifar10", "imagefolder:PATH", "npz:FILE" or "hf:FOLDER"; or code to
            call, which runs it: "file.py:function", "package.module:function", an entry point in "uiat.datasets".
        split: "train" or "test".
        root: folder in which the files are, or to which they are downloaded; see `default_root`.
        download: True to fetch files that are missing.
        image_size: for imagefolder:PATH and hf:FOLDER, the side in pixels that images are resized and cropped to.

    Raises:
        UserError: the name or split is unknown, files are missing and cannot be fetched, or the set fails its `check`.

    Example:
        >>> open_data("digits", "test").name
        'digits'
    """
    if split not in SPLITS:
        raise nearest("split", split, SPLITS)
    kind, _, path = name.partition(":")
    if kind in FORMATS and path:
        return _READERS[kind](path, split, image_size=image_size)
    reader = DATA_SETS[name].reader if name in DATA_SETS else None
    if reader is None and (not is_data_code(name) or _is_mistyped(kind)):
        raise nearest("data set", name, NAMES)
    if image_size is not None:
        raise UserError(f"{name} has images of one size; an image size is for imagefolder:PATH and hf:FOLDER only")
    if reader is None:
        return open_own_data(name, split)
    if not isinstance(reader, TorchvisionReader):
        return reader(split)
    folder = expand_home(root) if root else default_root()
    return read_torchvision(name, reader, split, root=folder, download=download)


def _is_mistyped(kind: str) -> bool:
    """True for what is nearly the name of a format: no module to import."""
    return kind in FORMATS or bool(difflib.get_close_matches(kind, FORMATS, cutoff=0.6))


def can_open(name: str) -> bool:
    """True if a name is one of a data set that `open_data` may find; False for what data given in Python is called.

    Example:
        >>> can_open("digits"), can_open("imagefolder:PATH"), can_open("tensors")
        (True, True, False)
    """
    return name in DATA_SETS or name.partition(":")[0] in FORMATS or is_data_code(name)


def has_test_part(name: str) -> bool:
    """True unless a data set is a file or folder of one part, which is all that a run on it was trained on.

    Example:
        >>> has_test_part("digits")
        True
    """
    kind, _, path = name.partition(":")
    return kind not in _ARE_DIVIDED or not path or _ARE_DIVIDED[kind](path)


@checked
def load(
    name: str,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    image_size: int | None = None,
) -> ImageSet:
    """Load a data set by name into memory; arguments and errors as in `open_data`.

    Example:
        >>> data = load("digits", "train")
        >>> len(data), data.image_shape, data.num_classes
        (1258, (1, 8, 8), 10)
    """
    data = open_data(name, split, root=root, download=download, image_size=image_size)
    if isinstance(data, Stream):
        raise UserError(f"{name} passes by once, so it is evaluated on and never loaded: return tensors to load it")
    return data.decode()


@checked
def tensors(
    name: str, split: str, root: str | os.PathLike[str] | None = None
) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, "n"]]:
    """Load a data set by name as float32 images in [0, 1] and int64 labels; arguments and errors as in `open_data`.

    Example:
        >>> x, y = tensors("digits", "test")
        >>> x.shape, x.dtype, y.dtype
        (torch.Size([539, 1, 8, 8]), torch.float32, torch.int64)
    """
    data = load(name, split, root=root)
    return as_float(data.images), data.labels
