"""Checks before any work is done: images, labels and settings that cannot be what was meant raise a UserError."""

from typing import Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from uiat.errors import UserError, nearest


def check_choices(config: object) -> None:
    """Refuse a field of a dataclass whose value its Literal type does not list; Python itself lets it pass.

    Raises:
        UserError: with the nearest value that is allowed.

    Example:
        >>> from uiat import PGD
        >>> check_choices(PGD(loss="margin"))
    """
    for name, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal and getattr(config, name) not in get_args(hint):
            raise nearest(name, str(getattr(config, name)), get_args(hint))


def check_counts(config: object, *names: str) -> None:
    """Refuse a count below 1 in any of these fields of a dataclass.

    Raises:
        UserError: a count is below 1.

    Example:
        >>> from uiat import PGD
        >>> check_counts(PGD(steps=3), "steps", "restarts")
    """
    for name in names:
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, but is {getattr(config, name)}")


def check_at_least(config: object, **bounds: float) -> None:
    """Refuse a field of a dataclass that is below its bound, or whose value its Literal type does not list.

    Args:
        config: the dataclass; a field that is None passes.
        bounds: the least value of each field, by its name.

    Raises:
        UserError: a value is below its bound, not a number, or not one of those listed.

    Example:
        >>> from uiat import PGD
        >>> check_at_least(PGD(steps=3), steps=1)
    """
    check_choices(config)
    for name, low in bounds.items():
        value = getattr(config, name)
        if value is not None and not value >= low:  # so that NaN is refused too
            raise UserError(f"{name} must be at least {low:g}, but is {value:g}")


def check_below(config: object, **bounds: float) -> None:
    """Refuse a field of a dataclass that reaches its bound.

    Args:
        config: the dataclass; a field that is None passes.
        bounds: the value that each field has to stay below, by its name; infinity for any finite value.

    Raises:
        UserError: a value reaches its bound, or is not a number.

    Example:
        >>> from uiat import PGD
        >>> check_below(PGD(steps=3), steps=float("inf"))
    """
    for name, high in bounds.items():
        value = getattr(config, name)
        if value is not None and not value < high:
            what = "finite" if high == float("inf") else f"below {high:g}"
            raise UserError(f"{name} must be {what}, but is {value:g}")


def check_step(step_size: float, *, radius: float, name: str = "step_size") -> None:
    """Refuse a step that was most likely given in pixel values: at least 1, and longer than the ball is wide.

    Args:
        step_size: length of the step, in units of [0, 1].
        radius: radius of the ball.
        name: name of the field, for the message.

    Raises:
        UserError: the step is too long.

    Example:
        >>> check_step(2.0, radius=8 / 255)
        Traceback (most recent call last):
        uiat.errors.UserError: step_size 2 is longer than a ball of radius 0.03137 is wide: images are in [0, 1]; ...
    """
    if step_size >= 1 and step_size > 2 * radius:
        raise UserError(
            f"{name} {step_size:g} is longer than a ball of radius {radius:.4g} is wide: images are in [0, 1]; "
            f'did you mean "{step_size:g}/255" ({step_size / 255:.4g})?'
        )


def check_shapes(x: Tensor, y: Tensor) -> None:
    """Refuse a batch with wrong dtypes, dimensions or lengths. Never waits for the device.

    Raises:
        UserError: the batch is no images (B, ...) in floating point with labels (B,) of type int64.

    Example:
        >>> check_shapes(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))
    """
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise UserError(f"images and labels must be torch tensors, not {type(x).__name__} and {type(y).__name__}")
    if not x.is_floating_point():
        raise UserError(f"images must be floats in [0, 1], not {x.dtype}: divide by 255 first")
    if x.ndim < 2:
        raise UserError(f"images must be a batch (B, C, H, W), not of shape {tuple(x.shape)}")
    if len(x) == 0:
        raise UserError("the batch of images is empty")
    if y.dtype != torch.int64:
        raise UserError(f"labels must be int64 class numbers, not {y.dtype}")
    if y.shape != x.shape[:1]:
        raise UserError(f"labels must have shape ({len(x)},), one for each image, not {tuple(y.shape)}")


def check_values(x: Tensor, y: Tensor, *, num_classes: int | None = None) -> None:
    """Refuse images outside [0, 1] or not finite and labels out of range. Reads values, so it waits for the device.

    Args:
        x: images.
        y: labels.
        num_classes: K, if known; without it, labels only have to be non-negative.

    Raises:
        UserError: a value out of range.

    Example:
        >>> check_values(torch.full((1, 3, 8, 8), 128.0), torch.tensor([0]))
        Traceback (most recent call last):
        uiat.errors.UserError: images must be in [0, 1] but run from 128 to 128: divide by 255 first
    """
    low, high = (v.item() for v in torch.aminmax(x.detach().float()))
    if not (low > -float("inf") and high < float("inf")):  # False for NaN too
        raise UserError("images hold values that are not finite (NaN or infinity)")
    if low < -1e-6 or high > 1 + 1e-6:
        hint = "divide by 255 first" if high > 2 else "give them unnormalised; the model normalises in its first layer"
        raise UserError(f"images must be in [0, 1] but run from {low:.4g} to {high:.4g}: {hint}")
    least, most = (int(v) for v in torch.aminmax(y))
    if least < 0 or (num_classes is not None and most >= num_classes):
        bound = "non-negative" if num_classes is None else f"in 0..{num_classes - 1}"
        raise UserError(f"labels must be {bound}, but run from {least} to {most}")


def check_batch(x: Tensor, y: Tensor, *, num_classes: int | None = None) -> None:
    """Refuse a batch by its shapes, then by its values, see `check_shapes` and `check_values`.

    Raises:
        UserError: the batch cannot be what was meant.

    Example:
        >>> check_batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), num_classes=2)
    """
    check_shapes(x, y)
    check_values(x, y, num_classes=num_classes)
