"""The shortest way from a point in the box [0, 1] onto a hyperplane, within the box, in Linf, L2 and L1.

The problem of Croce & Hein (2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
eq. 4): min ||d||_p such that <w, d> = gap and 0 <= x + d <= 1. Each pixel may move only towards the plane, by its room.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from uiat.errors import nearest


def onto_hyperplane(
    x: Float[Tensor, "b ..."], w: Float[Tensor, "b ..."], gap: Float[Tensor, "b"], *, norm: str
) -> Float[Tensor, "b ..."]:
    """The shortest d with <w, d> = gap and x + d in [0, 1]; where the plane misses the box, the nearest corner's d.

    Exact but for rounding. Pixels whose w is zero stay; a w of zeros gives zeros.

    Args:
        x: points in [0, 1].
        w: normals of the planes, one for each point; finite, of any size.
        gap: <w, x + d> - <w, x>, that is how much of the linear function is missing at x; finite.
        norm: "Linf", "L2" or "L1".

    Raises:
        UserError: an unknown norm.

    Example:
        >>> x, w = torch.tensor([[0.5, 0.9]]), torch.tensor([[1.0, 1.0]])
        >>> onto_hyperplane(x, w, torch.tensor([0.5]), norm="Linf").tolist()  # the second pixel reaches the edge
        [[0.4, 0.1]]
    """
    if norm not in _AMOUNTS:
        raise nearest("norm", norm, _AMOUNTS)
    rows, w = x.flatten(1), w.flatten(1)
    direction = w.sign() * gap.sign()[:, None]
    room = torch.where(direction > 0, 1 - rows, rows).clamp_min(0)
    # The plane does not change when w and gap are scaled; at a largest entry of one no square underflows that matters.
    size = w.abs().amax(dim=1).clamp_min(torch.finfo(w.dtype).tiny)
    weight, missing = w.abs() / size[:, None], gap.abs() / size
    reached = (weight * room).sum(dim=1)
    amount = torch.where((missing < reached)[:, None], _AMOUNTS[norm](weight, room, missing), room)
    return (direction * amount).view_as(x)


def _linf(weight: Tensor, room: Tensor, missing: Tensor) -> Tensor:
    """Every pixel by the same amount, or by its room where that is less."""
    return torch.minimum(_level(weight, weight * room, room, missing)[:, None], room)


def _l2(weight: Tensor, room: Tensor, missing: Tensor) -> Tensor:
    """Every pixel in proportion to its weight, or by its room where that is less."""
    last = torch.where(weight > 0, room / weight, torch.inf)
    return torch.minimum(_level(weight.square(), weight * room, last, missing)[:, None] * weight, room)


def _level(rise: Tensor, most: Tensor, last: Tensor, missing: Tensor) -> Float[Tensor, "b"]:
    """How far pixels move together until <w, d> is what is missing: each adds `rise` a unit, and `most` from `last` on.

    <w, d> rises with the level along straight pieces that grow flatter, one at a time, as pixels use up their room. So
    Newton's steps from below never go too far, and once no further pixel runs out the level is exact: the root of the
    piece that it lies on. Some four steps, against a sort of all the pixels. A row that has arrived stays. The first
    step is the one that no room limits.
    """
    before, after = torch.ones_like(rise), torch.empty_like(rise)  # comparisons written as numbers, in one pass each
    slope = torch.linalg.vecdot(rise, before)
    level = torch.where(slope > 0, missing / slope, 0).clamp_max(torch.finfo(rise.dtype).max)
    while True:
        torch.gt(last, level[:, None], out=before)
        torch.le(last, level[:, None], out=after)
        slope = torch.linalg.vecdot(rise, before)
        further = torch.where(slope > 0, (missing - torch.linalg.vecdot(most, after)) / slope, level)
        # Finite, so that a speed of zero stays a standstill.
        further = torch.maximum(level, further.clamp_max(torch.finfo(level.dtype).max))
        if bool((further == level).all()):
            return level
        level = further


def _l1(weight: Tensor, room: Tensor, missing: Tensor) -> Tensor:
    """The pixels of the largest weights use up their room, one after the other, and the last of them a part of it."""
    weight, order = weight.sort(dim=1, descending=True, stable=True)
    room = room.gather(1, order)
    gain = weight * room
    before = gain.cumsum(dim=1) - gain
    tiny = torch.finfo(weight.dtype).tiny
    amount = torch.minimum(((missing[:, None] - before) / weight.clamp_min(tiny)).clamp_min(0), room)
    return torch.zeros_like(amount).scatter(1, order, amount)


_AMOUNTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"Linf": _linf, "L2": _l2, "L1": _l1}
