"""Hold what a report is made from: runs, in groups, and the answers of their models on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from uiat.report.groups import Group, group_runs
from uiat.runs.run_files import RunFiles


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
        classes: names of the classes.
        attack: how the adversarial images were made, in words.
        inverse: how the inverse images were made, in words.
        shown: the images to show.
        confusion: numbers of attacked images by true class (rows) and predicted class (columns).

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
        """Number of images in the confusion matrix."""
        return sum(map(sum, self.confusion))


@dataclass(frozen=True)
class Inputs:
    """Everything that the panels of a report are made from.

    Args:
        runs: the files of each run, in the order given.
        samples: by run folder, answers on a handful of images; empty where no model was run.

    Example:
        >>> inputs = Inputs([RunFiles(Path("a"), {"seed": 0}), RunFiles(Path("b"), {"seed": 1})])
        >>> [group.seeds for group in inputs.groups]
        ['0, 1']
    """

    runs: Sequence[RunFiles]
    samples: Mapping[Path, Samples] = field(default_factory=dict)

    @cached_property
    def groups(self) -> list[Group]:
        """The runs that differ in nothing but the seed as one row each."""
        return group_runs(self.runs)

    def samples_of(self, group: Group) -> Samples | None:
        """The answers of a group's first run; None where its model was not run."""
        return self.samples.get(group.first.folder)

    def class_names(self, group: Group, count: int) -> list[str]:
        """The names of a group's classes, or their numbers where only files of runs are known.

        Example:
            >>> run = RunFiles(Path("a"), {})
            >>> Inputs([run]).class_names(Group((run,), "a"), 2)
            ['0', '1']
        """
        known = self.samples_of(group)
        if known is not None and len(known.classes) == count:
            return list(known.classes)
        return [str(i) for i in range(count)]
