"""Checks of images and labels before any work is done on them."""

import torch
from torch import Tensor

from uiat.errors import UserError

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


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
    if x.dtype not in _DTYPES or x.layout != torch.strided or x.is_nested:
        raise UserError(f"images must be plain tensors of float32, float64 or half precision, not {x.dtype} {x.layout}")
    if x.ndim < 2:
        raise UserError(f"images must be a batch (B, C, H, W), not of shape {tuple(x.shape)}")
    if x.numel() == 0:
        raise UserError("the batch of images is empty")
    if y.layout != torch.strided or y.is_nested:
        raise UserError(f"labels must be a plain tensor, not {y.layout}")
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
    if x.is_meta or y.is_meta:
        raise UserError("images and labels on the meta device have no values: load them on a device")
    low, high = (v.item() for v in torch.aminmax(x.detach().float()))
    if not (low > -float("inf") and high < float("inf")):  # False for NaN too
        raise UserError("images hold values that are not finite (NaN or infinity)")
    if low < -1e-6 or high > 1 + 1e-6:
        hint = "divide by 255 first" if high > 2 else "give them unnormalised; the model normalises in its first layer"
        raise UserError(f"images must be in [0, 1] but run from {low:.4g} to {high:.4g}: {hint}")
    check_labels(y, num_classes=num_classes)


def check_labels(y: Tensor, *, num_classes: int | None = None) -> None:
    """Refuse labels out of range. Reads values, so it waits for the device.

    Args:
        y: labels, int64; an empty tensor passes.
        num_classes: K, if known; without it, labels only have to be non-negative.

    Raises:
        UserError: a label out of range.

    Example:
        >>> check_labels(torch.tensor([0, 3]), num_classes=3)
        Traceback (most recent call last):
        uiat.errors.UserError: labels must be in 0..2, but run from 0 to 3
    """
    if y.numel() == 0:
        return
    if y.is_meta:
        raise UserError("labels on the meta device have no values: load them on a device")
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
