"""Read a data set that Hugging Face `datasets` saved with save_to_disk; no code in the folder is run."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uiat.data.folder_layout import TEST, TRAIN, open_base
from uiat.data.image_file import decode_image
from uiat.data.image_set import ImageSet
from uiat.data.map_dataset import from_dataset
from uiat.errors import UserError
from uiat.system.bounded_files import read_file
from uiat.system.home import expand_home

_DICT, _STATE = "dataset_dict.json", "state.json"
_LABEL_NAMES = ("label", "labels")


def read_hf(path: str, split: str, *, image_size: int | None = None) -> ImageSet:
    """Read one split of a saved data set into memory.

    The columns are found by their features: the one of type Image, or an array of three dimensions; the one of type
    ClassLabel, or else of whole numbers. Of several labels, one called "label" is taken. A folder of one `Dataset` has
    one part, which is then whichever part is asked for.

    Args:
        path: the folder that save_to_disk wrote.
        split: "train" or "test"; where there is no test split, "validation" is taken.
        image_size: side in pixels of the square that images are resized and cropped to; needed if sizes differ.

    Raises:
        UserError: `datasets` is not installed, no such folder or split, a damaged one, columns that cannot be told.

    Example:
        >>> read_hf("/missing", "train")
        Traceback (most recent call last):
        uiat.errors.UserError: hf:/missing: there is no such folder; check the path
    """
    name = f"hf:{path}"
    folder = _choose_part(open_base(path, name), split, name)
    data = _load(folder, name)
    image, label = _find_image(data, name), _find_label(data, name)
    rows = _Rows(data, image, label, image_size, name)
    return from_dataset(rows, name=name, partial=split == "test" and rows.classes is not None)


def is_divided_hf(path: str) -> bool:
    """True if a saved data set has splits, and is not one `Dataset`.

    Example:
        >>> is_divided_hf("/missing")
        False
    """
    return (expand_home(path) / _DICT).is_file()


def list_hf_files(path: str) -> list[Path]:
    """List the files of a saved data set, those of its splits behind them; none where a folder holds no such set.

    Only the folder itself and its splits are looked at, whatever else lies below them.

    Example:
        >>> list_hf_files("/missing")
        []
    """
    base = expand_home(path)
    if not any((base / name).is_file() for name in (_DICT, _STATE)):
        return []
    folders = [base, *(each for each in base.iterdir() if (each / _STATE).is_file())]
    return sorted(each for folder in folders for each in folder.iterdir() if each.is_file())


def _choose_part(base: Path, split: str, name: str) -> Path:
    """Return the folder of a split."""
    if (base / _STATE).is_file():
        return base
    if not (base / _DICT).is_file():
        raise UserError(f"{name}: it has neither {_STATE} nor {_DICT}; give a folder that save_to_disk wrote")
    words = TRAIN if split == "train" else TEST
    there = [each.name for each in sorted(base.iterdir()) if (each / _STATE).is_file()]
    chosen = next((word for word in words if word in there), None)
    if chosen is None:
        raise UserError(f"{name}: it has no {split} split, but {', '.join(there) or 'none'}")
    return base / chosen


def _load(folder: Path, name: str) -> Any:
    """Load the table; only Arrow files that lie in the folder itself are opened."""
    try:
        import datasets
    except ImportError as fault:
        raise UserError(f"{name} needs the package datasets: pip install 'uiat[datasets]'") from fault
    try:
        files = [str(each["filename"]) for each in json.loads(read_file(folder / _STATE))["_data_files"]]
        outside = [file for file in files if Path(file).name != file]
        if outside:
            raise UserError(f"{name}: {_STATE} names {outside[0]!r}, which lies outside the folder: it is not opened")
        data = datasets.load_from_disk(str(folder)).with_format(None)
    except UserError:
        raise
    except Exception as fault:  # whatever a damaged folder leads the library to
        raise UserError(f"{name}: {folder} cannot be read: {type(fault).__name__}: {_line(fault)}") from fault
    if len(data) == 0:
        raise UserError(f"{name}: the set is empty; give it at least one image")
    return data


def _line(fault: Exception) -> str:
    return " ".join(str(fault).split())[:150]


def _find_image(data: Any, name: str) -> str:
    """Return the column of the images."""
    kinds = {column: type(feature).__name__ for column, feature in data.features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    images = images or [column for column, kind in kinds.items() if kind in ("Array2D", "Array3D")]
    if len(images) == 1:
        return images[0]
    if not images:
        raise UserError(f"{name}: no column of type Image among {_columns(kinds)}")
    raise UserError(f"{name}: {' and '.join(images)} may both be the images: keep one, with remove_columns")


def _find_label(data: Any, name: str) -> str:
    """Return the column of the labels."""
    features = data.features
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [c for c, kind in kinds.items() if kind == "Value" and "int" in str(features[c].dtype)]
    if len(labels) > 1:
        labels = [column for column in labels if column in _LABEL_NAMES] or labels
    if len(labels) == 1:
        return labels[0]
    if not labels:
        raise UserError(f"{name}: no column of type ClassLabel or of whole numbers among {_columns(kinds)}")
    raise UserError(f"{name}: {' and '.join(labels)} may all be the labels: keep one, with remove_columns")


def _columns(kinds: dict[str, str]) -> str:
    return ", ".join(f"{column} ({kind})" for column, kind in list(kinds.items())[:8])


class _Rows:
    """The images and labels of a table, as a map-style dataset; pictures are decoded here, and from their bytes alone.

    The library's own decoder would open any path or address that a row names.
    """

    def __init__(self, data: Any, image: str, label: str, image_size: int | None, name: str) -> None:
        import datasets

        self.is_picture = type(data.features[image]).__name__ == "Image"
        self.classes = getattr(data.features[label], "names", None)
        data = data.select_columns([image, label])
        self.data = data.cast_column(image, datasets.Image(decode=False)) if self.is_picture else data
        self.image, self.label, self.image_size, self.name = image, label, image_size, name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        row = self.data[i]
        value, label = row[self.image], row[self.label]
        if label is None or value is None:
            raise UserError(f"{self.name}: row {i} has no {self.label if label is None else self.image}")
        if not self.is_picture:
            return _to_pixels(np.asarray(value), f"{self.name}: the image of row {i}"), label
        if value["bytes"] is None:
            raise UserError(f"{self.name}: the image of row {i} is the name of a file outside, which is not opened")
        return decode_image(io.BytesIO(value["bytes"]), f"{self.name}, row {i}", image_size=self.image_size), label


def _to_pixels(array: np.ndarray, what: str) -> np.ndarray | torch.Tensor:
    """Return an array as bytes or floats; as a tensor where its channels are first, see `from_dataset`."""
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255:
            raise UserError(f"{what} runs from {array.min()} to {array.max()}: give uint8 or floats in [0, 1]")
        array = array.astype(np.uint8)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] in (1, 3):
        raise UserError(f"{what} has shape {array.shape}: the channels may be first or last")
    return torch.from_numpy(array) if array.ndim == 3 and array.shape[0] in (1, 3) else array
