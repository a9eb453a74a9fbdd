"""Threat models: Linf, L2 and L1 balls around images in [0, 1], each a frozen value of a norm and a radius.

A threat model can project onto its ball, find the direction of steepest ascent, draw a random start, and measure a
perturbation. The only clamps of the project are here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from uiat.checks import checked_fields, radius
from uiat.errors import nearest
from uiat.shapes import Bool, Float

IN_WORDS = 'a threat model such as Linf("8/255")'  # in messages
L1_FRACTION = 0.05  # fraction of the pixels that a step under L1 changes


@runtime_checkable
class Numbers(Protocol):
    """A source of random numbers for a batch of b examples; each call draws new ones."""

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Draw numbers in [0, 1), (b, *shape)."""

    def normal(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Draw standard normal numbers, (b, *shape)."""


def to_range(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Clip images to [0, 1].

    Example:
        >>> to_range(torch.tensor([-0.5, 0.5, 2.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    return x.clamp(0.0, 1.0)


def _is_within(threat: "Linf | L2 | L1", x_adv: Tensor, x: Tensor) -> Tensor:
    """Mask of the images in the ball around `x`, up to rounding."""
    return threat.length(x_adv - x) <= float(threat.epsilon) * (1 + 1e-4) + 1e-6


def _lengths(v: Tensor) -> Tensor:
    """Compute the L2 length of each example, shaped to broadcast against it."""
    return torch.linalg.vector_norm(v.flatten(1), dim=1).view(-1, *[1] * (v.ndim - 1))


def _soft_threshold(delta: Tensor, room: Tensor, epsilon: float) -> Tensor:
    """Find the nearest d to `delta` with ||d||_1 <= epsilon and |d| <= room; every entry keeps the sign of `delta`.

    d = sign(delta) * min(max(|delta| - a, 0), room): every entry loses the same amount a, down to zero, or is cut to
    its room where that is less still. The length ||d||_1 falls with a, along straight pieces. So the ends of the pieces
    are sorted, the length at each is summed up, and a lies on the piece on which the length passes epsilon.
    """
    # Half precision cannot sum thousands of entries.
    wide = delta.flatten(1).float() if delta.dtype in (torch.bfloat16, torch.float16) else delta.flatten(1)
    size, room = wide.abs(), room.flatten(1).to(wide)
    # Seen from a large amount down, an entry starts to grow at a = |delta|, and stops at a = |delta| - room.
    ends, order = torch.cat([size, (size - room).clamp_min(0)], dim=1).sort(dim=1, descending=True)
    # Number of entries that grow just below each end: a start adds one, a stop takes one away. It is the slope there.
    free = torch.where(order < size.shape[1], 1.0, -1.0).to(wide).cumsum(dim=1)
    # Length at each end: the slope times the way from the end before, summed up.
    length = torch.zeros_like(ends)
    length[:, 1:] = (free[:, :-1] * (ends[:, :-1] - ends[:, 1:])).cumsum(dim=1)
    # The last end at which the length is still within epsilon; from there the amount falls by what is left / slope.
    piece = ((length <= epsilon).sum(dim=1, keepdim=True) - 1).clamp_min(0)
    end, slope, reached = (values.gather(1, piece) for values in (ends, free, length))
    amount = (end - (epsilon - reached) / slope.clamp_min(1)).clamp_min(0)
    kept = torch.minimum((size - amount).clamp_min(0), room)
    # The sums above are rounded; what is left of the excess goes by scale, so that the ball holds.
    total = kept.sum(dim=1, keepdim=True).clamp_min(torch.finfo(wide.dtype).tiny)
    return (kept * (epsilon / total).clamp_max(1.0) * wide.sign()).to(delta.dtype).view_as(delta)


def parse(text: str) -> "Linf | L2 | L1":
    """Read a threat model that is written as "Linf:8/255", "L2:0.5" or "L1:12".

    Raises:
        UserError: an unknown norm or a radius that is not one.

    Example:
        >>> parse("Linf:8/255") == Linf(8 / 255)
        True
    """
    norm, _, epsilon = text.partition(":")
    known = {name.lower(): kind for name, kind in NORMS.items()}
    if norm.lower() not in known:
        raise nearest("norm", norm, NORMS)
    return known[norm.lower()](epsilon)


@checked_fields
@dataclass(frozen=True)
class Linf:
    """Linf ball: every pixel value may move by at most epsilon, ||x_adv - x||_inf <= epsilon (Goodfellow et al. 2015).

    Args:
        epsilon: radius in units of the image range [0, 1], a number or a fraction such as "8/255". A float afterwards.

    Raises:
        UserError: epsilon is zero, negative, not finite, or looks like a pixel value.

    Example:
        >>> Linf("0.25").project(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.5)).item()
        0.75
    """

    epsilon: float | str
    norm: Literal["Linf"] = "Linf"
    from_text = staticmethod(parse)
    IN_WORDS: ClassVar[str] = IN_WORDS

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", radius(self.epsilon, limit=1.0, norm="Linf"))

    def ball(self, delta: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Project perturbations onto the ball."""
        return delta.clamp(-float(self.epsilon), float(self.epsilon))

    def project(self, x_adv: Float[Tensor, "b ..."], x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Project images onto the intersection of [0, 1] and the ball around `x`."""
        return to_range(torch.clamp(x_adv, x - float(self.epsilon), x + float(self.epsilon)))

    def steepest(self, gradient: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Return the direction of norm one that raises a linear function with this gradient most: its sign."""
        return gradient.sign()

    def noise(self, x: Float[Tensor, "b ..."], *, generator: torch.Generator | None = None) -> Float[Tensor, "b ..."]:
        """Draw perturbations uniformly from the ball, shaped like `x`."""
        return torch.empty_like(x).uniform_(-float(self.epsilon), float(self.epsilon), generator=generator)

    def noise_from(self, x: Float[Tensor, "b ..."], numbers: Numbers) -> Float[Tensor, "b ..."]:
        """Draw perturbations uniformly from the ball, from a source such as `KeyedNumbers`."""
        return (2 * numbers.uniform(x.shape[1:]) - 1).to(x) * float(self.epsilon)

    def allows(self, x_adv: Float[Tensor, "b ..."], x: Float[Tensor, "b ..."]) -> Bool[Tensor, "b"]:
        """Mask of the images in the ball around `x`, up to rounding."""
        return _is_within(self, x_adv, x)

    def length(self, delta: Float[Tensor, "b ..."]) -> Float[Tensor, "b"]:
        """Compute the norm of each perturbation."""
        return delta.abs().flatten(1).amax(dim=1)


@checked_fields
@dataclass(frozen=True)
class L2:
    """L2 ball: the perturbation may be at most epsilon long, ||x_adv - x||_2 <= epsilon (Szegedy et al. 2014).

    Args:
        epsilon: radius in units of the image range [0, 1], such as 0.5 or "128/255". A float afterwards.

    Raises:
        UserError: epsilon is zero, negative, not finite, or looks like a pixel value.

    Example:
        >>> L2(0.5).length(L2(0.5).ball(torch.ones(2, 3, 4, 4))).tolist()
        [0.5, 0.5]
    """

    epsilon: float | str
    norm: Literal["L2"] = "L2"
    from_text = staticmethod(parse)
    IN_WORDS: ClassVar[str] = IN_WORDS

    def __post_init__(self) -> None:
        # Common radii run from 0.25 to 5; a pixel count such as 128 is far above.
        object.__setattr__(self, "epsilon", radius(self.epsilon, limit=16.0, norm="L2"))

    def ball(self, delta: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Project perturbations onto the ball."""
        tiny = torch.finfo(delta.dtype).tiny
        return delta * (float(self.epsilon) / _lengths(delta).clamp_min(tiny)).clamp_max(1.0)

    def project(self, x_adv: Float[Tensor, "b ..."], x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Project images onto the ball around `x`, then clip them, which moves them towards `x` and not out of it."""
        return to_range(x + self.ball(x_adv - x))

    def steepest(self, gradient: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Scale the gradient of each example to length one; zero stays zero."""
        tiny = torch.finfo(gradient.dtype).tiny
        # By the largest entry first: the squares of a confident model's gradients underflow in single precision.
        largest = gradient.abs().flatten(1).amax(dim=1).view(-1, *[1] * (gradient.ndim - 1))
        scaled = gradient / largest.clamp_min(tiny)
        return scaled / _lengths(scaled).clamp_min(tiny)

    def noise(self, x: Float[Tensor, "b ..."], *, generator: torch.Generator | None = None) -> Float[Tensor, "b ..."]:
        """Draw perturbations uniformly from the ball, shaped like `x`."""
        direction = self.steepest(torch.empty_like(x).normal_(generator=generator))
        fraction = torch.empty(len(x), device=x.device, dtype=x.dtype).uniform_(generator=generator)
        scale = float(self.epsilon) * fraction.pow(1 / max(1, x[0].numel()))
        return direction * scale.view(-1, *[1] * (x.ndim - 1))

    def noise_from(self, x: Float[Tensor, "b ..."], numbers: Numbers) -> Float[Tensor, "b ..."]:
        """Draw perturbations uniformly from the ball, from a source such as `KeyedNumbers`."""
        direction = self.steepest(numbers.normal(x.shape[1:]).to(x))
        scale = float(self.epsilon) * numbers.uniform(()).to(x).pow(1 / max(1, x[0].numel()))
        return direction * scale.view(-1, *[1] * (x.ndim - 1))

    def allows(self, x_adv: Float[Tensor, "b ..."], x: Float[Tensor, "b ..."]) -> Bool[Tensor, "b"]:
        """Mask of the images in the ball around `x`, up to rounding."""
        return _is_within(self, x_adv, x)

    def length(self, delta: Float[Tensor, "b ..."]) -> Float[Tensor, "b"]:
        """Compute the norm of each perturbation."""
        return torch.linalg.vector_norm(delta.flatten(1), dim=1)


@checked_fields
@dataclass(frozen=True)
class L1:
    """L1 ball: the changes of all pixel values sum to at most epsilon, ||x_adv - x||_1 <= epsilon (EAD, 2018).

    Args:
        epsilon: radius in units of the image range [0, 1], such as 12 or "2000/255". A float afterwards.

    Raises:
        UserError: epsilon is zero, negative, not finite, or looks like a sum of pixel values up to 255.

    Example:
        >>> L1(1).project(torch.tensor([[0.2, 0.2, 1.5]]), torch.zeros(1, 3)).tolist()
        [[0.0, 0.0, 1.0]]
    """

    epsilon: float | str
    norm: Literal["L1"] = "L1"
    from_text = staticmethod(parse)
    IN_WORDS: ClassVar[str] = IN_WORDS

    def __post_init__(self) -> None:
        # Common radii run from 5 (small images) and 12 (CIFAR) to 255 (ImageNet); 2000 would be meant as "2000/255".
        object.__setattr__(self, "epsilon", radius(self.epsilon, limit=1_000.0, norm="L1"))

    def ball(self, delta: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Project perturbations onto the ball (Duchi et al. 2008)."""
        return _soft_threshold(delta, torch.full_like(delta, torch.inf), float(self.epsilon))

    def project(self, x_adv: Float[Tensor, "b ..."], x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Project images onto the intersection of [0, 1] and the ball around `x`, exactly.

        This is proposition 2.1 of Croce & Hein (2021). Projecting onto the ball first and clipping to [0, 1] after that
        would lose a good part of the radius: "Mind the box".
        """
        delta = x_adv - x
        return to_range(x + _soft_threshold(delta, torch.where(delta > 0, 1 - x, x), float(self.epsilon)))

    def steepest(self, gradient: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Return the signs of the largest twentieth of the gradient's entries, with equal weights, at length one.

        The single largest entry would raise a linear function most, but a step along it changes one pixel, and ends at
        the edge of its range. So the direction of SLIDE is taken (Tramer & Boneh 2019), with a fixed fraction.
        """
        rows = gradient.flatten(1)
        most = rows.abs().topk(math.ceil(rows.shape[1] * L1_FRACTION), dim=1).indices
        signs = rows.gather(1, most).sign()
        signs = signs / signs.abs().sum(dim=1, keepdim=True).clamp_min(1)
        return torch.zeros_like(rows).scatter(1, most, signs).view_as(gradient)

    def noise(self, x: Float[Tensor, "b ..."], *, generator: torch.Generator | None = None) -> Float[Tensor, "b ..."]:
        """Draw perturbations uniformly from the ball, shaped like `x`."""
        sizes = torch.empty_like(x).exponential_(generator=generator)
        signs = torch.empty_like(x).uniform_(-1.0, 1.0, generator=generator).sign()
        fraction = torch.empty(len(x), device=x.device, dtype=x.dtype).uniform_(generator=generator)
        total = self.length(sizes).clamp_min(torch.finfo(x.dtype).tiny)
        scale = float(self.epsilon) * fraction.pow(1 / max(1, x[0].numel())) / total
        return sizes * signs * scale.view(-1, *[1] * (x.ndim - 1))

    def noise_from(self, x: Float[Tensor, "b ..."], numbers: Numbers) -> Float[Tensor, "b ..."]:
        """Draw perturbations uniformly from the ball, from a source such as `KeyedNumbers`."""
        sizes = -(1 - numbers.uniform(x.shape[1:])).log().to(x)
        signs = (2 * numbers.uniform(x.shape[1:]) - 1).sign().to(x)
        fraction = numbers.uniform(()).to(x).pow(1 / max(1, x[0].numel()))
        scale = float(self.epsilon) * fraction / self.length(sizes).clamp_min(torch.finfo(x.dtype).tiny)
        return sizes * signs * scale.view(-1, *[1] * (x.ndim - 1))

    def allows(self, x_adv: Float[Tensor, "b ..."], x: Float[Tensor, "b ..."]) -> Bool[Tensor, "b"]:
        """Mask of the images in the ball around `x`, up to rounding."""
        return _is_within(self, x_adv, x)

    def length(self, delta: Float[Tensor, "b ..."]) -> Float[Tensor, "b"]:
        """Compute the norm of each perturbation."""
        return delta.abs().flatten(1).sum(dim=1)


Threat = Linf | L2 | L1
NORMS: dict[str, type[Linf] | type[L2] | type[L1]] = {"Linf": Linf, "L2": L2, "L1": L1}
