"""Train and evaluate the runs of a grid, one after another."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from uiat import recipes
from uiat.checks import checked
from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import Busy, UserError
from uiat.experiments.arithmetic import settle_arithmetic
from uiat.experiments.finish import finish_run
from uiat.experiments.grid import GridRun, make_grid, make_rows
from uiat.experiments.sweep_file import SWEEP_FILE, read_record, write_record
from uiat.runs.folder import locked_run
from uiat.system.atomic_files import clear_partial
from uiat.system.locks import clear_locks, locked
from uiat.training.idle_settings import warned_once

SECONDS_BETWEEN_LOOKS = 1.0  # at runs that other processes work on


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
        listener: told about the runs before the first begins, and whenever one of them changes.

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
    base = recipes.get(recipe) if isinstance(recipe, str) else recipe
    where = Path("runs") / f"{base.name}-sweep" if folder is None else Path(folder)
    if root is not None:
        base = yaml_io.override(base, [("data.root", root)])
    record = where / SWEEP_FILE if rows is None else None
    if record is not None:
        read_record(record, base.name)  # refuses what it is not to be added to
        runs = make_grid(base, {path: _list_values(value) for path, value in (settings or {}).items()}, seeds, where)
    else:
        runs = make_rows(base, rows or {}, seeds, where)
    _make_folder(where)
    watching = _Silent() if listener is None else listener
    with warned_once([run.run for run in runs]):
        watching.planned(runs)
        clear_partial(where)
        _write(record, base.name, runs, begins=True)
        left = list(runs)
        while left:
            left = [run for run in left if not _finish_if_free(run, watching, record, base.name, runs, evaluated)]
            if left:  # others work on these: when they have ended, well or not, there is something to read or resume
                time.sleep(SECONDS_BETWEEN_LOOKS)
    return runs


def _finish_if_free(
    run: GridRun, watching: SweepListener, record: Path | None, recipe: str, runs: Sequence[GridRun], evaluated: bool
) -> bool:
    """Finish a run, and write the record; False if another process works on that run."""
    try:
        with locked(run.folder, "another sweep works on it"):
            if run.folder.is_dir():
                with locked_run(run.folder):  # by whomever it is trained: refused before anything is loaded
                    pass
            run.run = settle_arithmetic(run, runs)
            finish_run(run, watching.changed, evaluated=evaluated)
            clear_locks(run.folder)  # of a process that was killed
    except Busy:
        if run.status != "elsewhere":
            run.status = "elsewhere"
            watching.changed(run)
        return False
    _write(record, recipe, runs)
    return True


def _list_values(value: Any) -> list[str]:
    """Return the values of a field as they are written on a command line."""
    values = value if isinstance(value, list | tuple | range) else [value]
    return [item if isinstance(item, str) else yaml_io.write_value(item) for item in values]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from None


def _write(record: Path | None, recipe: str, runs: Sequence[GridRun], *, begins: bool = False) -> None:
    if record is not None:
        write_record(record, recipe, runs, begins=begins)
