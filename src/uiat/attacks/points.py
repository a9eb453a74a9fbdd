"""Many points attacked at once, each on its own: state by name, packing, and random numbers that follow the point.

An attack that searches (APGD, FAB, Square) keeps everything it knows of a point in tensors whose first dimension is the
point. So a point that breaks can leave, the rest of several batches can be packed together again, a search can be
stopped and go on, and the result does not depend on which points happened to share a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# By name, each (b, ...). Every search has "x", "y", "key" (its random numbers), "x_adv" and "broken".
Points = dict[str, Tensor]
Classifier = Callable[[Tensor], Tensor]


@runtime_checkable
class Search(Protocol):
    """An attack as a value: how a point starts, and what one iteration does to it.

    `x_adv` of a point whose `broken` is set is in the ball and in [0, 1] and was misclassified when it was set; no
    later iteration changes either.
    """

    @property
    def name(self) -> str:
        """As in records, such as "apgd-ce"."""

    @property
    def iterations(self) -> int:
        """Iterations of an attempt."""

    def attempts(self, num_classes: int) -> int:
        """Restarts or targets; each begins anew, on the points that still stand."""

    def start(self, model: Classifier, x: Tensor, y: Tensor, key: Tensor, *, attempt: int) -> Points:
        """The points before the first iteration of an attempt."""

    def iterate(self, model: Classifier, points: Points, i: int) -> Points:
        """The points after iteration i, counted from 0."""


def select(points: Points, which: Bool[Tensor, "b"] | Int[Tensor, "n"]) -> Points:
    """Some of the points.

    Example:
        >>> select({"y": torch.tensor([4, 5, 6])}, torch.tensor([True, False, True]))["y"].tolist()
        [4, 6]
    """
    return {name: value[which] for name, value in points.items()}


def join(parts: Sequence[Points]) -> Points:
    """Points of several batches as one.

    Example:
        >>> join([{"y": torch.tensor([4])}, {"y": torch.tensor([5, 6])}])["y"].tolist()
        [4, 5, 6]
    """
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def split(points: Points, size: int) -> Iterator[Points]:
    """Points as batches of at most `size`.

    Example:
        >>> [len(part["y"]) for part in split({"y": torch.arange(5)}, 2)]
        [2, 2, 1]
    """
    count = len(points["y"])
    return ({name: value[i : i + size] for name, value in points.items()} for i in range(0, count, size))


def unbreak(search: Search, points: Points, which: Bool[Tensor, "b"]) -> Points:
    """Points that were taken for broken and are not, so that the search goes on with them.

    What a search has concluded from the break besides, such as that nothing can be nearer, it takes back itself, in a
    method of this name.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks import FAB
        >>> points = {"broken": torch.tensor([True, True]), "distance": torch.tensor([0.1, 0.2])}
        >>> unbreak(FAB(threat=Linf(0.5)), points, torch.tensor([False, True]))
        {'broken': tensor([ True, False]), 'distance': tensor([0.1000, inf])}
    """
    points = points | {"broken": points["broken"] & ~which}
    own: Callable[[Points, Tensor], Points] | None = getattr(search, "unbreak", None)
    return points if own is None else own(points, which)


def advance(
    search: Search,
    model: Classifier,
    points: Points,
    first: int,
    last: int,
    *,
    verify: Callable[[Points], Points] | None = None,
) -> Points:
    """Iterations `first` to `last - 1` on a batch; broken points leave it as soon as they are an eighth of it.

    Args:
        search: the attack.
        model: what it is guided by.
        points: the batch; its tensors are not written to.
        first: the first iteration.
        last: the one after the last.
        verify: called on the batch after an iteration in which points broke; may take the flag from some of them.

    Returns the points in the order of their keys' positions in the batch, broken ones included. What iterations add to
    the names that there were is theirs, and not kept.
    """
    names = list(points)
    points = points | {"slot": torch.arange(len(points["y"]), device=points["y"].device)}
    gone: list[Points] = []
    known = 0
    for i in range(first, last):
        points = search.iterate(model, points, i)
        count = int(points["broken"].sum())
        if verify is not None and count > known:
            points = verify(points)
            count = int(points["broken"].sum())
        known = count
        if count and count >= len(points["y"]) / 8:
            gone.append(select(points, points["broken"]))
            points, known = select(points, ~points["broken"]), 0
        if len(points["y"]) == 0:
            break
    whole = join([*gone, points])
    whole = select(whole, whole["slot"].argsort())
    return {name: whole[name] for name in names}


def keys(seed: int, index: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
    """A key for each example's random numbers, from the seed and its position in the data set.

    Example:
        >>> keys(0, torch.tensor([3, 4])).equal(keys(0, torch.tensor([4, 3])).flip(0))
        True
    """
    return _mix(_mix(index + _wrap(_GOLDEN * (seed + 1))))


def rekey(key: Int[Tensor, "b"], salt: int) -> Int[Tensor, "b"]:
    """An independent key of the same example: for another attempt, another purpose, another iteration.

    Example:
        >>> key = keys(0, torch.tensor([3]))
        >>> bool(rekey(key, 1) == rekey(key, 2))
        False
    """
    return _mix(key ^ _mix(torch.full_like(key, _wrap(salt + 1))))


def uniform(key: Int[Tensor, "b"], shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    """Numbers in [0, 1), shape (b, *shape), that depend on each example's key alone: counter-based, splitmix64.

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
    """Standard normal numbers, shape (b, *shape), likewise (Box & Muller 1958).

    Example:
        >>> v = normal(keys(0, torch.arange(100)), (50,))
        >>> bool(v.mean().abs() < 0.05), bool((v.std() - 1).abs() < 0.05)
        (True, True)
    """
    radius = (-2 * (1 - uniform(rekey(key, 0), shape)).log()).sqrt()
    return radius * (2 * torch.pi * uniform(rekey(key, 1), shape)).cos()


class Keyed:
    """Random numbers that depend on each example's key, and on how many draws there were before.

    Args:
        key: of each example, (b,).

    Example:
        >>> numbers = Keyed(keys(0, torch.arange(2)))
        >>> numbers.uniform((3,)).shape, numbers.normal(()).shape
        (torch.Size([2, 3]), torch.Size([2]))
    """

    def __init__(self, key: Int[Tensor, "b"]) -> None:
        self.key, self.draws = key, 0

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Numbers in [0, 1), (b, *shape)."""
        return uniform(self._next(), shape)

    def normal(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Standard normal numbers, (b, *shape)."""
        return normal(self._next(), shape)

    def _next(self) -> Tensor:
        self.draws += 1
        return rekey(self.key, self.draws)


# Constants of splitmix64 (Steele, Lea & Flood 2014) as signed 64-bit numbers; products wrap around.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def _wrap(number: int) -> int:
    """A Python number as the signed 64-bit number that it is modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


def _shift(bits: Tensor, by: int) -> Tensor:
    """Logical right shift of 64-bit numbers; torch's own keeps the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift(bits, 30)) * _FIRST
    bits = (bits ^ _shift(bits, 27)) * _SECOND
    return bits ^ _shift(bits, 31)
