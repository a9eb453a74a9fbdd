"""Counter-based random numbers: each image draws its own, whatever batch it is in."""

from collections.abc import Sequence

import torch
from torch import Tensor

from uiat.shapes import Float, Int


def keys(seed: int, index: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """Return a key for each example's random numbers, from the seed and its position in the data set.

    Args:
        seed: seed of all random numbers.
        index: position of each example in the data set.

    Example:
        >>> keys(0, torch.tensor([3, 4])).equal(keys(0, torch.tensor([4, 3])).flip(0))
        True
    """
    return _mix(_mix(index + _wrap(_GOLDEN * (seed + 1))))


def rekey(key: Int[Tensor, "b"], salt: int) -> Int[Tensor, "b"]:
    """Return an independent key of the same example, for another attempt, purpose or iteration.

    Example:
        >>> key = keys(0, torch.tensor([3]))
        >>> bool(rekey(key, 1) == rekey(key, 2))
        False
    """
    return _mix(key ^ _mix(torch.full_like(key, _wrap(salt + 1))))


def uniform(key: Int[Tensor, "b"], shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    """Draw numbers in [0, 1), shape (b, *shape), that depend on each example's key alone: counter-based, splitmix64.

    Example:
        >>> u = uniform(keys(0, torch.arange(100)), (50,))
        >>> bool((u.mean() - 0.5).abs() < 0.02), bool(u.min() >= 0), bool(u.max() < 1)
        (True, True, True)
    """
    count = 1
    for side in shape:
        count *= side
    counter = torch.arange(1, count + 1, device=key.device)
    bits = _mix(key[:, None] + _GOLDEN * counter[None, :])
    # The upper 24 bits: as many as a float32 holds exactly.
    return (_shift(bits, 40).to(torch.float32) * 2.0**-24).view(len(key), *shape)


def normal(key: Int[Tensor, "b"], shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    """Draw standard normal numbers, shape (b, *shape), that depend on each example's key alone (Box & Muller 1958).

    Example:
        >>> v = normal(keys(0, torch.arange(100)), (50,))
        >>> bool(v.mean().abs() < 0.05), bool((v.std() - 1).abs() < 0.05)
        (True, True)
    """
    radius = (-2 * (1 - uniform(rekey(key, 0), shape)).log()).sqrt()
    return radius * (2 * torch.pi * uniform(rekey(key, 1), shape)).cos()


class KeyedNumbers:
    """Source of random numbers that depend on each example's key and on the number of earlier draws.

    Args:
        key: key of each example, (b,).

    Example:
        >>> numbers = KeyedNumbers(keys(0, torch.arange(2)))
        >>> numbers.uniform((3,)).shape, numbers.normal(()).shape
        (torch.Size([2, 3]), torch.Size([2]))
    """

    def __init__(self, key: Int[Tensor, "b"]) -> None:
        self.key, self.draws = key, 0

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Draw numbers in [0, 1), (b, *shape)."""
        return uniform(self._next(), shape)

    def normal(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Draw standard normal numbers, (b, *shape)."""
        return normal(self._next(), shape)

    def _next(self) -> Tensor:
        self.draws += 1
        return rekey(self.key, self.draws)


# Constants of splitmix64 (Steele, Lea & Flood 2014) as signed 64-bit numbers; products wrap around.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def _wrap(number: int) -> int:
    """Return the signed 64-bit number that equals a Python number modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


def _shift(bits: Tensor, by: int) -> Tensor:
    """Shift 64-bit numbers right logically; torch's own shift keeps the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def _mix(bits: Tensor) -> Tensor:
    """Scramble 64-bit numbers so that every bit of the result depends on every bit given: splitmix64's last step."""
    bits = (bits ^ _shift(bits, 30)) * _FIRST
    bits = (bits ^ _shift(bits, 27)) * _SECOND
    return bits ^ _shift(bits, 31)
