"""Search attacks: the protocol, the state of each image, and what all of them do with it.

A search follows every image on its own. Its state is a dictionary of tensors with one row for each image, so a batch
can be split, joined and packed between any two iterations without changing what happens to an image.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from uiat.attacks.gradient import expected_logits
from uiat.attacks.random_numbers import rekey
from uiat.errors import UserError
from uiat.shapes import Bool, Float, Int

# Tensors by name, one row an image. Every search has "x", "y", "key" (of its random numbers), "x_adv" and "broken".
# Unfinished evaluations are saved under these names and those that a search adds: do not rename them.
SearchState = dict[str, Tensor]
Classifier = Callable[[Tensor], Tensor]


@runtime_checkable
class Search(Protocol):
    """An attack as a value: how an attempt starts, and what one iteration does to each image.

    `x_adv` of an image whose `broken` is set is in the ball and in [0, 1] and was misclassified when it was set; no
    later iteration changes either. A search that concludes more from a break than that has a method `unbreak`, see the
    function of that name.
    """

    @property
    def name(self) -> str:
        """Name in results, such as "apgd-ce"; it seeds the random numbers of an evaluation too."""

    @property
    def iterations(self) -> int:
        """Number of iterations of an attempt."""

    def attempts(self, num_classes: int) -> int:
        """Return the number of restarts or targets; each attempt attacks the images that are still robust."""

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Return the state before the first iteration of an attempt, from the one that `begin` has made."""

    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Return the state after iteration i, counted from 0; the tensors of `points` are not written to."""


@torch.no_grad()
def begin(
    search: Search,
    model: Classifier,
    x: Float[Tensor, "b ..."],
    y: Int[Tensor, "b"],
    key: Int[Tensor, "b"],
    *,
    attempt: int = 0,
) -> SearchState:
    """Start an attempt of a search on images.

    Args:
        search: the attack.
        model: maps images in [0, 1] to logits, as it is.
        x: images in [0, 1].
        y: labels.
        key: key of each image's random numbers, see `uiat.attacks.random_numbers.keys`.
        attempt: number of the attempt, from 0; each has other random numbers.

    Returns:
        The state before the first iteration.

    Raises:
        UserError: the images or the model do not fit the search.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks import Noise
        >>> from uiat.attacks.random_numbers import keys
        >>> model = lambda x: torch.stack([x.sum(1) - 1, 1 - x.sum(1)], dim=1)
        >>> x, y, key = torch.tensor([[0.51, 0.5], [0.9, 0.9]]), torch.tensor([0, 0]), keys(0, torch.arange(2))
        >>> attack = Noise(threat=Linf(0.1), iterations=20)
        >>> advance(attack, model, begin(attack, model, x, y, key), 0, 20)["broken"].tolist()
        [True, False]
    """
    x = x.detach()
    none = torch.zeros_like(y, dtype=torch.bool)
    return search.start(model, {"x": x, "y": y, "key": rekey(key, attempt), "x_adv": x, "broken": none}, attempt)


def select(points: SearchState, rows: Bool[Tensor, "b"] | Int[Tensor, "n"]) -> SearchState:
    """Return the state of some of the images, by a mask or by their positions.

    Example:
        >>> select({"y": torch.tensor([4, 5, 6])}, torch.tensor([True, False, True]))["y"].tolist()
        [4, 6]
    """
    return {name: value[rows] for name, value in points.items()}


def join(parts: Sequence[SearchState]) -> SearchState:
    """Return the states of several batches as one.

    Example:
        >>> join([{"y": torch.tensor([4])}, {"y": torch.tensor([5, 6])}])["y"].tolist()
        [4, 5, 6]
    """
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def split(points: SearchState, size: int) -> Iterator[SearchState]:
    """Return the state as batches of at most `size` images.

    Example:
        >>> [len(part["y"]) for part in split({"y": torch.arange(5)}, 2)]
        [2, 2, 1]
    """
    count = len(points["y"])
    return ({name: value[i : i + size] for name, value in points.items()} for i in range(0, count, size))


def unbreak(search: Search, points: SearchState, mask: Bool[Tensor, "b"]) -> SearchState:
    """Take the flag from images that were counted as broken and are not, so that the search continues on them.

    A search that has concluded more from the break, such as that nothing can be nearer, takes that back in a method of
    this name.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks import FAB
        >>> points = {"broken": torch.tensor([True, True]), "distance": torch.tensor([0.1, 0.2])}
        >>> unbreak(FAB(threat=Linf(0.5)), points, torch.tensor([False, True]))
        {'broken': tensor([ True, False]), 'distance': tensor([0.1000, inf])}
    """
    points = points | {"broken": points["broken"] & ~mask}
    own: Callable[[SearchState, Tensor], SearchState] | None = getattr(search, "unbreak", None)
    return points if own is None else own(points, mask)


def best_example(search: Search, points: SearchState) -> Float[Tensor, "b ..."]:
    """Return the likeliest example of each image, broken or not, which a randomised model is judged by.

    That is `x_adv`, unless the search has a method `best` that knows better.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks import APGD
        >>> points = {"broken": torch.tensor([False]), "x_adv": torch.zeros(1, 2), "x_best": torch.ones(1, 2)}
        >>> best_example(APGD(threat=Linf(0.1)), points).tolist()
        [[1.0, 1.0]]
    """
    own: Callable[[SearchState], Tensor] | None = getattr(search, "best", None)
    return points["x_adv"] if own is None else own(points)


def advance(
    search: Search,
    model: Classifier,
    points: SearchState,
    first: int,
    last: int,
    *,
    verify: Callable[[SearchState], SearchState] | None = None,
) -> SearchState:
    """Run iterations `first` to `last - 1` on a batch; broken images leave it once they are an eighth of it.

    Args:
        search: the attack.
        model: model that guides the attack.
        points: state of the batch; its tensors are not written to.
        first: number of the first iteration.
        last: number of the iteration after the last.
        verify: called on the batch after an iteration that broke images; may take the flag from some of them.

    Returns:
        The state of all images in the order of `points`, broken ones included, under the names that it had: a tensor
        that iterations add for themselves is not kept.
    """
    names = list(points)
    points = points | {"slot": torch.arange(len(points["y"]), device=points["y"].device)}
    gone: list[SearchState] = []
    before = 0  # broken images that are still in the batch
    for i in range(first, last):
        points = search.iterate(model, points, i)
        count = int(points["broken"].sum())
        if verify is not None and count > before:
            points = verify(points)
            count = int(points["broken"].sum())
        before = count
        if count and count >= len(points["y"]) / 8:
            gone.append(select(points, points["broken"]))
            points, before = select(points, ~points["broken"]), 0
        if len(points["y"]) == 0:
            break
    whole = join([*gone, points])
    whole = select(whole, whole["slot"].argsort())
    return {name: whole[name] for name in names}


def one_attempt(self: object, num_classes: int) -> int:
    """Return 1, or 0 if there is only one class to predict: the `attempts` of searches that would begin anew alike.

    Example:
        >>> one_attempt(None, 10), one_attempt(None, 1)
        (1, 0)
    """
    return int(num_classes > 1)


def stay(self: object, model: Classifier, points: SearchState, attempt: int) -> SearchState:
    """Return the images as they are, without a query: the `start` of searches that draw each example anew.

    Example:
        >>> stay(None, lambda x: x, {"x": torch.zeros(1, 2)}, 0)
        {'x': tensor([[0., 0.]])}
    """
    return points


def query(model: Classifier, points: SearchState, x_t: Float[Tensor, "b ..."], *, draws: int) -> SearchState:
    """Try one image in place of each, and keep those that are misclassified, of the images that are not broken yet.

    Example:
        >>> points = {"y": torch.tensor([0, 1]), "x_adv": torch.zeros(2, 2), "broken": torch.tensor([False, False])}
        >>> query(lambda x: x, points, torch.tensor([[0.0, 1.0], [0.0, 1.0]]), draws=1)["broken"].tolist()
        [True, False]
    """
    breaks = (expected_logits(model, x_t, draws=draws).argmax(dim=1) != points["y"]) & ~points["broken"]
    return points | {"x_adv": where_image(breaks, x_t, points["x_adv"]), "broken": points["broken"] | breaks}


def target_class(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"], attempt: int, *, targets: int) -> Int[Tensor, "b"]:
    """Return the class that an attempt aims at: the likeliest wrong one, then the second likeliest, and so on in turn.

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
    """Reshape one number an image so that it multiplies the images.

    Example:
        >>> per_image(torch.ones(2), torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 1, 1, 1])
    """
    return numbers.view(-1, *[1] * (x.ndim - 1))


def where_image(mask: Bool[Tensor, "b"], yes: Tensor, no: Tensor) -> Tensor:
    """Choose whole images: those of `yes` where the mask is set, of `no` elsewhere.

    Example:
        >>> where_image(torch.tensor([True, False]), torch.ones(2, 1), torch.zeros(2, 1)).tolist()
        [[1.0], [0.0]]
    """
    return torch.where(per_image(mask, yes), yes, no)
