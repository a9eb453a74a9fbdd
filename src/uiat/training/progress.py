"""Progress of training: bars in a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from torch import Tensor

from uiat.config.schema import Run
from uiat.formatting import batch_accuracy_name, percent
from uiat.system.distributed import current_rank
from uiat.training.listener import Listener
from uiat.training.validation import selection_metric

# Reading a loss term waits for the device, so it is not done at every step.
SECONDS_BETWEEN_LOOKS = 0.25


def terms_line(terms: Mapping[str, float], *, attacked: bool = True) -> str:
    """Return the loss terms, and the accuracy on the batches that were trained on, in a line.

    Args:
        terms: means by name.
        attacked: False for a method that trains on images as they are.

    Example:
        >>> terms_line({"adv_ce": 1.25, "correct": 0.5})
        'adv_ce 1.2500, accuracy on attacked batches 50.00 %'
    """
    parts = [f"{name} {value:.4f}" for name, value in terms.items() if name != "correct"]
    if "correct" in terms:
        parts.append(f"{batch_accuracy_name(attacked=attacked)} {percent(terms['correct'])}")
    return ", ".join(parts)


def validation_line(row: Mapping[str, Any]) -> str:
    """Return clean and robust accuracy on the held-out images in a line; empty for an epoch without validation.

    Example:
        >>> validation_line({"clean": 0.9, "robust": 0.5})
        'validation clean 90.00 %, robust 50.00 %'
    """
    parts = [f"{name} {percent(row[name])}" for name in ("clean", "robust") if row.get(name) is not None]
    return f"validation {', '.join(parts)}" if parts else ""


def epoch_line(row: Mapping[str, Any], *, epochs: int, best: bool = False, attacked: bool = True) -> str:
    """Return an epoch in a line, counted from 1; its seconds include validation.

    Example:
        >>> row = {"epoch": 0, "train_ce": 1.5, "clean": 0.9, "seconds": 2.0, "images_per_second": 1000.0}
        >>> epoch_line(row, epochs=10)
        'epoch  1/10: ce 1.5000; validation clean 90.00 %; 1,000 images/s, 2.0 s'
    """
    terms = {name.removeprefix("train_"): value for name, value in row.items() if name.startswith("train_")}
    seconds = row["seconds"] + row.get("validation_seconds", 0.0)
    parts = [
        terms_line(terms, attacked=attacked),
        validation_line(row),
        f"{row['images_per_second']:,.0f} images/s, {seconds:.1f} s",
    ]
    line = f"epoch {row['epoch'] + 1:{len(str(epochs))}}/{epochs}: " + "; ".join(part for part in parts if part)
    return f"{line}; best so far" if best else line


class TrainingLines:
    """Prints a line an epoch.

    Args:
        run: the run, for its number of epochs and its metric.
        console: where the lines go.
        best: the highest value of the metric before the first epoch printed.

    Example:
        >>> row = {"epoch": 0, "train_ce": 1.5, "clean": 0.9, "seconds": 2.0, "images_per_second": 1000.0}
        >>> TrainingLines(Run(), Console(width=200)).epoch(row)
        epoch  1/30: ce 1.5000; validation clean 90.00 %; 1,000 images/s, 2.0 s; best so far
    """

    def __init__(self, run: Run, console: Console, *, best: float | None = None) -> None:
        self.run, self.console, self.best = run, console, best

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Do nothing: the terms stay on the device."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Print the epoch."""
        value = selection_metric(row, self.run.validation.metric)
        better = value is not None and (self.best is None or value > self.best)
        self.best = value if better else self.best
        attacked = self.run.objective.threat is not None
        line = epoch_line(row, epochs=self.run.optimisation.epochs, best=better, attacked=attacked)
        self.console.print(line, soft_wrap=True)


class TrainingBars:
    """Draws the state of training: epoch, step, rate, time left, loss terms, validation.

    Args:
        run: the run, for its number of epochs.
        lines: prints each epoch too, so that finished epochs stay above the bar.
        clock: clock in seconds, for tests.

    Example:
        >>> import torch
        >>> bars = TrainingBars(Run(), TrainingLines(Run(), Console()))
        >>> bars.step(0, 1, 9, {"ce": torch.tensor(1.5)}, 64)
        >>> bars.terms
        {'ce': 1.5}
    """

    def __init__(self, run: Run, lines: TrainingLines, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.epochs, self.lines, self.clock = run.optimisation.epochs, lines, clock
        self.attacked = run.objective.threat is not None
        self.started, self.looked = clock(), float("-inf")
        self.at, self.steps, self.position, self.done, self.images = 0, 0, 0, 0, 0
        self.terms: dict[str, float] = {}
        self.validating, self.validated = False, ""
        self.rate = 0.0
        self._since = (self.started, 0)

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Count the step; read the terms, which waits for the device, a few times a second."""
        self.at, self.position, self.steps, self.validating = epoch, step, steps, step == steps
        self.done, self.images = self.done + 1, self.images + images
        now = self.clock()
        if now - self.looked < SECONDS_BETWEEN_LOOKS:
            return
        self.terms = {name: value.item() for name, value in terms.items()}
        self.looked = now = self.clock()
        since, images_then = self._since
        if now > since:
            self.rate = (self.images - images_then) / (now - since)
        self._since = (now, self.images)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Keep the epoch as a line above."""
        self.validating, self.validated = False, validation_line(row) or self.validated
        self.lines.epoch(row)
        self._since = (self.clock(), self.images)  # the time of a validation is no training

    def left(self) -> str:
        """Return the time to the end of the run at its pace so far, validation included, as h:mm:ss."""
        if not self.done:
            return "-:--:--"
        steps = (self.epochs - self.at) * self.steps - self.position
        return str(timedelta(seconds=round(steps * (self.clock() - self.started) / self.done)))

    def __rich__(self) -> RenderableType:
        """Return the bar, the loss terms and the last validation, a line each."""
        if not self.steps:
            return Text("first step ...")
        grid = Table.grid(padding=(0, 2))
        grid.add_row(
            f"epoch {self.at + 1}/{self.epochs}",
            ProgressBar(total=self.steps, completed=self.position, width=24),
            f"step {self.position}/{self.steps}",
            "validating" if self.validating else f"{self.rate:,.0f} images/s",
            f"{self.left()} left",
        )
        lines = (
            Text(line, no_wrap=True, overflow="ellipsis")
            for line in (terms_line(self.terms, attacked=self.attacked), self.validated)
        )
        return Group(grid, *(line for line in lines if line))


@contextmanager
def training_progress(run: Run, console: Console, *, best: Mapping[str, Any] | None = None) -> Iterator[Listener]:
    """Give a listener that shows training on a console: live in a terminal, otherwise a line an epoch.

    Args:
        run: the run that is trained.
        console: where the lines or bars go.
        best: {"epoch": ..., "value": ...} so far, for a run that is resumed.

    Example:
        >>> with training_progress(Run(), Console()) as listener:
        ...     type(listener).__name__
        'TrainingLines'
    """
    lines = TrainingLines(run, console, best=None if best is None else best["value"])
    if not console.is_terminal:
        yield lines
        return
    bars = TrainingBars(run, lines)
    # Warnings go above the bars, unless standard error was sent elsewhere.
    with Live(bars, console=console, transient=True, redirect_stderr=sys.stderr.isatty()):
        yield bars


@contextmanager
def live_progress(run: Run, *, shown: bool, best: Mapping[str, Any] | None = None) -> Iterator[Listener | None]:
    """Give a listener that draws the bar of `training_progress` on standard error, in a terminal or a notebook.

    Args:
        run: the run that is trained.
        shown: False for no bar.
        best: {"epoch": ..., "value": ...} so far, for a run that is resumed.

    Yields:
        The listener; None where nothing is drawn, as in a script whose output goes to a file.

    Example:
        >>> with live_progress(Run(), shown=False) as listener:
        ...     listener is None
        True
    """
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    if not (shown and current_rank().first and (console.is_terminal or console.is_jupyter)):
        yield None
        return
    bars = TrainingBars(run, TrainingLines(run, console, best=None if best is None else best["value"]))
    with Live(bars, console=console, transient=True):
        yield bars
