"""Attacks from outside: any callable that is given a model, images and labels, and returns images."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.shapes import Bool, Float, Int
from uiat.system.own_code import describe_code
from uiat.system.surroundings import seeded
from uiat.threat import Threat

SLACK = 1e-5  # of the radius: what rounding may add to a perturbation that was meant to be in the ball


@dataclass(frozen=True, kw_only=True)
class External:
    """A callable as an attack: it is believed in nothing.

    What it returns is checked, projected where it leaves the ball or [0, 1], and classified by the model itself. It
    gets the model in eval mode with frozen weights, copies of the images, and random numbers of its own: torch, numpy
    and Python are seeded for each batch.

    Args:
        name: name in results.
        find: `find(model, x, y)`, with images x (b, c, h, w) in [0, 1] that the model classifies correctly and their
            labels y (b,); returns images of the same shape, dtype and device.
        threat: the threat model.
        origin: where the callable comes from, for the record; by default module, name and a checksum of its file.

    Example:
        >>> from uiat.threat import Linf
        >>> brighter = External(name="brighter", find=lambda model, x, y: x + 0.3, threat=Linf(0.1))
        >>> x = torch.tensor([[0.2, 0.95]])
        >>> x_adv, projected = brighter.perturb(nn.Identity(), x, torch.tensor([1]), seed=0)
        >>> [round(value, 2) for value in x_adv[0].tolist()], projected.tolist()
        ([0.3, 1.0], [True])
    """

    name: str
    find: Callable[[nn.Module, Tensor, Tensor], Tensor] = field(compare=False)
    threat: Threat
    origin: str = ""

    def __post_init__(self) -> None:
        if not self.origin:
            object.__setattr__(self, "origin", describe_code(self.find))

    def perturb(
        self, model: nn.Module, x: Float[Tensor, "b ..."], y: Int[Tensor, "b"], *, seed: int
    ) -> tuple[Float[Tensor, "b ..."], Bool[Tensor, "b"]]:
        """Return the callable's images in the ball and in [0, 1], and a mask of those that had to be projected.

        Raises:
            UserError: it returns no tensor, or one of another shape, dtype or device, or values that are not finite; or
                it raises an error.
        """
        with seeded(seed), torch.enable_grad():
            x_adv = self._call(model, x, y)
        self._check(x_adv, x)
        x_adv = x_adv.detach()
        inside = self.threat.project(x_adv, x)
        moved = (inside - x_adv).flatten(1).abs().amax(1)
        return inside, moved > SLACK * float(self.threat.epsilon)

    def _call(self, model: nn.Module, x: Tensor, y: Tensor) -> Any:
        try:
            return self.find(model, x.clone(), y.clone())
        except (UserError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            if "DefaultCPUAllocator" in reason:
                raise
            raise UserError(f"the attack {self.name} ended with {type(error).__name__}: {reason}") from error

    def _check(self, x_adv: Any, x: Tensor) -> None:
        if not isinstance(x_adv, Tensor):
            raise UserError(f"the attack {self.name} returns a {type(x_adv).__name__}, not a tensor of images")
        if x_adv.shape != x.shape:
            raise UserError(
                f"the attack {self.name} returns shape {tuple(x_adv.shape)} for images of shape {tuple(x.shape)}"
            )
        if x_adv.dtype != x.dtype or x_adv.device != x.device:
            raise UserError(
                f"the attack {self.name} returns {x_adv.dtype} on {x_adv.device} for images of {x.dtype} on {x.device}"
            )
        if not x_adv.isfinite().all():
            raise UserError(f"the attack {self.name} returns NaN or infinite pixels")
