"""sweep.json: the record of a sweep."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uiat.errors import UserError
from uiat.experiments.grid import GridRun
from uiat.system.atomic_files import write_json

SWEEP_FILE = "sweep.json"


def write_record(path: Path, recipe: str, runs: Sequence[GridRun]) -> None:
    """Write sweep.json: every run with its settings, status and accuracies; runs of earlier calls stay in it.

    Args:
        path: the file.
        recipe: name of the recipe of the sweep.
        runs: the runs of this call.

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
    ours = {run.folder.name for run in runs}
    others = [row for row in read_record(path, recipe) if row.get("folder") not in ours]
    write_json(path, {"kind": "uiat.sweep", "recipe": recipe, "runs": [*others, *map(_row, runs)]})


def _row(run: GridRun) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": run.folder.name, "settings": dict(run.settings), "seed": run.run.seed}
    row["status"] = run.status
    if run.result is not None:
        row |= {name: run.result.get(name) for name in ("data", "threat", "n", "accuracy", "verdict")}
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
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        kind, name, rows = record["kind"], record["recipe"], record["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        kind, name, rows = None, None, None
    if kind != "uiat.sweep" or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is damaged, or no record of a sweep: move it away, or choose another folder")
    if name != recipe:
        raise UserError(f"{path} is a sweep of {name}, not of {recipe}: choose another folder")
    return rows
