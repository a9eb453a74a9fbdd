"""Adversarial weight perturbation (Wu et al. 2020) as a context manager."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from uiat.models.modes import frozen_statistics
from uiat.system.distributed import current_rank


@contextmanager
def adversarial_weights(model: nn.Module, loss: Callable[[], Tensor], *, gamma: float) -> Iterator[None]:
    """Inside, each weight tensor w stands at w + gamma ||w|| g / ||g||, towards a higher loss (Wu et al. 2020, AWP).

    Compute the training loss and its backward pass inside, step the optimiser outside: the weights are then back, bit
    for bit, and only their gradients remember. Costs one training pass (3 F).

    Args:
        model: its parameters with at least two dimensions and a gradient are moved; BatchNorm statistics are not.
        loss: the training loss as a scalar, computed at the current weights.
        gamma: relative size of the perturbation; 0.01 for PGD-AT and 0.005 for TRADES are the authors' values.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> before = model.weight.clone()
        >>> with adversarial_weights(model, lambda: model(torch.ones(1, 2)).sum(), gamma=0.1):
        ...     print(torch.equal(model.weight, before))
        False
        >>> torch.equal(model.weight, before)
        True
    """
    moved = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    with frozen_statistics(model):
        gradients = torch.autograd.grad(loss(), moved, allow_unused=True)
    kept = [p.detach().clone() for p in moved]
    try:
        with torch.no_grad():
            for p, g in zip(moved, gradients, strict=True):
                if g is not None:
                    current_rank().mean(g)
                    tiny = torch.finfo(g.dtype).tiny
                    p.add_(g * (gamma * p.norm() / g.norm().clamp_min(tiny)))
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(moved, kept, strict=True):
                p.copy_(old)
