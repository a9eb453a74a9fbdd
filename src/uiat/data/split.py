"""Choose images of a set, by seed and so that each class keeps its fraction: held-out parts, subsets, samples."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from uiat.checks import Seed, checked
from uiat.data.image_folder import Folder
from uiat.data.image_set import ImageSet
from uiat.data.sampling import generator
from uiat.errors import UserError
from uiat.shapes import Int

Data = TypeVar("Data", bound=ImageSet | Folder)
SAMPLE_SEED = 0  # one for all commands, so that all of them take the same images


@dataclass(frozen=True)
class Subsample:
    """Which images of a set were taken.

    Args:
        index: position of each in the set, (n,).
        of: number of images in the set; None where it is not known, of a stream.
        rule: "all" in their order, the "first", or "stratified": those of `stratified_order`.

    Example:
        >>> Subsample(torch.arange(40), 539, "first").text, Subsample(torch.arange(2), 2, "all").text
        ('the first of 539', '')
    """

    index: Int[Tensor, "n"]
    of: int | None
    rule: Literal["all", "first", "stratified"]

    def __repr__(self) -> str:
        return f"Subsample of {len(self.index)} images" + (f": {self.text}" if self.text else ", all of them")

    @property
    def text(self) -> str:
        """The choice in words, to stand behind the number of images; "" for all of them."""
        if len(self.index) == self.of or self.rule == "all":
            return ""
        if self.of is None:
            return "the first"
        return f"{'the first' if self.rule == 'first' else 'a stratified sample'} of {self.of:,}" + (
            f", seed {SAMPLE_SEED}" if self.rule == "stratified" else ""
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the positions are left out where the rule tells them."""
        facts: dict[str, Any] = {"rule": self.rule, "of": self.of}
        return facts | ({"seed": SAMPLE_SEED, "index": self.index.tolist()} if self.rule == "stratified" else {})


@checked
def split_validation(data: Data, *, size: int | None = None, seed: Seed = 0) -> tuple[Data, ImageSet, Int[Tensor, "n"]]:
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


def take_images(data: ImageSet | Folder, n: int | None) -> tuple[ImageSet, Subsample]:
    """Take n images to measure on, decoded, as `choose_subsample` chooses them; return also which they are.

    Example:
        >>> from uiat.data import load
        >>> images, sample = take_images(load("digits", "test"), 5)
        >>> len(images), sample.text
        (5, 'the first of 539')
    """
    sample = choose_subsample(data.labels, n, num_classes=data.num_classes)
    return (data if n is None else data.subset(sample.index)).decode(), sample


def choose_subsample(labels: Int[Tensor, "n"], n: int | None, *, num_classes: int) -> Subsample:
    """Choose n images to measure on: the first, or a stratified sample where the set lies class by class.

    The test sets of benchmarks are mixed, and their first n images are what people compare. An image folder, and parts
    of one, lie class by class: there the first n would be of the first classes alone.

    Args:
        labels: those of the whole set.
        n: number of images, at most as many as there are; None for all of them in their order. The images of a smaller
            n are the first of those of a larger one.
        num_classes: K.

    Example:
        >>> labels = torch.arange(3).repeat_interleave(20)
        >>> sample = choose_subsample(labels, 6, num_classes=3)
        >>> labels[sample.index].bincount().tolist(), sample.text
        ([2, 2, 2], 'a stratified sample of 60, seed 0')
    """
    count = len(labels)
    if n is not None and _lies_by_class(labels):
        order = stratified_order(labels, num_classes=num_classes, seed=SAMPLE_SEED)
        return Subsample(order[:n], count, "stratified")
    return Subsample(torch.arange(count)[:n], count, "all" if n is None or n >= count else "first")


def _lies_by_class(labels: Tensor) -> bool:
    """True if the images of each class lie side by side."""
    return int((labels.diff() != 0).sum()) + 1 == len(labels.unique())


def stratified_order(labels: Int[Tensor, "n"], *, num_classes: int, seed: int) -> Int[Tensor, "n"]:
    """Return an order of a set in which the images up to any place are a stratified sample of it.

    One image of each class comes first, in random order; from there on each class keeps its fraction.

    Example:
        >>> order = stratified_order(torch.arange(3).repeat_interleave(20), num_classes=3, seed=0)
        >>> [torch.arange(3).repeat_interleave(20)[order[:n]].unique().tolist() for n in (3, 60)]
        [[0, 1, 2], [0, 1, 2]]
    """
    labels = labels.cpu()
    random = generator(seed)
    shuffled = torch.randperm(len(labels), generator=random)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    counts = torch.bincount(labels, minlength=num_classes)
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[by_class]]  # of an image within its class
    # The k-th image of a class of c is due after the fraction k/c of the set, and its first one at once.
    due = torch.where(rank == 0, -1.0, (rank + torch.rand(len(labels), generator=random)) / counts[labels[by_class]])
    ties = torch.randperm(len(labels), generator=random)
    return by_class[ties[torch.argsort(due[ties], stable=True)]]


@checked
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


@checked
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
