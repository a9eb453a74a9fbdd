"""Shortest ways onto a hyperplane and to the nearest decision boundary within the box [0, 1]."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uiat.attacks.gradient import Gradient, require_gradient
from uiat.attacks.search import Classifier, where_image
from uiat.errors import UserError, nearest


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

# The order of the dual norm, which a linear function's slope is measured in.
DUAL = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}


def nearest_boundary(model: Classifier, x: Float[Tensor, "b ..."], y: Int[Tensor, "b"], *, norm: str) -> Gradient:
    """logit_k - logit_y and its gradient, for the k with the least |logit_k - logit_y| / ||gradient||_dual.

    The step of FAB (Croce & Hein 2020, eq. 7) and of DeepFool (Moosavi-Dezfooli et al. 2016). One forward pass and a
    backward pass for each class; two images' worth of gradients are held at a time, however many classes there are.

    Raises:
        UserError: one class only, or an output without a gradient.

    Example:
        >>> w = torch.tensor([[1.0, 0.0], [0.0, 4.0], [2.0, 0.0]])
        >>> here = nearest_boundary(lambda x: x @ w.t(), torch.ones(1, 2) / 2, torch.tensor([0]), norm="L2")
        >>> here.values.tolist(), here.gradient.tolist()  # class 1: 1.5 / 17^0.5, class 2: 0.5 / 1
        ([1.5], [[-1.0, 4.0]])
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        require_gradient(logits)
        classes = logits.shape[1]
        if classes < 2:
            raise UserError("FAB needs a class other than y to aim at, but the model has only one class")
        above = logits - logits.gather(1, y[:, None])
        nearest, w, gap = torch.full_like(above[:, 0], float("inf")), torch.zeros_like(x), torch.zeros_like(above[:, 0])
        for k in range(classes):
            (slope,) = torch.autograd.grad(above[:, k].sum(), x, retain_graph=k + 1 < classes)
            steepness = torch.linalg.vector_norm(slope.flatten(1), ord=DUAL[norm], dim=1)
            distance = above[:, k].abs() / steepness.clamp_min(torch.finfo(x.dtype).tiny)
            closer = (distance < nearest) & (y != k)
            nearest, gap = torch.where(closer, distance, nearest), torch.where(closer, above[:, k], gap)
            w = where_image(closer, slope, w)
    return Gradient(w.detach(), gap.detach(), logits.detach())
