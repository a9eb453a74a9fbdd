"""The state of a search for each image of a batch, and what searches do with it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uiat.errors import UserError

# By name, each (b, ...). Every search has "x", "y", "key" (its random numbers), "x_adv" and "broken".
SearchState = dict[str, Tensor]
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

    def start(self, model: Classifier, x: Tensor, y: Tensor, key: Tensor, *, attempt: int) -> SearchState:
        """The points before the first iteration of an attempt."""

    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """The points after iteration i, counted from 0."""


def select(points: SearchState, which: Bool[Tensor, "b"] | Int[Tensor, "n"]) -> SearchState:
    """Some of the points.

    Example:
        >>> select({"y": torch.tensor([4, 5, 6])}, torch.tensor([True, False, True]))["y"].tolist()
        [4, 6]
    """
    return {name: value[which] for name, value in points.items()}


def join(parts: Sequence[SearchState]) -> SearchState:
    """Points of several batches as one.

    Example:
        >>> join([{"y": torch.tensor([4])}, {"y": torch.tensor([5, 6])}])["y"].tolist()
        [4, 5, 6]
    """
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def split(points: SearchState, size: int) -> Iterator[SearchState]:
    """Points as batches of at most `size`.

    Example:
        >>> [len(part["y"]) for part in split({"y": torch.arange(5)}, 2)]
        [2, 2, 1]
    """
    count = len(points["y"])
    return ({name: value[i : i + size] for name, value in points.items()} for i in range(0, count, size))


def unbreak(search: Search, points: SearchState, which: Bool[Tensor, "b"]) -> SearchState:
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
    own: Callable[[SearchState, Tensor], SearchState] | None = getattr(search, "unbreak", None)
    return points if own is None else own(points, which)


def advance(
    search: Search,
    model: Classifier,
    points: SearchState,
    first: int,
    last: int,
    *,
    verify: Callable[[SearchState], SearchState] | None = None,
) -> SearchState:
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
    gone: list[SearchState] = []
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


def target_class(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"], attempt: int, *, targets: int) -> Int[Tensor, "b"]:
    """The class that an attempt aims at: of the wrong ones the likeliest, the second likeliest, ..., and again.

    Raises:
        UserError: there is no wrong class.

    Example:
        >>> target_class(torch.tensor([[1.0, 4.0, 3.0]]), torch.tensor([1]), 0, targets=9).tolist()
        [2]
    """
    wrong = logits.shape[1] - 1
    if wrong < 1:
        raise UserError("there is no class to aim at: a model with only one class tells only one apart")
    order = logits.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)
    return order[:, attempt % min(targets, wrong)]


def per_image(numbers: Tensor, x: Tensor) -> Tensor:
    """A number of each point, shaped to multiply its image.

    Example:
        >>> per_image(torch.ones(2), torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 1, 1, 1])
    """
    return numbers.view(-1, *[1] * (x.ndim - 1))


def where_image(which: Bool[Tensor, "b"], yes: Tensor, no: Tensor) -> Tensor:
    """Whole images, chosen by a condition of each point.

    Example:
        >>> where_image(torch.tensor([True, False]), torch.ones(2, 1), torch.zeros(2, 1)).tolist()
        [[1.0], [0.0]]
    """
    return torch.where(per_image(which, yes), yes, no)
