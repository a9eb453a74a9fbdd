"""The device that a run is trained on, and what its kernels allow."""

import logging

import torch
from torch import nn

from uiat.errors import UserError
from uiat.system.distributed import current_rank, local_device

logger = logging.getLogger("uiat")


def pick_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one.

    Raises:
        UserError: no such device on this machine.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    name = local_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def training_device(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter.

    Raises:
        UserError: the model has no parameters.

    Example:
        >>> training_device(nn.Linear(1, 1))
        device(type='cpu')
    """
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise UserError("the model has no parameters: there is nothing to train")
    return parameter.device


def can_use_channels_last(model: nn.Module, *, requested: bool) -> bool:
    """True if images and weights are to lie channels last: if requested, and torch's kernels do not crash.

    On a CPU, the backward pass of a strided 1x1 convolution of fewer than 8 channels writes out of its bounds in that
    memory format (torch 2.14): the shortcut of a very narrow ResNet.

    Example:
        >>> can_use_channels_last(nn.Conv2d(4, 8, 1, stride=2), requested=True)
        False
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.device.type == "cpu"]
    if not requested or not any(m.weight[0].numel() < 8 and m.kernel_size == (1, 1) != m.stride for m in convolutions):
        return requested
    logger.warning("compute.channels_last is off for this model: torch's CPU kernels crash on its narrow shortcuts")
    return False


def sync_batchnorm(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model with BatchNorm by the statistics of all processes; as it is, if there is one process.

    Raises:
        UserError: not on GPUs; torch has no synchronised BatchNorm for other devices.

    Example:
        >>> type(sync_batchnorm(nn.BatchNorm2d(3), torch.device("cpu"))).__name__
        'BatchNorm2d'
    """
    if current_rank().size == 1:
        return model
    if device.type != "cuda":
        raise UserError(f"compute.sync_batchnorm needs GPUs: torch has no synchronised BatchNorm for {device.type!r}")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
