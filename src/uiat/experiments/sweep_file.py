"""sweep.json: the record of a sweep."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uiat.errors import UserError
from uiat.experiments.grid import GridRun
from uiat.runs.evaluations import find_evaluations
from uiat.runs.reader import EVALUATION_FILE, is_number
from uiat.system.atomic_files import write_json
from uiat.system.bounded_files import read_file
from uiat.system.locks import locked
from uiat.system.manifest import SEAL, is_sealed, seal

SWEEP_FILE, KIND = "sweep.json", "uiat.sweep"
_TEXTS = ("status", "reason", "arithmetic")  # fields of a run


def write_record(path: Path, recipe: str, runs: Sequence[GridRun], *, begins: bool = False) -> None:
    """Write sweep.json: every run with its settings, status and accuracies; runs of earlier calls stay in it.

    Args:
        path: the file.
        recipe: name of the recipe of the sweep.
        runs: the runs of this call.
        begins: True before the first of them; later, the row of a run that is still to do or that another process has
            stays as that process wrote it.

    Raises:
        UserError: the file is of another recipe, is damaged, or cannot be written.

    Example:
        >>> import tempfile
        >>> from uiat import Run
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(Path(folder) / "sweep.json", "digits-uiat", [GridRun({}, Run(), Path(folder) / "seed=0")])
        ...     read_record(Path(folder) / "sweep.json", "digits-uiat")[0]["status"]
        'waiting'
    """
    with locked(path, "", on_wait=lambda: None):  # another process may work on the same sweep
        there = {row.get("folder"): row for row in read_record(path, recipe)}
        ours = {run.folder.name for run in runs}
        others = [row for folder, row in there.items() if folder not in ours]
        theirs = {} if begins else {run.folder.name for run in runs if run.status in ("waiting", "elsewhere")}
        rows = [there[name] if (name := run.folder.name) in theirs and name in there else _row(run) for run in runs]
        write_json(path, seal({"kind": KIND, "recipe": recipe, "runs": [*others, *rows]}))


def _row(run: GridRun) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": run.folder.name, "settings": dict(run.settings), "seed": run.run.seed}
    row["status"] = run.status
    if run.result is not None:
        row |= {name: run.result.get(name) for name in ("data", "threat", "n", "accuracy", "fairness", "verdict")}
    if run.arithmetic:
        row["arithmetic"] = run.arithmetic
    if run.seconds:
        row["training_seconds"] = run.seconds
    return row | ({"reason": run.reason} if run.reason else {})


def read_record(path: Path, recipe: str) -> list[dict[str, Any]]:
    """Read the rows of sweep.json; none where there is no file.

    Raises:
        UserError: it is damaged, or of another recipe.

    Example:
        >>> read_record(Path("missing/sweep.json"), "digits-uiat")
        []
    """
    if not path.exists():
        return []
    record = read_sweep(path)
    if record["recipe"] != recipe:
        raise UserError(f"{path} is a sweep of {record['recipe']}, not of {recipe}: choose another folder")
    rows: list[dict[str, Any]] = record["runs"]
    return rows


def read_sweep(path: Path) -> dict[str, Any]:
    """Read a sweep.json: its recipe and its runs.

    Raises:
        UserError: there is none, or it is damaged.

    Example:
        >>> read_sweep(Path("missing/sweep.json"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing/sweep.json is damaged, or no record of a sweep: move it away, or ...
    """
    try:
        record = json.loads(read_file(path).decode())
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not _is_sweep(record):
        raise UserError(f"{path} is damaged, or no record of a sweep: move it away, or choose another folder")
    return record


def find_staleness(folder: Path, row: dict[str, Any]) -> str:
    """Say why a row of sweep.json is not what its run folder holds now; "" where it is.

    Args:
        folder: the folder of the sweep.
        row: the row.

    Raises:
        UserError: an evaluation of the run is damaged.

    Example:
        >>> find_staleness(Path("missing"), {"folder": "seed=0", "status": "done"})
        'which is not there'
    """
    run = folder / Path(str(row.get("folder"))).name
    if row.get("status") == "done" and not run.is_dir():
        return "which is not there"
    accuracy = row.get("accuracy")
    if accuracy is None:
        return ""
    now = [found for found in find_evaluations(run) if not found.stale and found.record["accuracy"] == accuracy]
    return "" if now else f"of which no {EVALUATION_FILE} says so now"


def _is_sweep(record: dict[str, Any]) -> bool:
    """True for a record of a sweep; that of version 0.1 has no sum of its own contents."""
    rows, sealed = record.get("runs"), SEAL not in record or is_sealed(record)
    if record.get("kind") != KIND or not isinstance(record.get("recipe"), str) or not isinstance(rows, list):
        return False
    return sealed and all(isinstance(row, dict) and _is_row(row) for row in rows)


def _is_row(row: dict[str, Any]) -> bool:
    """True for what can be said of a run of a sweep."""
    texts = isinstance(row.get("folder"), str) and all(isinstance(row.get(name, ""), str) for name in _TEXTS)
    return texts and isinstance(row.get("settings", {}), dict) and _is_table(row.get("accuracy"))


def _is_table(accuracy: Any) -> bool:
    return accuracy is None or (isinstance(accuracy, dict) and all(map(is_number, accuracy.values())))
