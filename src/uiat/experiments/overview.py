"""What `uiat show` says of a folder as plain values: a run, a sweep, or an evaluation alone; from files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from uiat import recipes
from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.experiments.sweep_file import SWEEP_FILE, find_staleness, read_sweep
from uiat.formatting import threat_record
from uiat.runs.evaluations import choose
from uiat.runs.reader import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    EVALUATION_FILE,
    EVALUATION_STATE_FILE,
    EXTRA_LABELS_FILE,
    GENERATOR_FILE,
    INVERSE_FILE,
    METRICS_FILE,
    WEIGHTS_FILES,
    leaves,
    read_environment,
    read_history,
    training_seconds,
)
from uiat.runs.run_files import find_runs, is_evaluation_alone
from uiat.runs.settings import read_evaluated, read_plain
from uiat.system.manifest import MANIFEST_FILE, OWN_CODE, find_damage
from uiat.training.validation import selection_metric

FILES = {
    CONFIG_FILE: "every setting of the run",
    MANIFEST_FILE: "sha256 of each file, by which damage is seen",
    ENVIRONMENT_FILE: "versions, hardware and commit",
    METRICS_FILE: "a row of measurements an epoch",
    WEIGHTS_FILES["best"]: "weights of the best epoch",
    WEIGHTS_FILES["last"]: "weights of the last epoch",
    INVERSE_FILE: "universal inverse perturbations, one a class",
    GENERATOR_FILE: "network that makes inverse examples of images and labels",
    EXTRA_LABELS_FILE: "the teacher's labels of the extra images",
    CHECKPOINT_FILE: "what --resume resumes from",
    EVALUATION_FILE: "accuracy on test images, and each image's verdict",
    EVALUATION_STATE_FILE: "what evaluate --resume resumes from",
}


def kind_of(folder: Path) -> Literal["run", "sweep", "evaluation"]:
    """Return what a folder is.

    Raises:
        UserError: it is none of them; several runs without a sweep.json are not.

    Example:
        >>> kind_of(Path("missing"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing is not a run folder: it has no config.yaml
    """
    if not (folder / CONFIG_FILE).is_file() and folder not in (runs := find_runs(folder, alone=True)):
        if not (folder / SWEEP_FILE).is_file():
            raise UserError(f"{folder} holds {len(runs)} runs and no {SWEEP_FILE}: show one of them")
        return "sweep"
    return "evaluation" if is_evaluation_alone(folder) else "run"


def describe_folder(folder: Path) -> dict[str, Any]:
    """Return what is known of a folder, for programs; `uiat show --json` prints it.

    Returns:
        Plain values, by these names: "kind", "folder", "files" (name, bytes and about of each) and "damage" (a sentence
        for each damaged file); of a run "name", "config", "overridden", "threat", "seed", "epochs_done", "epochs",
        "best_epoch" (from 1), "seconds", "history", "alarms" and "environment"; of a run and of an evaluation
        "evaluation", which is null where there is none, and "notes"; of a sweep "recipe" and "runs".

    Raises:
        UserError: it is no such folder, or a file that is read is damaged.
    """
    kind = kind_of(folder)
    facts: dict[str, Any] = {"kind": kind, "folder": str(folder)}
    if kind == "sweep":
        facts |= _describe_sweep(folder)
    else:
        facts |= _describe_run(folder) if kind == "run" else {}
        evaluation, notes = choose(folder)
        facts |= {"evaluation": evaluation, "notes": notes}
    files = [{"name": name, "bytes": size, "about": about} for name, size, about in list_files(folder)]
    return {**facts, "files": files, "damage": find_damage(folder)}


def _describe_run(folder: Path) -> dict[str, Any]:
    (run, threat), plain, history = read_evaluated(folder), read_plain(folder), read_history(folder)
    best = best_row(history, run)
    return {
        "name": run.name,
        "config": plain,
        "overridden": find_overrides(run.name, plain),
        "threat": None if threat is None else threat_record(threat),
        "seed": run.seed,
        "epochs_done": len(history),
        "epochs": run.optimisation.epochs,
        "best_epoch": None if best is None else best["epoch"] + 1,
        "seconds": training_seconds(history),
        "history": history,
        "alarms": [{"epoch": row["epoch"] + 1, "alarm": alarm} for row in history for alarm in row.get("alarms", ())],
        "environment": read_environment(folder),
    }


def _describe_sweep(folder: Path) -> dict[str, Any]:
    record = read_sweep(folder / SWEEP_FILE)
    rows = [{**row, "stale": find_staleness(folder, row)} for row in record["runs"]]
    return {"recipe": record["recipe"], "runs": rows}


def best_row(history: Sequence[dict[str, Any]], run: Run) -> dict[str, Any] | None:
    """Return the first epoch with the highest value, as training selects it; without validation the last one.

    Example:
        >>> best_row([{"epoch": 0, "clean": 0.5, "robust": 0.3}, {"epoch": 1, "clean": 0.6, "robust": 0.2}], Run())[
        ...     "epoch"
        ... ]
        0
    """
    validated = [row for row in history if selection_metric(row, run.validation.metric) is not None]
    if not validated:
        return history[-1] if history else None
    return max(validated, key=lambda row: selection_metric(row, run.validation.metric) or 0.0)


def find_overrides(name: str, plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings that were overridden, by dotted field; None where the run is not named after a recipe.

    Example:
        >>> find_overrides("mine", {"seed": 1})
        >>> find_overrides("digits-uiat", {"seed": 1})
        {'seed': 1}
    """
    if name not in recipes.names():
        return None
    usual = dict(leaves(yaml_io.to_dict(recipes.get(name))))
    return {path: value for path, value in leaves(plain) if path not in usual or usual[path] != value}


def list_files(folder: Path) -> list[tuple[str, int, str]]:
    """List the files of a folder: the name, the bytes, and what it is for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     _ = (Path(name) / "config.yaml").write_text("seed: 0")
        ...     list_files(Path(name))
        [('config.yaml', 7, 'every setting of the run')]
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    rows = [(path.name, path.stat().st_size, _meaning(path)) for path in paths]
    if (folder / OWN_CODE).is_dir():
        kept = [path.stat().st_size for path in (folder / OWN_CODE).iterdir() if path.is_file()]
        rows.append((f"{OWN_CODE}/", sum(kept), "copies of the code of your own that the run began with"))
    return rows


def _meaning(path: Path) -> str:
    state = Path(EVALUATION_STATE_FILE)  # evaluations that are under way at once number theirs
    is_state = path.name.startswith(f"{state.stem}-") and path.suffix == state.suffix
    return FILES.get(state.name if is_state else path.name, "")
