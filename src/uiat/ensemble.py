"""Searching attacks over a whole test set: broken points leave, the rest is packed together again, breaks are verified.

A search runs in rounds of iterations that grow longer. After each round the points of all batches that still stand are
joined and split again, so that the device stays full while points leave.
"""

import itertools
import zlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uiat.attacks.points import Points, Search, advance, join, keys, rekey, select, split
from uiat.modes import crafting

# How much longer each round is than all before it: packing costs a copy of the state, leaving early saves iterations.
GROWTH = 1.6
# (iterations done, of all attempts; points that still stand), called after every round.
Report = Callable[[int, int], None]


def rounds(iterations: int) -> list[tuple[int, int]]:
    """(first, last) of each round.

    Example:
        >>> rounds(10)
        [(0, 1), (1, 2), (2, 4), (4, 7), (7, 10)]
    """
    edges = [0]
    while edges[-1] < iterations:
        edges.append(min(iterations, max(edges[-1] + 1, int(edges[-1] * GROWTH) + 1)))
    return list(itertools.pairwise(edges))


def search(
    attack: Search,
    model: nn.Module,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    index: Int[Tensor, "n"],
    *,
    num_classes: int,
    device: torch.device,
    seed: int = 0,
    batch_size: int = 500,
    report: Report | None = None,
) -> tuple[Bool[Tensor, "n"], Float[Tensor, "n ..."]]:
    """Attack every point until it breaks or the budget is spent, each with random numbers of its own.

    Args:
        attack: the search.
        model: maps images in [0, 1] to logits.
        x: images to attack, all of them classified correctly.
        y: labels.
        index: position of each in the test set, which decides its random numbers, whatever the batch or the process.
        num_classes: K.
        device: where the model is; points travel there batch by batch.
        seed: of the random numbers.
        batch_size: points at a time.
        report: told after every round.

    Returns:
        Which points broke, and for those the adversarial example, verified by a forward pass; on the device of `x`.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.apgd import APGD
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x = torch.rand(8, 1, 2, 2)
        >>> y = model(x).argmax(1)
        >>> attack = APGD(threat=Linf(0.99), loss="ce", iterations=5)
        >>> broken, x_adv = search(attack, model, x, y, torch.arange(8), num_classes=2, device=torch.device("cpu"))
        >>> broken.shape
        torch.Size([8])
    """
    broken, found = torch.zeros(len(x), dtype=torch.bool), x.clone()
    key = rekey(keys(seed, index), zlib.crc32(attack.name.encode()))
    attempts = attack.attempts(num_classes)
    with crafting(model):
        for attempt in range(attempts):
            left = (~broken).nonzero().flatten()
            if len(left) == 0:
                break
            work = [
                attack.start(model, x[part].to(device), y[part].to(device), key[part].to(device), attempt=attempt)
                | {"where": part.to(device)}
                for part in left.split(batch_size)
            ]
            for last, points in _attempt(attack, model, work, batch_size=batch_size):
                _settle(model, points, broken, found)
                if report is not None:
                    report(attempt * attack.iterations + last, int((~broken).sum()))
    return broken, found


def _attempt(attack: Search, model: nn.Module, work: list[Points], *, batch_size: int) -> Iterator[tuple[int, Points]]:
    """After each round of one attempt: the iterations done, and the points that broke in it."""
    for first, last in rounds(attack.iterations):
        whole = join([advance(attack, model, points, first, last) for points in work])
        yield last, select(whole, whole["broken"])
        rest = select(whole, ~whole["broken"])
        if len(rest["y"]) == 0:
            return
        work = list(split(rest, batch_size))


def _settle(model: nn.Module, points: Points, broken: Tensor, found: Tensor) -> None:
    """Record the points that the model, as it is, misclassifies; another is not broken, whatever the search says."""
    if len(points["y"]) == 0:
        return
    with torch.no_grad():
        wrong = model(points["x_adv"]).argmax(dim=1) != points["y"]
    where = points["where"][wrong].to(broken.device)
    broken[where] = True
    found[where] = points["x_adv"][wrong].to(found)
