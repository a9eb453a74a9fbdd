"""Values as arguments: take those of a plain kind, and describe any in a few words."""

import math
import numbers
import os
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uiat.errors import UserError

NO = object()  # what `take` returns for a value that is not of the kind
LONGEST_NAME, LONGEST_PATH = 255, 4_096  # of a file and of a path, in bytes, as file systems have it
_SHOWN = 80  # characters of a value in a message


def describe(value: object) -> str:
    """Describe a value in a few words, for a message.

    Example:
        >>> from torch import nn
        >>> describe(torch.zeros(2, 3)), describe("a"), describe(nn.Flatten())
        ('a tensor of torch.float32 (2, 3)', "'a'", 'a Flatten')
    """
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    if value is None or isinstance(value, str | bytes | bool | int | float | complex | Path):
        try:
            text = repr(value)
        except ValueError:  # Python does not write a number of thousands of digits
            return "a number of thousands of digits"
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"the function {value.__name__}"
    if isinstance(value, list | tuple | dict | set) and len(text := repr(value)) <= _SHOWN and "\n" not in text:
        return text
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def fits(shape: Sequence[int], dims: tuple[str | int, ...], sizes: dict[str, int]) -> bool:
    """True if a shape has these dimensions; the size of each named one is kept in `sizes`, or has to be as it is there.

    Example:
        >>> sizes = {}
        >>> fits((4, 10), ("b", "k"), sizes), fits((3,), ("b",), sizes), fits((4, 1, 8), ("b", "..."), sizes)
        (True, False, True)
    """
    if dims and dims[-1] == "...":
        dims = dims[:-1]
        if len(shape) < len(dims):
            return False
    elif len(shape) != len(dims):
        return False
    for dim, size in zip(dims, shape, strict=False):
        if (dim if isinstance(dim, int) else sizes.setdefault(dim, size)) != size:
            return False
    return True


def take_bool(value: Any) -> Any:
    """Take True or False; or NO."""
    return bool(value) if isinstance(value, bool | np.bool_) else NO


def take_whole(value: Any) -> Any:
    """Take a whole number, which True is not; or NO."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_) else NO


def take_number(value: Any) -> Any:
    """Take a number as a float, which True is not; or NO."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        return NO
    try:
        return float(value)
    except OverflowError:  # a whole number beyond what floats reach
        return math.inf


def take_path(value: Any) -> Any:
    """Take a path that a file system can have; or NO."""
    if not isinstance(value, str | os.PathLike):
        return NO
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        return NO
    size = len(os.fsencode(text))
    if size > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in text.split(os.sep)):
        raise UserError(f"{describe(text)} is too long for a path: {size} bytes")
    return value


def take_text(value: Any) -> Any:
    """Take a text; or NO."""
    return str(value) if isinstance(value, str) else NO


def take_tensor(value: Any) -> Any:
    """Take a tensor that is neither sparse nor nested; or NO."""
    plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested
    return value if plain else NO


def take_device(value: Any) -> Any:
    """Take a device that this machine has; or NO."""
    if not isinstance(value, str | torch.device):
        return NO
    try:
        torch.empty(0, device=value)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"device {describe(str(value))} cannot be used here: {str(error).splitlines()[0][:200]}"
        ) from None
    return value


# What an argument's tensor may hold, and its words. Whole numbers are labels or positions everywhere here.
DTYPES = {
    "Float": ("floats", lambda dtype: dtype.is_floating_point),
    "Int": ("int64", lambda dtype: dtype == torch.int64),
    "Bool": ("bool", lambda dtype: dtype == torch.bool),
    "UInt8": ("numbers", lambda dtype: dtype == torch.uint8),
    "Float64": ("numbers", lambda dtype: dtype == torch.float64),
}
