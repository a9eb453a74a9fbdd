"""Models from the user's own code."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from uiat.errors import UserError
from uiat.system.own_code import own_code


def own_model(name: str, *, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Call the user's function, `path/to/file.py:function` or `package.module:function`, and return its model.

    The file's own folder (or, for a module, the working folder) is searched last for imports while the function is
    found and called. An error inside the function itself is passed on as it is.

    Raises:
        UserError: for a missing file, module or function, one that does not import, one that does not take
            `num_classes` and `image_shape`, or one that returns anything but an `nn.Module`.

    Example:
        >>> own_model("torch.nn:Identity", num_classes=2, image_shape=(3, 32, 32))
        Identity()
    """
    with own_code(name, what="model") as function:
        _check_signature(name, function)
        model = function(num_classes=num_classes, image_shape=image_shape)
    if not isinstance(model, nn.Module):
        raise UserError(f"{name!r} returned {_describe(model)}; it must return a torch.nn.Module")
    return model


def _describe(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _check_signature(name: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
        signature.bind(num_classes=2, image_shape=(3, 32, 32))
    except ValueError:  # a function written in C may not say what it takes
        return
    except TypeError as error:
        called = f"{name.rpartition(':')[2]}(num_classes=, image_shape=)"
        raise UserError(f"{name} takes {signature}; it is called as {called} and must take both") from error
