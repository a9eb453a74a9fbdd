"""Adversarial weight perturbation (Wu et al. 2020) as a context manager."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from uiat.models.modes import frozen_statistics
from uiat.system.distributed import current_rank


@contextmanager
def adversarial_weights(model: nn.Module, loss: Callable[[], Tensor], *, gamma: float) -> Iterator[None]:
    """Inside, each weight tensor w is w + gamma ||w|| g / ||g||, where the loss is higher (Wu et al. 2020, AWP).

    g is the gradient of the loss for w, and the norms are those of the whole tensor (eq. 10 and 12). Compute the
    training loss and its backward pass inside, step the optimiser outside: the weights are then back, bit for bit, and
    their gradients are those at the perturbed weights. Costs one training pass (3 F).

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
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    with frozen_statistics(model):
        gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    before = [p.detach().clone() for p in weights]
    try:
        with torch.no_grad():
            for p, g in zip(weights, gradients, strict=True):
                if g is not None:
                    current_rank().mean(g)
                    tiny = torch.finfo(g.dtype).tiny  # a gradient of zeros moves nothing, and divides by no zero
                    p.add_(g * (gamma * p.norm() / g.norm().clamp_min(tiny)))
        yield
    finally:
        with torch.no_grad():
            # Copied back, not moved back: subtracting would leave rounding errors.
            for p, old in zip(weights, before, strict=True):
                p.copy_(old)
