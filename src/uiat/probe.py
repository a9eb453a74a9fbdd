"""What can be told of a model from outside: where it is, and how many classes it tells apart."""

import itertools
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.modes import crafting


def device_of(model: nn.Module) -> torch.device:
    """Where a model is; the CPU, for one without parameters.

    Example:
        >>> device_of(nn.Flatten())
        device(type='cpu')
    """
    tensors: Iterator[Tensor] = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def classes_of(model: nn.Module, x: Float[Tensor, "n ..."]) -> int:
    """How many classes the model tells apart, from what it returns for one image.

    Raises:
        UserError: it returns no logits.

    Example:
        >>> classes_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2))
        2
    """
    with torch.no_grad(), crafting(model):
        logits = model(x[:1].to(device_of(model)))
    if not isinstance(logits, Tensor):
        raise UserError(f"the model must return a tensor of logits, not {type(logits).__name__}")
    if logits.ndim != 2:
        raise UserError(f"the model returns shape {tuple(logits.shape)} for one image; logits must be (1, classes)")
    return int(logits.shape[1])


def differentiable(model: nn.Module, x: Float[Tensor, "n ..."]) -> bool:
    """Whether autograd sees how the logits of an image depend on it; not, where the model detaches it or leaves torch.

    Example:
        >>> differentiable(nn.Flatten(), torch.rand(3, 1, 2, 2))
        True
    """
    with torch.enable_grad(), crafting(model):
        try:
            logits = model(x[:1].to(device_of(model)).detach().requires_grad_(True))
        except RuntimeError as error:
            if "numpy()" in str(error):  # torch refuses to hand over what has a gradient
                return False
            raise
    return bool(logits.requires_grad)
