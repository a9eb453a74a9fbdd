"""Data sets of the user's own by name: file.py:NAME, package.module:NAME, or an installed package's entry point."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from torch import Tensor

from uiat.data.catalog import DATA_SETS, FORMATS
from uiat.data.image_folder import Folder
from uiat.data.image_set import ImageSet, from_tensors
from uiat.data.map_dataset import from_dataset
from uiat.data.stream import Stream, is_iterable_only, open_stream
from uiat.errors import UserError
from uiat.system.own_code import find_entry_point, own_code

ENTRY_POINTS = "uiat.datasets"


def is_data_code(name: object) -> bool:
    """True if the name of a data set says where it is to be imported from. Imports nothing.

    Example:
        >>> is_data_code("mine.py:faces"), is_data_code("npz:faces.npz"), is_data_code("digits")
        (True, False, False)
    """
    if not isinstance(name, str) or name in DATA_SETS or name.partition(":")[0] in FORMATS:
        return False
    return ":" in name or bool(entry_points(group=ENTRY_POINTS, name=name))


def open_own_data(name: str, split: str) -> ImageSet | Folder | Stream:
    """Call a function of the user's own for a part of its data set. Runs its code.

    Args:
        name: file.py:NAME, package.module:NAME, or the name of an entry point in the group "uiat.datasets": a function
            that is called with "train" or "test". It returns images and labels as two tensors or arrays, an `ImageSet`
            or `Folder`, a map-style dataset, or, to be evaluated on alone, any iterable of (images, labels).
        split: "train" or "test".

    Raises:
        UserError: no such file, module or name, one that raises an error, or data that cannot be images and labels.

    Example:
        >>> open_own_data("json:loads", "test")
        Traceback (most recent call last):
        uiat.errors.UserError: the data set json:loads could not be opened: JSONDecodeError: ...
    """
    if ":" not in name:
        found = find_entry_point(ENTRY_POINTS, name)
        assert found is not None  # `is_data_code` has seen it
        return _convert(_guarded(found, name, split), name, split)
    with own_code(name, what="data set") as found:
        return _convert(_guarded(found, name, split), name, split)


def _guarded(function: Callable[[Any], Any], name: str, given: Any) -> Any:
    """Call what runs the user's code; whatever that raises is a UserError."""
    try:
        return function(given)
    except UserError:
        raise
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the data set {name} could not be opened: {type(error).__name__}: {reason}") from error


def _convert(made: Any, name: str, split: str) -> ImageSet | Folder | Stream:
    """Return what a function has returned as a set of the package's."""
    if isinstance(made, ImageSet | Folder):
        return replace(made, name=name)
    if isinstance(made, list | tuple) and any(isinstance(part, Tensor | np.ndarray) for part in made):
        if len(made) != 2:
            raise UserError(f"the data set {name} returned {len(made)} arrays, not two: return images and labels alone")
        return from_tensors(*made, name=name)
    if made is None or isinstance(made, Mapping | str):
        what = "nothing" if made is None else f"a {type(made).__name__}"
        raise UserError(
            f"the data set {name} returned {what}: return images and labels as two tensors or "
            "arrays, an ImageSet, a Folder, a map-style dataset or, to evaluate on alone, an iterable of batches"
        )
    if not is_iterable_only(made):
        data: ImageSet = _guarded(partial(from_dataset, name=name), name, made)
        return data
    if split == "train":
        raise UserError(
            f"the data set {name} is a {type(made).__name__}, which passes by once and cannot be shuffled: return "
            "tensors, an ImageSet or a map-style dataset to train on"
        )
    return open_stream(made, name=name)
