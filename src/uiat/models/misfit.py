"""Say in a sentence why a model cannot take images: their dtype, their device, their shape."""

import re
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from uiat.checks import check_labels
from uiat.errors import UserError
from uiat.models.modes import frozen

P = ParamSpec("P")
R = TypeVar("R")
# What torch and its users raise of images that a model is not made for; other errors are of the model's own code.
_MISFITS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)
_FOLDERS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
_ABOUT_TENSORS = re.compile(r"shape|\bsizes?\b|dimension|channels|dtype|scalar type|expected .* input|same device")
_IMAGES = 8


def run_model(model: Callable[[Tensor], Any], x: Tensor, *, name: str = "the model", when: str = "") -> Any:
    """Return what a model makes of images; images that it cannot take are refused in a sentence.

    Args:
        model: any module or callable.
        x: images.
        name: what the error calls the model.
        when: " in train mode" or the like, for the error.

    Raises:
        UserError: the model is of another dtype or on another device than the images, or not made for their shape. What
            its own code raises beside that is passed on as it is.

    Example:
        >>> run_model(nn.Linear(4, 2), torch.rand(3, 5))
        Traceback (most recent call last):
        uiat.errors.UserError: the model cannot take images of shape (5,): RuntimeError: mat1 and mat2 shapes ...
    """
    try:
        return model(x)
    except (UserError, torch.OutOfMemoryError):
        raise
    except _MISFITS as error:
        if not _is_of_torch(error):
            raise
        raise UserError(_misfit(model, x, error, name, when)) from error


def _is_of_torch(error: Exception) -> bool:
    """True for an error that torch has raised, or that speaks of tensors as torch does."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    inside = bool(frames) and any(frames[-1].startswith(folder) for folder in _FOLDERS)
    return inside or _ABOUT_TENSORS.search(str(error)) is not None


def _misfit(model: object, x: Tensor, error: Exception, name: str, when: str) -> str:
    """Say why a model cannot take images: the dtype, the device, or else the error of its first layer."""
    own = [p for p in model.parameters() if p.is_floating_point()] if isinstance(model, nn.Module) else []
    if own and own[0].device != x.device:
        return f"{name} is on {own[0].device} and the images on {x.device}: move one of them to the other"
    if own and own[0].dtype != x.dtype:
        return f"{name} has weights of {own[0].dtype}, but the images are {x.dtype}: give it model.to(images.dtype)"
    reason = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{name} cannot take images of shape {tuple(x.shape[1:])}{when}: {type(error).__name__}: {reason}"


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """Say in a sentence why a call has failed, if its model cannot take its images; costs nothing where none fails.

    Looked at are the arguments `model` and `x`, `y`, or a batch or examples that hold them.

    Raises:
        UserError: the model cannot take the images, or labels are beyond its classes.

    Example:
        >>> @explained
        ... def predict(model, x):
        ...     return model(x)
        >>> predict(nn.Linear(4, 2), torch.rand(3, 5))
        Traceback (most recent call last):
        uiat.errors.UserError: the model cannot take images of shape (5,): RuntimeError: mat1 and mat2 shapes ...
    """

    @wraps(function)
    def explaining(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (UserError, torch.OutOfMemoryError):
            raise
        except _MISFITS as error:
            _explain([*args, *kwargs.values()], error)
            raise

    return explaining


def _explain(arguments: list[Any], error: Exception) -> None:
    """Raise a UserError if one of these arguments is a model that cannot take the images among them."""
    model = next((each for each in arguments if isinstance(each, nn.Module)), None)
    holder = next((each for each in arguments if hasattr(each, "x") and hasattr(each, "y")), None)
    tensors = [each for each in arguments if isinstance(each, Tensor)]
    x = holder.x if holder is not None else next((each for each in tensors if each.is_floating_point()), None)
    labels = holder.y if holder is not None else next((each for each in tensors if each.dtype == torch.int64), None)
    if model is None or x is None or x.ndim == 0 or len(x) == 0:
        return
    if x.is_meta:
        raise UserError("images on the meta device have no values: load them on a device") from error
    with torch.no_grad(), frozen(model):
        logits = run_model(model, x[:_IMAGES].detach().clone())
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        what = f"{_describe(logits)}, not logits (batch, classes){hint_at(logits)}"
        raise UserError(f"the model returns {what}") from error
    if labels is not None:
        check_labels(labels, num_classes=logits.shape[1])


def _describe(output: object) -> str:
    return f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"


def hint_at(output: object) -> str:
    """Return what to do about an output that is no tensor of logits, to be put at the end of a message.

    Example:
        >>> hint_at({"scores": 0})
        '; put the logits under the key "logits"'
    """
    if isinstance(output, dict):
        return '; put the logits under the key "logits"'
    if isinstance(output, tuple | list):
        return "; wrap the model so that its forward returns the one element that holds the logits"
    return "; its forward must return a tensor of shape (batch, classes)"
