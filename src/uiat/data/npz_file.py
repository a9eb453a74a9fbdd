"""Read images and labels from a NumPy .npz file; which arrays they are is told by their names, and never guessed."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from uiat.data.image_set import ImageSet, from_tensors
from uiat.errors import UserError
from uiat.system.home import expand_home, seen_from

# Names of the arrays, in any case. Of a file with parts "x_train", "train_x", "trainx" and the like are one name.
_IMAGES = ("x", "images", "image", "data")
_LABELS = ("y", "labels", "label", "targets", "target")
_PARTS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}
_CLASSES, _LAYOUT = "classes", "layout"
_MOST_CLASSES = 1_000_000
_CHANNELS = (1, 2, 3, 4)  # numbers of channels by which an axis is known as theirs


def read_npz(path: str, split: str, *, image_size: int | None = None) -> ImageSet:
    """Read one part of an .npz file into memory. Nothing in the file is unpickled.

    The arrays are `x` and `y` (or images and labels) of a file with one part, which is then whichever part is asked
    for, or `x_train`, `y_train`, `x_test`, `y_test` (also train_images, val_labels and the like). Images are uint8 or
    floats in [0, 1], (n, h, w), (n, c, h, w) or (n, h, w, c); labels (n,) or (n, 1). An array `classes` names the
    classes; a text `layout`, "NCHW" or "NHWC", says where the channels are in images whose shape leaves it open.

    Args:
        path: the file.
        split: "train" or "test".
        image_size: refused: images of an array have one size.

    Raises:
        UserError: no such file, a damaged one, arrays that are missing or cannot be images and labels.

    Example:
        >>> read_npz("missing.npz", "train")
        Traceback (most recent call last):
        uiat.errors.UserError: npz:missing.npz: there is no such file; check the path, seen from ...
    """
    name = f"npz:{path}"
    if image_size is not None:
        raise UserError(f"{name} has images of one size; an image size is for imagefolder:PATH and hf:FOLDER only")
    with _open(path, name) as arrays:
        keys = _find_keys(arrays, name)
        if split not in keys:
            raise UserError(f"{name} has no {split} part: add arrays x_{split} and y_{split}")
        labels = {part: _read_labels(arrays, of_part[1], name) for part, of_part in keys.items()}
        _require_same_images(arrays, [images for images, _ in keys.values()], name)
        images = _read(arrays, keys[split][0], name)
        classes, layout = _read_classes(arrays, name), _read_layout(arrays, name)
    pixels = _channels_first(images, layout, f"{name}: {keys[split][0]}")
    if len(pixels) != len(labels[split]):
        raise UserError(
            f"{name}: {keys[split][0]} holds {len(pixels)} images and {keys[split][1]} {len(labels[split])} labels"
        )
    if split == "train" and not classes:
        _require_trained(labels, keys, name)
    highest = max(int(each.max(initial=-1)) for each in labels.values())
    count = len(classes) if classes else max(highest + 1, 1)
    part = split == "test" and (bool(classes) or len(set(keys.values())) == len(keys))
    data = from_tensors(pixels, labels[split], num_classes=count, name=name, partial=part)
    return replace(data, classes=classes) if classes else data


def is_divided_npz(path: str) -> bool:
    """True if an .npz file has a train and a test part; False for one of `x` and `y` alone.

    Example:
        >>> is_divided_npz("missing.npz")
        Traceback (most recent call last):
        uiat.errors.UserError: npz:missing.npz: there is no such file; check the path, seen from ...
    """
    with _open(path, f"npz:{path}") as arrays:
        keys = _find_keys(arrays, f"npz:{path}")
    return len(set(keys.values())) == len(keys)


@contextmanager
def _open(path: str, name: str) -> Iterator[Mapping[str, Any]]:
    """Inside, the arrays of the file are read when asked for; whatever a damaged file raises is a UserError."""
    file = expand_home(path)
    if not file.is_file():
        missing = f"there is no such file; check the path{seen_from(path)}"
        raise UserError(f"{name}: {'it is a folder; give the .npz file' if file.is_dir() else missing}")
    try:
        with open(file, "rb") as content:
            arrays = np.load(content, allow_pickle=False)
            if not hasattr(arrays, "files"):
                raise UserError(f"{name}: it holds one array (.npy); save images and labels by np.savez(FILE, x=, y=)")
            with arrays:
                yield arrays
    except UserError:
        raise
    except MemoryError as fault:
        raise UserError(f"{name}: its arrays do not fit in memory") from fault
    except Exception as fault:  # whatever a damaged file leads numpy and zipfile to
        if "allow_pickle" in str(fault) or "pickle" in str(fault):
            reason = "it holds Python objects (pickled), which are never read; save arrays of numbers"
        elif isinstance(fault, zipfile.BadZipFile | EOFError | OSError):
            reason = f"it is damaged or no .npz file ({' '.join(str(fault).split())[:100]})"
        else:
            reason = f"it cannot be read: {type(fault).__name__}: {' '.join(str(fault).split())[:100]}"
        raise UserError(f"{name}: {reason}") from fault


def _find_keys(arrays: Any, name: str) -> dict[str, tuple[str, str]]:
    """Return the names of images and labels by part; a file with one part has it as the train and as the test part."""
    by_name: dict[str, str] = {}
    for key in arrays.files:
        plain = key.lower().replace("_", "").replace("-", "")
        if plain in by_name:
            raise UserError(f"{name}: the arrays {by_name[plain]} and {key} may be meant by one name: rename one")
        by_name[plain] = key
    found: dict[str, tuple[str, str]] = {}
    for split, words in _PARTS.items():
        for word in words:
            pair = _pair(by_name, [(word + kind, kind + word) for kind in _IMAGES], _LABELS, word, name)
            if pair is not None:
                found[split] = pair
                break
    if found:
        return found
    pair = _pair(by_name, [(kind,) for kind in _IMAGES], _LABELS, "", name)
    if pair is None:
        have = ", ".join(arrays.files[:6]) or "none"
        raise UserError(
            f"{name}: no images and labels among its arrays ({have}); call them x and y, or x_train, y_train, x_test, "
            "y_test"
        )
    return {"train": pair, "test": pair}


def _pair(
    by_name: Mapping[str, str], images: list[tuple[str, ...]], kinds: tuple[str, ...], word: str, name: str
) -> tuple[str, str] | None:
    """Return the names of the images and the labels of a part; None if it has neither."""
    x = [by_name[each] for group in images for each in group if each in by_name]
    y = [by_name[each] for kind in kinds for each in dict.fromkeys((word + kind, kind + word)) if each in by_name]
    for have, what in ((x, "images"), (y, "labels")):
        if len(have) > 1:
            raise UserError(f"{name}: {' and '.join(have)} may both be the {what}: keep one of them")
    if bool(x) != bool(y):
        here, missing = (x[0], "labels") if x else (y[0], "images")
        raise UserError(
            f"{name}: {here} has no {missing} beside it; add an array {'y' if x else 'x'}{word and '_'}{word}"
        )
    return (x[0], y[0]) if x else None


def _read(arrays: Mapping[str, Any], key: str, name: str) -> np.ndarray:
    array: np.ndarray = arrays[key]
    if array.dtype.kind not in "buif":
        raise UserError(f"{name}: {key} is an array of {array.dtype}, not of numbers")
    return array


def _require_same_images(arrays: Any, keys: list[str], name: str) -> None:
    """Refuse parts whose images have other sides or channels, by the headers alone: the other part stays unread."""
    shapes = {}
    for key in keys:
        with arrays.zip.open(f"{key}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shapes[key] = read(file)[0]
    if len({tuple(sorted(side for side in shape[1:] if side != 1)) for shape in shapes.values()}) > 1:
        seen = " and ".join(f"{key} has shape {shape}" for key, shape in shapes.items())
        raise UserError(f"{name}: {seen}: the images of both parts must have one size and as many channels")


def _require_trained(labels: Mapping[str, np.ndarray], keys: Mapping[str, tuple[str, str]], name: str) -> None:
    """Refuse test images of classes above those that there are training images of."""
    train, test = (int(labels[part].max(initial=-1)) if part in labels else -1 for part in _PARTS)
    if 0 <= train < test:
        here, there = keys["train"][1], keys["test"][1]
        raise UserError(
            f"{name}: {there} reaches up to {test} and {here} to {train}: add training images of these classes, an "
            "array `classes` of their names, or leave out such test images"
        )


def _read_labels(arrays: Mapping[str, Any], key: str, name: str) -> np.ndarray:
    labels = _read(arrays, key, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        hint = "; of one-hot rows give .argmax(1)" if labels.ndim == 2 else ""
        raise UserError(f"{name}: {key} must be class numbers of shape (n,), not {labels.shape}{hint}")
    if labels.dtype.kind == "f" or labels.dtype.kind == "b":
        raise UserError(f"{name}: {key} must be whole class numbers, not {labels.dtype}; convert with .astype('int64')")
    if labels.size and labels.min() < 0:
        raise UserError(f"{name}: {key} reaches down to {labels.min()}; class numbers begin at 0")
    if labels.size and labels.max() >= _MOST_CLASSES:
        raise UserError(f"{name}: {key} reaches up to {labels.max()}; class numbers are below {_MOST_CLASSES:,}")
    return labels.astype(np.int64)


def _read_classes(arrays: Any, name: str) -> tuple[str, ...]:
    """Return the names of the classes, if the file has them."""
    if _CLASSES not in arrays.files:
        return ()
    names = arrays[_CLASSES]
    if names.ndim != 1 or names.dtype.kind not in "Ui":
        raise UserError(f"{name}: {_CLASSES} must be a list of names, not an array of {names.dtype} {names.shape}")
    return tuple(str(each) for each in names.tolist())


def _read_layout(arrays: Any, name: str) -> str:
    if _LAYOUT not in arrays.files:
        return ""
    layout = str(arrays[_LAYOUT])
    if layout not in ("NCHW", "NHWC"):
        raise UserError(f"{name}: {_LAYOUT} must be NCHW or NHWC, not {layout[:20]!r}")
    return layout


def _channels_first(images: np.ndarray, layout: str, what: str) -> torch.Tensor:
    """Bring images to (n, c, h, w) as uint8 or float32; refuse a shape that may be read in two ways."""
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim != 4:
        raise UserError(f"{what} must be images (n, h, w), (n, c, h, w) or (n, h, w, c), not of shape {images.shape}")
    elif (layout or _guess_layout(images.shape, what)) == "NHWC":
        images = images.transpose(0, 3, 1, 2)
    if images.dtype.kind in "iu" and images.dtype != np.uint8:
        images = _to_bytes(images, what)
    if images.dtype.kind == "f":
        images = images.astype(np.float32, copy=False)
    images = np.ascontiguousarray(images, dtype=images.dtype.newbyteorder("="))
    return torch.from_numpy(images)


def _guess_layout(shape: tuple[int, ...], what: str) -> str:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first != last:
        return "NCHW" if first else "NHWC"
    raise UserError(
        f"{what} has shape {shape}, in which the channels may be first or last: add an array layout='NCHW' or 'NHWC'"
    )


def _to_bytes(images: np.ndarray, what: str) -> np.ndarray:
    """Take whole numbers from 0 to 255 of another type as bytes."""
    if images.size and (images.min() < 0 or images.max() > 255):
        raise UserError(
            f"{what} is of {images.dtype} and runs from {images.min()} to {images.max()}; give uint8 (255 is white) or "
            "floats in [0, 1]"
        )
    if images.size and images.max() == 1:  # as bytes they would be nearly black
        raise UserError(f"{what} is of {images.dtype} and holds 0 and 1 alone; if 1 is white, give floats")
    return images.astype(np.uint8)
