"""Decision boundaries: shortest steps onto a hyperplane within [0, 1], the nearest boundary, the distance to it so far.

FAB and FMN search for the nearest adversarial example; this is what the two share.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from uiat.attacks.gradient import Gradient, require_gradient
from uiat.attacks.search import Classifier, SearchState, where_image
from uiat.errors import UserError, nearest
from uiat.shapes import Bool, Float, Int
from uiat.threat import Threat


def step_onto_hyperplane(
    x: Float[Tensor, "b ..."], w: Float[Tensor, "b ..."], gap: Float[Tensor, "b"], *, norm: str
) -> Float[Tensor, "b ..."]:
    """Compute the shortest d with <w, d> = gap and x + d in [0, 1]; to the nearest corner if the plane misses the box.

    Exact but for rounding. Pixels whose w is zero stay; a w of zeros gives zeros.

    Args:
        x: images in [0, 1].
        w: normal of each image's plane, of any size, finite.
        gap: amount by which <w, x + d> has to exceed <w, x>, finite.
        norm: norm in which d is shortest, "Linf", "L2" or "L1".

    Raises:
        UserError: an unknown norm.

    Example:
        >>> x, w = torch.tensor([[0.5, 0.9]]), torch.tensor([[1.0, 1.0]])
        >>> step_onto_hyperplane(x, w, torch.tensor([0.5]), norm="Linf").tolist()  # the second pixel reaches the edge
        [[0.4, 0.1]]
    """
    if norm not in _AMOUNTS:
        raise nearest("norm", norm, _AMOUNTS)
    rows, w = x.flatten(1), w.flatten(1)
    # No pixel of a shortest d moves against its weight, so only the amounts are left to find: between 0 and the room
    # that a pixel has up to 0 or 1.
    direction = w.sign() * gap.sign()[:, None]
    room = torch.where(direction > 0, 1 - rows, rows).clamp_min(0)
    # The plane does not change when w and gap are scaled; at a largest entry of one no square underflows that matters.
    size = w.abs().amax(dim=1).clamp_min(torch.finfo(w.dtype).tiny)
    weight, missing = w.abs() / size[:, None], gap.abs() / size
    reached = (weight * room).sum(dim=1)
    amount = torch.where((missing < reached)[:, None], _AMOUNTS[norm](weight, room, missing), room)
    return (direction * amount).view_as(x)


def _linf(weight: Tensor, room: Tensor, missing: Tensor) -> Tensor:
    """Amounts for Linf: the same for every pixel, or its room where that is less."""
    return torch.minimum(_level(weight, weight * room, room, missing)[:, None], room)


def _l2(weight: Tensor, room: Tensor, missing: Tensor) -> Tensor:
    """Amounts for L2: in proportion to the pixel's weight, or its room where that is less."""
    last = torch.where(weight > 0, room / weight, torch.inf)
    return torch.minimum(_level(weight.square(), weight * room, last, missing)[:, None] * weight, room)


def _level(rise: Tensor, most: Tensor, last: Tensor, missing: Tensor) -> Float[Tensor, "b"]:
    """Find how far pixels move together until <w, d> = missing: each adds `rise` a unit, and `most` from `last` on.

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
        next_level = torch.where(slope > 0, (missing - torch.linalg.vecdot(most, after)) / slope, level)
        # Finite, so that a pixel of weight zero stays in place: zero times infinity is not a number.
        next_level = torch.maximum(level, next_level.clamp_max(torch.finfo(level.dtype).max))
        if bool((next_level == level).all()):
            return level
        level = next_level


def _l1(weight: Tensor, room: Tensor, missing: Tensor) -> Tensor:
    """Amounts for L1: pixels use up their room in the order of their weights, the last of them a part of it."""
    weight, order = weight.sort(dim=1, descending=True, stable=True)
    room = room.gather(1, order)
    gain = weight * room
    before = gain.cumsum(dim=1) - gain
    tiny = torch.finfo(weight.dtype).tiny
    amount = torch.minimum(((missing[:, None] - before) / weight.clamp_min(tiny)).clamp_min(0), room)
    return torch.zeros_like(amount).scatter(1, order, amount)


_AMOUNTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"Linf": _linf, "L2": _l2, "L1": _l1}

# Order of the dual norm, by which a linear function's gap is divided to give the distance to its plane.
DUAL_ORDER = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}


def nearest_boundary(model: Classifier, x: Float[Tensor, "b ..."], y: Int[Tensor, "b"], *, norm: str) -> Gradient:
    """Compute logit_k - logit_y and its gradient, for the k with the least |logit_k - logit_y| / ||gradient||_dual.

    This is the boundary that FAB (Croce & Hein 2020, eq. 7) and DeepFool (Moosavi-Dezfooli et al. 2016) step to. One
    forward pass and a backward pass for each class; two gradients an image are held at a time, however many classes
    there are.

    Args:
        model: maps images to logits.
        x: images.
        y: labels.
        norm: norm of the distance, "Linf", "L2" or "L1".

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
        least, w, gap = torch.full_like(above[:, 0], float("inf")), torch.zeros_like(x), torch.zeros_like(above[:, 0])
        for k in range(classes):
            (slope,) = torch.autograd.grad(above[:, k].sum(), x, retain_graph=k + 1 < classes)
            steepness = torch.linalg.vector_norm(slope.flatten(1), ord=DUAL_ORDER[norm], dim=1)
            distance = above[:, k].abs() / steepness.clamp_min(torch.finfo(x.dtype).tiny)
            closer = (distance < least) & (y != k)
            least, gap = torch.where(closer, distance, least), torch.where(closer, above[:, k], gap)
            w = where_image(closer, slope, w)
    return Gradient(w.detach(), gap.detach(), logits.detach())


def record_distance(points: SearchState, logits: Float[Tensor, "b k"], threat: Threat) -> SearchState:
    """Record whether x_t is misclassified, whether it is the nearest such image so far, and whether that breaks x.

    Args:
        points: state with "x_t", its "length" (distance from x), and the shortest such "distance" so far.
        logits: logits of x_t.
        threat: ball within which a misclassified x_t breaks the image.

    Returns:
        The state with "outside" (x_t is misclassified), "distance", "x_adv" and "broken" brought up to date. Those of
        an image that is broken stay.

    Example:
        >>> from uiat import Linf
        >>> x, far = torch.zeros(1, 2), torch.tensor([float("inf")])
        >>> points = {"y": torch.tensor([0]), "x_adv": x, "x_t": x + 0.2, "broken": torch.tensor([False])}
        >>> points |= {"length": torch.tensor([0.2]), "distance": far}
        >>> after = record_distance(points, torch.tensor([[0.0, 1.0]]), Linf(0.1))
        >>> round(after["distance"].item(), 4), after["broken"].item()
        (0.2, False)
    """
    outside = logits.argmax(dim=1) != points["y"]
    nearer = outside & ~points["broken"] & (points["length"] < points["distance"])
    breaks = nearer & (points["length"] <= float(threat.epsilon))
    return points | {
        "outside": outside,
        "distance": torch.where(nearer, points["length"], points["distance"]),
        "x_adv": where_image(breaks, points["x_t"], points["x_adv"]),
        "broken": points["broken"] | breaks,
    }


def forget_distance(points: SearchState, mask: Bool[Tensor, "b"]) -> SearchState:
    """Set the recorded distance to infinity where the example that it belongs to proved to be none.

    Example:
        >>> forget_distance({"distance": torch.tensor([0.1, 0.2])}, torch.tensor([False, True]))["distance"].tolist()
        [0.1, inf]
    """
    return points | {"distance": points["distance"].masked_fill(mask, float("inf"))}
