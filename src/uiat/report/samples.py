"""What a model answers on a handful of test images: computed elsewhere, shown here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """A test image as it is, attacked, and moved towards its class.

    Args:
        index: its place in the test set.
        label: its class.
        images: (C, H, W) in [0, 1], by "natural", "adversarial" and "inverse".
        predicted: the class predicted for each of them, and its probability.

    Example:
        >>> Sample(0, 3, {}, {"natural": (3, 0.9)}).predicted["natural"]
        (3, 0.9)
    """

    index: int
    label: int
    images: Mapping[str, Tensor]
    predicted: Mapping[str, tuple[int, float]]


@dataclass(frozen=True)
class Samples:
    """Such images of one run, and how its model confuses classes under attack.

    Args:
        classes: their names.
        attack: how the adversarial images were made, in words.
        inverse: how the inverse images were made, in words.
        shown: the images to show.
        confusion: images by true class (rows) and predicted class (columns), attacked.

    Example:
        >>> Samples(("cat", "dog"), "PGD", "PGD", (), ((3, 1), (0, 4))).n
        8
    """

    classes: tuple[str, ...]
    attack: str
    inverse: str
    shown: Sequence[Sample]
    confusion: Sequence[Sequence[int]]

    @property
    def n(self) -> int:
        """Images behind the confusion."""
        return sum(map(sum, self.confusion))


def class_names(folder: Path, samples: Mapping[Path, Samples], count: int) -> list[str]:
    """The names of a run's classes, or their numbers where only its files are known.

    Example:
        >>> class_names(Path("a"), {}, 2)
        ['0', '1']
    """
    known = samples.get(folder)
    return list(known.classes) if known is not None and len(known.classes) == count else [str(i) for i in range(count)]
