"""Split a set by seed so that each class keeps its fraction."""

from typing import TypeVar, cast

import torch
from jaxtyping import Int
from torch import Tensor

from uiat.data.image_folder import Folder
from uiat.data.image_set import ImageSet
from uiat.data.sampling import generator
from uiat.errors import UserError

Data = TypeVar("Data", bound=ImageSet | Folder)


def split_validation(data: Data, *, size: int | None = None, seed: int = 0) -> tuple[Data, ImageSet, Int[Tensor, "n"]]:
    """Hold out a part of the training set for validation and model selection, stratified by class.

    Args:
        data: the whole training set.
        size: number of images to hold out; by default 1,000 or 5 % of the set, whichever is less, and at least one of
            each class.
        seed: seed of the choice; the same seed chooses the same images.

    Returns:
        The rest to train on, the validation part in memory, and the position in `data` of each training example.

    Raises:
        UserError: the size leaves a class without an image on either side.

    Example:
        >>> from uiat.data import load
        >>> train, validation, index = split_validation(load("digits", "train"), size=100)
        >>> len(validation), len(train) == len(index)
        (100, True)
    """
    count = size if size is not None else max(data.num_classes, min(1000, len(data) // 20))
    _check_two_each(data)
    held = stratified_index(data.labels, count, num_classes=data.num_classes, seed=seed, keep=1)
    rest = torch.ones(len(data), dtype=torch.bool)
    rest[held] = False
    index = rest.nonzero().flatten()
    return cast(Data, data.subset(index)), data.subset(held).decode(), index


def stratified_subset(data: Data, n: int, *, seed: int = 0) -> Data:
    """Return n examples in which each class keeps its fraction, at least one, in the order of the set.

    Raises:
        UserError: n is smaller than the number of classes or larger than the set.

    Example:
        >>> from uiat.data import load
        >>> len(stratified_subset(load("digits", "train"), 200))
        200
    """
    return cast(Data, data.subset(stratified_index(data.labels, n, num_classes=data.num_classes, seed=seed, keep=0)))


def stratified_index(
    labels: Int[Tensor, "n"], size: int, *, num_classes: int, seed: int, keep: int
) -> Int[Tensor, "m"]:
    """Choose `size` positions, ascending: each class gives its fraction, at least one, and keeps at least `keep`.

    Raises:
        UserError: that cannot be done.

    Example:
        >>> stratified_index(torch.tensor([0, 0, 1, 1]), 4, num_classes=2, seed=0, keep=0)
        tensor([0, 1, 2, 3])
    """
    labels = labels.cpu()
    counts = torch.bincount(labels, minlength=num_classes)
    classes = int((counts > 0).sum())
    short = (counts > 0) & (counts <= keep)
    if bool(short.any()):
        raise UserError(f"class {int(short.nonzero()[0])} has one image only; it takes two to train and to validate")
    most = len(labels) - keep * classes
    if not classes <= size <= most:
        raise UserError(f"cannot take {size} of {len(labels)} images in {classes} classes; choose {classes} .. {most}")
    random = generator(seed)
    order = torch.randperm(len(labels), generator=random)
    by_class = order[torch.argsort(labels[order], stable=True)].split(counts.tolist())
    take = _counts_by_class(counts, size, keep)
    return torch.cat([group[:k] for group, k in zip(by_class, take.tolist(), strict=True)]).sort().values


def _check_two_each(data: ImageSet | Folder) -> None:
    """Refuse a class of one image by its name, and its folder if it has one."""
    single = (torch.bincount(data.labels.cpu(), minlength=data.num_classes) == 1).nonzero().flatten().tolist()
    if single:
        where = int((data.labels == single[0]).nonzero()[0])
        file = f" ({data.paths[where]})" if isinstance(data, Folder) else ""
        raise UserError(
            f"{data.name}: class {data.classes[single[0]]} has one image only{file}; it takes two to train and to "
            "validate, so add one or leave the class out"
        )


def _counts_by_class(counts: Tensor, size: int, keep: int) -> Tensor:
    """Return how many to take of each class: proportional, rounded so that they sum to `size` within the bounds."""
    exact = counts.double() * size / counts.sum()
    least, most = (counts > 0).long(), (counts - keep).clamp(min=0)
    take = torch.minimum(torch.maximum(exact.floor().long(), least), most)
    while int(take.sum()) != size:
        missing = exact - take
        if int(take.sum()) < size:
            take[missing.masked_fill(take >= most, -torch.inf).argmax()] += 1
        else:
            take[missing.masked_fill(take <= least, torch.inf).argmin()] -= 1
    return take
