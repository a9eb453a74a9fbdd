"""Progress of an evaluation: bars in a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from uiat.evaluation.bracket import Bracket
from uiat.evaluation.evaluator import CHECKS
from uiat.formatting import percent

# Where an evaluation goes to a file or a pipe: how often a long stage says where it stands.
SECONDS_BETWEEN_LINES = 60.0


class EvaluationLines:
    """Prints an evaluation under way as lines, after each stage and every minute of a long one.

    Args:
        console: where the lines go.
        clock: clock in seconds, for tests.

    Example:
        >>> lines = EvaluationLines(Console(width=60))
        >>> lines.bound("clean", 0.9)
        >>> lines.bound("pgd-20", 0.8)
        after clean: at most 90.00 % robust
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.console, self.clock = console, clock
        self.name, self.started, self.said, self.first = "", clock(), clock(), 0
        self.stage, self.fraction = "", 1.0

    def progress(self, name: str, done: int, total: int) -> None:
        """Note how many images or iterations of the named attack are done, of how many."""
        now = self.clock()
        if name == CHECKS:
            self._check(now, ended=done == total)
        elif name != self.name:
            # What a resumed evaluation finds done says nothing about its pace.
            self.name, self.started, self.said, self.first = name, now, now, done
        elif self.first < done < total and now - self.said >= SECONDS_BETWEEN_LINES:
            self.said = now
            left = timedelta(seconds=round((now - self.started) / (done - self.first) * (total - done)))
            line = f"{name}: {done:,} of {total:,}, {left} left; at most {percent(self.fraction)} robust"
            self.console.print(line, soft_wrap=True)

    def _check(self, now: float, *, ended: bool) -> None:
        """Say that the self-checks run, and how long they took."""
        if ended:
            self.console.print(f"{CHECKS}: {now - self.started:.1f} s")
            return
        self.close()
        self.name, self.started = CHECKS, now
        self.console.print(f"{CHECKS} of the result ...")

    def bound(self, stage: str, fraction: float) -> None:
        """Note the robust accuracy so far, which the attacks to come can only lower."""
        if stage != self.stage:
            self.close()
        self.stage, self.fraction = stage, fraction

    def bracket(self, found: Bracket) -> None:
        """Print what is known of the accuracy on all images after a part of them."""
        low, high = (f"{100 * edge:.2f}" for edge in found.bounds)
        line = f"{found.done:,} of {found.n:,} images: between {low} and {high} % robust on all"
        if found.in_random_order:
            low, high = (f"{100 * edge:.2f}" for edge in found.interval)
            line += f", {low} to {high} with 95 % confidence"
        self.console.print(line, soft_wrap=True)

    def close(self) -> None:
        """Print the bound after the stage that has ended."""
        if self.stage:
            self.console.print(f"after {self.stage}: at most {percent(self.fraction)} robust")
        self.stage = ""


class EvaluationBars:
    """Shows an evaluation under way as bars, one for each attack, with the time left and the bound beside it.

    Args:
        names: names of the attacks, in their order; others join as they begin.
        bars: rich's bars, which the caller draws.
        console: where the lines of finished stages go.

    Example:
        >>> with Progress(console=Console(force_terminal=False), disable=True) as bars:
        ...     EvaluationBars(("clean",), bars, Console()).progress("clean", 1, 2)
    """

    def __init__(self, names: Iterable[str], bars: Progress, console: Console) -> None:
        self.bars, self.lines, self.under_way = bars, EvaluationLines(console), ""
        self.tasks = {name: bars.add_task(name, total=None, start=False, bound="") for name in names}

    def progress(self, name: str, done: int, total: int) -> None:
        """Move the bar of the attack on; the first call starts its clock."""
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(name, total=total, start=False, bound="")
        if name != self.under_way:
            self.bars.start_task(self.tasks[name])
            self.under_way = name
        self.bars.update(self.tasks[name], completed=done, total=total)
        if name == CHECKS:
            self.lines.progress(name, done, total)

    def bound(self, stage: str, fraction: float) -> None:
        """Show the bound beside the bar, and above the bars when a stage has ended."""
        self.lines.bound(stage, fraction)
        if self.under_way:
            self.bars.update(self.tasks[self.under_way], bound=f"at most {percent(fraction)}")

    def bracket(self, found: Bracket) -> None:
        """Print what is known of the accuracy on all images above the bars."""
        self.lines.bracket(found)

    def close(self) -> None:
        """Print the bound after the stage that has ended."""
        self.lines.close()


@contextmanager
def evaluation_progress(names: Iterable[str], console: Console) -> Iterator[EvaluationLines | EvaluationBars]:
    """Give a listener for `uiat.evaluate`: a bar for each attack in a terminal, lines elsewhere.

    Example:
        >>> with evaluation_progress(("clean",), Console(width=60)) as lines:
        ...     lines.bound("clean", 0.9)
        ...     lines.close()
        after clean: at most 90.00 % robust
    """
    if not console.is_terminal:
        yield EvaluationLines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[bound]}"))
    with Progress(*columns, *times, console=console, transient=True) as shown:
        yield EvaluationBars(names, shown, console)
