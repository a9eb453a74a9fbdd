"""Average the weights of two runs, and measure BatchNorm statistics for what comes of it."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from uiat.analyse.measurements import BATCH
from uiat.checks import checked
from uiat.errors import UserError
from uiat.models.inspect import device_of
from uiat.training.averaging import refresh_statistics


@checked
def interpolate(one: nn.Module, other: nn.Module, alpha: float, *, images: Tensor) -> nn.Module:
    """Return a model of the weights (1 - alpha) w_1 + alpha w_2 (model soups; Wortsman et al. 2022).

    Croce et al. ("Seasoning model soups", CVPR 2023) trade one robustness for another this way. BatchNorm statistics of
    two models are not those of their average, whose activations are others (Jordan et al. 2023, REPAIR), so they are
    measured anew, in train mode, as those of averaged weights are.

    Args:
        one: the model at alpha 0; it stays as it is.
        other: the model at alpha 1, of the same architecture; it stays as it is.
        alpha: fraction of the other model, in [0, 1].
        images: natural training images (n, C, H, W) in [0, 1] for the statistics.

    Returns:
        A new model, in eval mode, on the device of `one`.

    Raises:
        UserError: the models do not have the same weights.

    Example:
        >>> one, other = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> one.weight.data.fill_(1.0), other.weight.data.fill_(5.0)
        (tensor([[1.]]), tensor([[5.]]))
        >>> interpolate(one, other, 0.25, images=torch.rand(2, 1, 1, 1)).weight.item()
        2.0
    """
    model = deepcopy(one)
    mixed, there = model.state_dict(), other.state_dict()
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in (mixed, there)]
    if shapes[0] != shapes[1]:
        name = next(name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name))
        raise UserError(f"weights of two architectures cannot be averaged: {name} is not in both, or of another shape")
    with torch.no_grad():
        for name, value in mixed.items():
            if value.is_floating_point():
                value.lerp_(there[name].to(value), alpha)  # counters stay those of `one`
    refresh_statistics(model, (part.to(device_of(model)) for part in images.split(BATCH)))
    return model.eval()


def has_batch_norm(model: nn.Module) -> bool:
    """True if a model normalises by statistics of its training.

    Example:
        >>> has_batch_norm(nn.Sequential(nn.BatchNorm2d(3)))
        True
    """
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())
