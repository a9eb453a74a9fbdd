"""Progress of an evaluation: what is called, and when, by whoever wants to show it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from uiat.evaluation.bracket import Bracket

# The two arguments of `uiat.evaluate`, which are the first two methods of a listener.
Progress = Callable[[str, int, int], None]
Bound = Callable[[str, float], None]
# Inside one stage, called after every batch or round: (images or iterations done, of how many, images still correct).
OnProgress = Callable[[int, int, int], None]


@runtime_checkable
class EvaluationListener(Protocol):
    """Called while an evaluation runs; `uiat.cli.evaluation_progress` shows it in a terminal."""

    def progress(self, name: str, done: int, total: int) -> None:
        """After each batch or round of a named attack: images or iterations done, of how many."""

    def bound(self, stage: str, accuracy: float) -> None:
        """After each batch or round of a stage: the accuracy in the worst case is at most this."""

    def bracket(self, found: Bracket) -> None:
        """Where images are evaluated part by part, after each part: what is known of the accuracy on all."""

    def close(self) -> None:
        """The last stage has ended."""


class Silent:
    """A listener that shows nothing."""

    def progress(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def bound(self, stage: str, accuracy: float) -> None:
        """Nothing."""

    def bracket(self, found: Bracket) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Callbacks:
    """A listener made of functions, any of which may be missing.

    Example:
        >>> Callbacks(print).progress("pgd-20", 500, 1000)
        pgd-20 500 1000
        >>> Callbacks(print).bound("pgd-20", 0.5)
    """

    on_progress: Progress | None = None
    on_bound: Bound | None = None
    on_bracket: Callable[[Bracket], None] | None = None

    def progress(self, name: str, done: int, total: int) -> None:
        """Call the first function."""
        if self.on_progress is not None:
            self.on_progress(name, done, total)

    def bound(self, stage: str, accuracy: float) -> None:
        """Call the second function."""
        if self.on_bound is not None:
            self.on_bound(stage, accuracy)

    def bracket(self, found: Bracket) -> None:
        """Call the third function."""
        if self.on_bracket is not None:
            self.on_bracket(found)

    def close(self) -> None:
        """Nothing: whoever gave the functions knows when the evaluation has ended."""


def ignore_progress(done: int, total: int, correct: int) -> None:
    """Do nothing; the default where progress inside a stage is reported."""
