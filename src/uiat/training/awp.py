"""Adversarial weight perturbation (Wu et al. 2020) as a context manager."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from uiat.models.modes import frozen_statistics
from uiat.system.distributed import current_rank


@contextmanager
def adversarial_weights(model: nn.Module, *losses: Callable[[], Tensor], gamma: float) -> Iterator[None]:
    """Inside, each weight tensor w is w + gamma ||w|| g / ||g||, where the loss is higher (Wu et al. 2020, AWP).

    g is the gradient of the loss for w, and the norms are those of the whole tensor (eq. 10 and 12). Compute the
    training loss and its backward pass inside, step the optimiser outside: the weights are then back, bit for bit, and
    their gradients are those at the perturbed weights. Costs one training pass (3 F).

    Args:
        model: its parameters with at least two dimensions and a gradient are moved; BatchNorm statistics are not.
        losses: each a part of the training loss, as a scalar at the current weights; g is the gradient of their sum.
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
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    with frozen_statistics(model):
        gradients = _sum_gradients(losses, weights)
    before = [p.detach().clone() for p in weights]
    try:
        with torch.no_grad():
            for p, g in zip(weights, gradients, strict=True):
                if g is not None:
                    p.add_(_direction(current_rank().mean(g)) * (gamma * p.norm()))
        yield
    finally:
        with torch.no_grad():
            # Copied back, not moved back: subtracting would leave rounding errors.
            for p, old in zip(weights, before, strict=True):
                p.copy_(old)


def _sum_gradients(losses: Iterable[Callable[[], Tensor]], weights: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient of the sum of losses for each weight; None for one that none of them depends on."""
    sums: list[Tensor | None] = [None] * len(weights)
    for loss in losses:
        new = torch.autograd.grad(loss(), weights, allow_unused=True)
        sums = [b if a is None else a if b is None else a + b for a, b in zip(sums, new, strict=True)]
    return sums


def _direction(gradient: Tensor) -> Tensor:
    """Scale a gradient to length one; zero stays zero."""
    # By the largest entry first: the squares of a fitted batch's gradients underflow in single precision.
    scaled = gradient / gradient.abs().max().clamp_min(torch.finfo(gradient.dtype).tiny)
    return scaled / scaled.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
