"""Train and evaluate the runs of a grid, one after another or several at a time."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from uiat import recipes
from uiat.checks import Count, checked
from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import Busy
from uiat.experiments.arithmetic import is_open, settle_arithmetic
from uiat.experiments.finish import OnChange, finish_run
from uiat.experiments.grid import GridRun, make_grid, make_rows
from uiat.experiments.pool import worker_pool
from uiat.experiments.sweep_file import SWEEP_FILE, read_record, write_record
from uiat.runs.folder import locked_run
from uiat.runs.reader import CONFIG_FILE
from uiat.system.atomic_files import clear_partial, ensure_folder
from uiat.system.locks import clear_locks, locked
from uiat.training.idle_settings import warned_once

SECONDS_BETWEEN_LOOKS = 1.0  # at runs that other processes work on
Finish = Callable[[GridRun, OnChange], None]


@runtime_checkable
class SweepListener(Protocol):
    """Called while a sweep is under way."""

    def planned(self, runs: Sequence[GridRun]) -> None:
        """Take all runs, before the first of them begins."""

    def changed(self, run: GridRun) -> None:
        """Take a run at each new status, and now and then while it trains."""


class _Silent:
    def planned(self, runs: Sequence[GridRun]) -> None:
        """Do nothing."""

    def changed(self, run: GridRun) -> None:
        """Do nothing."""


@checked
def sweep(
    recipe: str | Run,
    *,
    settings: Mapping[str, Any] | None = None,
    rows: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    seeds: Sequence[int] = (0,),
    folder: str | Path | None = None,
    root: str | None = None,
    evaluated: bool = True,
    jobs: Count = 1,
    part: tuple[int, int] = (1, 1),
    listener: SweepListener | None = None,
) -> list[GridRun]:
    """Train and evaluate a recipe for every combination of settings and seeds; nothing is printed.

    The same call resumes where an earlier one was stopped or killed: finished runs are kept, half-trained and
    half-evaluated ones resumed. A run that fails does not stop the others; the next call tries it again. A run that
    another process works on is left to it and waited for in the end, so that several calls share the work.
    FOLDER/sweep.json holds settings and accuracies of every run.

    Args:
        recipe: the name of a recipe, or a run.
        settings: a value or a list of values by field, such as {"objective.gamma": [0, 0.5]}; every combination is run.
            A value that is a list itself stands in another one: {"evaluation.attacks": [["fgsm", "pgd-20"]]}.
        rows: instead of all combinations: (field, value) pairs by the name of a row. No sweep.json is written then.
        seeds: seeds of each combination or row.
        folder: each run has a folder in it; runs/NAME-sweep by default.
        root: folder of the data sets; that of the recipe by default.
        evaluated: False to train alone.
        jobs: number of runs at a time, each in a process of its own; they share out the threads and the GPUs.
        part: (I, N) for every N-th run from the I-th on, counted from 1, as for the tasks of a job array.
        listener: told about the runs before the first begins, and whenever one changes, by one thread at a time.

    Returns:
        The runs in their order: settings, folder, status ("done" or "failed", with the reason), seconds, accuracy.

    Raises:
        UserError: no such recipe, field or value; a folder that holds another run; a sweep.json of another recipe.

    Example:
        >>> import tempfile
        >>> quick = {"optimisation.epochs": 1, "model.width": 4, "evaluation.attacks": "fgsm", "evaluation.n": 40}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     runs = sweep("digits-standard", settings=quick, seeds=[0, 1], folder=folder)
        >>> [(run.run.seed, run.status, sorted(run.accuracy)) for run in runs]
        [(0, 'done', ['clean', 'fgsm', 'worst']), (1, 'done', ['clean', 'fgsm', 'worst'])]
    """
    plan = plan_sweep(recipe, settings=settings, rows=rows, seeds=seeds, folder=folder, root=root)
    mine = list(plan.runs[part[0] - 1 :: part[1]])
    ensure_folder(plan.folder)
    watching = _Silent() if listener is None else listener
    with warned_once([run.run for run in mine]):
        watching.planned(mine)
        clear_partial(plan.folder)
        _write(plan, mine, begins=True)
        if jobs == 1 or len(mine) < 2:
            work = _Work(plan, mine, watching, partial(finish_run, evaluated=evaluated))
            _until_done(mine, lambda runs: [work.finish_if_free(run) for run in runs])
        else:
            with worker_pool(min(jobs, len(mine))) as pool:
                work = _Work(plan, mine, watching, partial(pool.finish, evaluated=evaluated))
                _until_done(mine, partial(pool.map, work.finish_if_free))
    return mine


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep before any of them begins.

    Args:
        recipe: name of the recipe.
        folder: the folder of the sweep.
        record: its sweep.json; None for a sweep of rows.
        runs: all of its runs.

    Example:
        >>> Plan("digits-uiat", Path("runs/a"), None, ()).runs
        ()
    """

    recipe: str
    folder: Path
    record: Path | None
    runs: Sequence[GridRun]


def plan_sweep(
    recipe: str | Run,
    *,
    settings: Mapping[str, Any] | None = None,
    rows: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    seeds: Sequence[int] = (0,),
    folder: str | Path | None = None,
    root: str | None = None,
) -> Plan:
    """Plan what `sweep` would run, with its arguments; nothing is made or changed.

    Raises:
        UserError: as for `sweep`.

    Example:
        >>> [run.folder.name for run in plan_sweep("digits-uiat", settings={"objective.gamma": [0, 0.9]}).runs]
        ['objective.gamma=0,seed=0', 'objective.gamma=0.9,seed=0']
    """
    base = recipes.get(recipe) if isinstance(recipe, str) else recipe
    where = Path("runs") / f"{base.name}-sweep" if folder is None else Path(folder)
    if root is not None:
        base = yaml_io.override(base, [("data.root", root)])
    if rows is not None:
        return Plan(base.name, where, None, make_rows(base, rows, seeds, where))
    record = where / SWEEP_FILE
    read_record(record, base.name)  # refuses what it is not to be added to
    axes = {path: _list_values(value) for path, value in (settings or {}).items()}
    return Plan(base.name, where, record, make_grid(base, axes, seeds, where))


def _until_done(runs: Sequence[GridRun], finish: Callable[[list[GridRun]], list[bool]]) -> None:
    left = list(runs)
    while left:
        left = [run for run, finished in zip(left, finish(left), strict=True) if not finished]
        if left:  # others work on these: when they have ended, well or not, there is something to read or resume
            time.sleep(SECONDS_BETWEEN_LOOKS)


class _Work:
    """Finishes the runs of a call, in several threads if need be; each finishes one run at a time."""

    def __init__(self, plan: Plan, runs: Sequence[GridRun], watching: SweepListener, finish: Finish) -> None:
        self.plan, self.runs, self.watching, self.finish = plan, runs, watching, finish
        self.telling, self.beginning = threading.Lock(), threading.Lock()

    def finish_if_free(self, run: GridRun) -> bool:
        """Finish a run, and write the record; False if another process works on that run."""
        try:
            with locked(run.folder, "another sweep works on it"):
                if run.folder.is_dir():
                    with locked_run(run.folder):  # by whomever it is trained: refused before anything is loaded
                        pass
                self._settle(run)
                self.finish(run, self._tell)
                clear_locks(run.folder)  # of a process that was killed
        except Busy:
            if run.status != "elsewhere":
                run.status = "elsewhere"
                self._tell(run)
            return False
        with self.telling:
            _write(self.plan, self.runs)
        return True

    def _tell(self, run: GridRun) -> None:
        with self.telling:
            self.watching.changed(run)

    def _settle(self, run: GridRun) -> None:
        """Settle the arithmetic, once those that have begun before say what theirs came to."""
        with self.beginning:
            while is_open(run.run) and any(_is_beginning(other) for other in self.runs if other is not run):
                time.sleep(SECONDS_BETWEEN_LOOKS)
            run.run = settle_arithmetic(run, self.plan.runs)
            if is_open(run.run):
                run.status = "training"


def _is_beginning(run: GridRun) -> bool:
    return is_open(run.run) and run.status == "training" and not (run.folder / CONFIG_FILE).is_file()


def _list_values(value: Any) -> list[str]:
    """Return the values of a field as they are written on a command line."""
    values = value if isinstance(value, list | tuple | range) else [value]
    return [item if isinstance(item, str) else yaml_io.write_value(item) for item in values]


def _write(plan: Plan, runs: Sequence[GridRun], *, begins: bool = False) -> None:
    if plan.record is not None:
        write_record(plan.record, plan.recipe, runs, begins=begins)
