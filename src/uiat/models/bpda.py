"""Gradients for defences that have none or too many steps: BPDA, and steps that are computed anew for the gradient."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from uiat.checks import checked
from uiat.errors import UserError

Map = Callable[[Tensor], Tensor]


class BPDA(nn.Module):
    """A defence as it is in the forward pass, and a stand-in in the backward pass (Athalye et al. 2018, section 4.1).

    For rounding, JPEG, purifiers and whatever else has no gradient or a false one. What the model answers does not
    change by a bit. An attack is as good as the stand-in: the identity will do for a defence that gives an image like
    the one it is given.

    Args:
        defence: any function or module of images; it need not be differentiable, nor return the same each time.
        surrogate: a differentiable function or module from the same images to an output of the same shape, such as a
            network that was trained to do what the defence does; None for the identity.

    Raises:
        UserError: one of them cannot be called; in a pass: the defence returns no tensor, or the surrogate another
            shape.

    Example:
        >>> rounding = BPDA(lambda x: (4 * x).round() / 4)
        >>> x = torch.tensor([[0.3, 0.9]], requires_grad=True)
        >>> rounding(x).tolist(), torch.autograd.grad(rounding(x).sum(), x)[0].tolist()
        ([[0.25, 1.0]], [[1.0, 1.0]])
        >>> model = nn.Sequential(rounding, nn.Linear(2, 2))  # to be given to `uiat.evaluate`
    """

    @checked
    def __init__(self, defence: Map, surrogate: Map | None = None) -> None:
        super().__init__()
        self.defence, self.surrogate = defence, surrogate

    def forward(self, x: Tensor) -> Tensor:
        """Return what the defence returns, with the gradient of the stand-in."""
        with torch.no_grad():
            value = self.defence(x)
        if not isinstance(value, Tensor):
            raise UserError(f"BPDA: the defence returns a {type(value).__name__}, and not a tensor")
        if not (torch.is_grad_enabled() and x.requires_grad):
            return value
        stand_in = x if self.surrogate is None else self.surrogate(x)
        if stand_in.shape != value.shape:
            which = "the image itself" if self.surrogate is None else "the surrogate"
            raise UserError(
                f"BPDA: the defence returns shape {tuple(value.shape)}, and {which} has {tuple(stand_in.shape)}: give "
                "a surrogate that returns what the defence does"
            )
        # Zero is added, and not a difference to the value, so that rounding changes nothing.
        return value + (stand_in - stand_in.detach())


class CheckpointedSteps(nn.Module):
    """Many steps one after another, such as those of a purifier, whose gradient needs the memory of a single one.

    Only the images between the steps are kept; the backward pass computes each step anew (Chen et al. 2016), with the
    random numbers that it had. It costs one more forward pass.

    Args:
        steps: differentiable functions or modules of images, in their order; `[step] * 50` for one that is made 50
            times, `[partial(denoise, t=t) for t in times]` for one that depends on the time.

    Raises:
        UserError: one of them cannot be called, or there is none.

    Example:
        >>> halve = CheckpointedSteps([lambda x: x / 2] * 3)
        >>> x = torch.ones(1, 2, requires_grad=True)
        >>> torch.autograd.grad(halve(x).sum(), x)[0].tolist()
        [[0.125, 0.125]]
    """

    @checked
    def __init__(self, steps: Sequence[Map]) -> None:
        super().__init__()
        if not steps:
            raise UserError("CheckpointedSteps: there is no step")
        self.steps = list(steps)
        self.modules_of_steps = nn.ModuleList(dict.fromkeys(step for step in steps if isinstance(step, nn.Module)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the images after all steps."""
        keep = torch.is_grad_enabled() and x.requires_grad
        for step in self.steps:
            x = checkpoint(step, x, use_reentrant=False) if keep else step(x)
        return x


def has_surrogate(model: nn.Module) -> bool:
    """True if some gradient of a model is one that its user has put in the place of its own.

    Example:
        >>> has_surrogate(nn.Sequential(BPDA(torch.round))), has_surrogate(nn.Flatten())
        (True, False)
    """
    return any(isinstance(module, BPDA) for module in model.modules())
