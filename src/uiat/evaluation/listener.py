"""Progress of an evaluation, told to whoever shows it."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class EvaluationListener(Protocol):
    """Called while an evaluation runs; `uiat.cli.evaluation_progress` shows it in a terminal."""

    def progress(self, name: str, done: int, total: int) -> None:
        """After each batch or round of a named attack: images or iterations done, of how many."""

    def bound(self, stage: str, share: float) -> None:
        """After each batch or round of a stage: the accuracy in the worst case is at most this."""

    def close(self) -> None:
        """The last stage has ended."""


class Silent:
    """A listener that shows nothing."""

    def progress(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def bound(self, stage: str, share: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
