"""Running averages of the weights over training steps (EMA, SWA), and the BatchNorm statistics that go with them."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn

from uiat.models.modes import train_mode
from uiat.system.distributed import current_rank


def make_average(model: nn.Module, kind: Literal["ema", "swa"], *, decay: float) -> AveragedModel:
    """Make a running average of the weights: exponential ("ema") or equal ("swa"; Izmailov et al. 2018).

    BatchNorm statistics are not averaged: `refresh_statistics` measures them anew.

    Args:
        model: the model to be averaged, which is copied.
        kind: "ema" or "swa".
        decay: fraction of the exponential average that is kept in a step.

    Example:
        >>> average = make_average(nn.Linear(2, 2), "ema", decay=0.99)
    """
    if kind == "swa":
        return AveragedModel(model)
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


@torch.no_grad()
def update_average(average: AveragedModel, model: nn.Module) -> None:
    """Update the average with the model's present weights; its buffers are copied.

    `AveragedModel.update_parameters` does the same, but reads the count of averaged weights on the device, for which
    the host waits each step.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = make_average(model, "swa", decay=0.0)
        >>> for value in (1.0, 2.0, 6.0):
        ...     _ = model.weight.data.fill_(value)
        ...     update_average(average, model)
        >>> average.module.weight.item()
        3.0
    """
    averaged, new = ([p.detach() for p in m.parameters()] for m in (average.module, model))
    count = int(average.n_averaged)
    if count:
        (average.multi_avg_fn or get_swa_multi_avg_fn())(averaged, new, count)
    else:
        torch._foreach_copy_(averaged, new)
    for buffer, value in zip(average.module.buffers(), model.buffers(), strict=True):
        buffer.copy_(value)
    average.n_averaged += 1


@torch.no_grad()
def refresh_statistics(model: nn.Module, images: Iterable[Tensor], *, set_aside: Iterable[str] = ()) -> None:
    """Measure the BatchNorm statistics of averaged weights on training images, as `torch.optim.swa_utils.update_bn`.

    Args:
        model: changed in place; as it was in mode.
        images: batches.
        set_aside: names of parts that stay in eval mode and keep theirs.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(1))
        >>> refresh_statistics(model, [torch.ones(2, 1, 2, 2)])
        >>> model[0].running_mean.tolist()
        [1.0]
    """
    parts = [model.get_submodule(name) for name in set_aside]
    was_training = model.training
    train_mode(model, parts)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # a mean of all batches
    for x in images if norms else ():
        model(x)
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.train(was_training)
    average_statistics(model)


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Average the BatchNorm statistics over the processes, in place, so that all of them hold the same model.

    Example:
        >>> average_statistics(nn.BatchNorm2d(3))  # one process: nothing to do
    """
    current_rank().mean_each([b for b in model.buffers() if b.is_floating_point()])
