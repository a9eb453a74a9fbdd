"""`uiat show`: a run folder, from its files alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from uiat import recipes as recipe_list
from uiat.cli.output import console, table
from uiat.cli.tables import results_table
from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.experiments.sweep_file import SWEEP_FILE, find_staleness, read_sweep
from uiat.formatting import batch_accuracy_name, percent, threat_text
from uiat.runs.evaluations import choose
from uiat.runs.own_files import OWN_CODE
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
)
from uiat.runs.run_files import find_runs, is_evaluation_alone
from uiat.runs.settings import read_evaluated, read_plain
from uiat.system.manifest import MANIFEST_FILE, find_damage
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


def show(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder, or one of a sweep or an evaluation.", show_default=False),
    ],
) -> None:
    """Show a run: settings, epochs, alarms, evaluation, files.

    Reads files only: a run can be looked at while it trains. Each file is held against the manifest, and one that is
    damaged is named in the end, with exit code 2.
    """
    out = console()
    if not (run / CONFIG_FILE).is_file() and run not in find_runs(run, alone=True):
        _sweep(run, out)
    elif is_evaluation_alone(run):
        _evaluation(run, out)
    else:
        _run(run, out)
    out.print(f"\nfiles in {run}", soft_wrap=True)
    out.print(_files(run))
    if damage := find_damage(run):
        raise UserError("; ".join(damage))


def _run(run: Path, out: Console) -> None:
    (settings, threat), plain, history = read_evaluated(run), read_plain(run), read_history(run)
    best = _best(history, settings)
    out.print(_settings(settings, plain, read_environment(run), history, best))
    if history:
        out.print("\nepochs")
        out.print(_epochs(history, best, attacked=plain["objective"]["name"] != "standard" and threat is not None))
    for row in history:
        for alarm in row.get("alarms", ()):
            out.print(f"alarm in epoch {row['epoch'] + 1}: {alarm}", soft_wrap=True)
    _evaluation(run, out)


def _sweep(folder: Path, out: Console) -> None:
    """Print a table of the runs in sweep.json, and in which of them it is not what is there now."""
    if not (folder / SWEEP_FILE).is_file():
        raise UserError(f"{folder} holds {len(find_runs(folder))} runs and no {SWEEP_FILE}: show one of them")
    record = read_sweep(folder / SWEEP_FILE)
    rows = []
    for row in record["runs"]:
        accuracy = row.get("accuracy") or {}
        shares = (f"{name} {percent(value)}" for name, value in accuracy.items())
        rows.append((str(row.get("folder")), str(row.get("status")), ", ".join(shares) or str(row.get("reason") or "")))
    out.print(table(f"sweep of {record['recipe']}", "status", "accuracy", rows=rows))
    for row in record["runs"]:
        if why := find_staleness(folder, row):
            out.print(f"stale: {SWEEP_FILE} lists {row.get('folder')}, {why}", soft_wrap=True)


def _best(history: list[dict[str, Any]], run: Run) -> dict[str, Any] | None:
    """Return the first epoch with the highest value, as training selects it; without validation the last one."""
    validated = [row for row in history if selection_metric(row, run.validation.metric) is not None]
    if not validated:
        return history[-1] if history else None
    return max(validated, key=lambda row: selection_metric(row, run.validation.metric) or 0.0)


def _settings(
    run: Run,
    plain: dict[str, Any],
    environment: dict[str, Any],
    history: list[dict[str, Any]],
    best: dict[str, Any] | None,
) -> Table:
    hardware = ", ".join(environment.get("device_names") or []) or environment.get("processor", "unknown")
    width = "" if run.model.width is None else f", width {run.model.width}"
    start = f", from the weights of {run.model.weights or 'its library'}" if run.model.is_initialised else ""
    chosen = "none yet" if best is None else f"{best['epoch'] + 1}, {_accuracies(best)} (by {run.validation.metric})"
    rows = [
        ("name", run.name),
        ("data", f"{run.data.name}, batches of {run.data.batch_size}, augmentation {run.data.augment}"),
        ("model", f"{run.model.name}{width}{start}"),
        ("objective", str(plain["objective"]["name"])),
        ("threat model", threat_text(run.threat)),
        ("differs from the recipe", _differences(run.name, plain)),
        ("seed", str(run.seed)),
        ("epochs", f"{len(history)} of {run.optimisation.epochs} done"),
        ("best epoch", chosen),
        ("hardware", str(hardware)),
        ("versions", ", ".join(f"{k} {environment[k]}" for k in ("uiat", "python", "torch") if environment.get(k))),
        ("commit", str(environment.get("commit") or "unknown")),
    ]
    return table("run", "", rows=(row for row in rows if row[1]))


def _differences(name: str, plain: dict[str, Any]) -> str:
    """Return the settings that were overridden, where the run is named after a recipe."""
    if name not in recipe_list.names():
        return ""
    usual = dict(leaves(yaml_io.to_dict(recipe_list.get(name))))
    changed = [(path, value) for path, value in leaves(plain) if path not in usual or usual[path] != value]
    return ", ".join(f"{path}={yaml_io.write_value(value)}" for path, value in changed) or "nothing"


def _accuracies(row: dict[str, Any]) -> str:
    parts = [f"{name} {percent(row[name])}" for name in ("clean", "robust") if row.get(name) is not None]
    return ", ".join(parts) or "not validated"


def _epochs(history: list[dict[str, Any]], best: dict[str, Any] | None, *, attacked: bool) -> Table:
    terms = list(dict.fromkeys(key for row in history for key in row if key.startswith("train_")))
    terms.sort(key=lambda key: key == "train_correct")
    accuracy = batch_accuracy_name(attacked=attacked)
    headings = [accuracy if key == "train_correct" else key.removeprefix("train_") for key in terms]
    columns = ["epoch", *headings, "clean", "robust", "learning rate", "seconds", "images/s"]

    def cells(row: dict[str, Any]) -> Iterator[str]:
        yield str(row["epoch"] + 1)
        for key in terms:
            value = row.get(key)
            yield "-" if value is None else percent(value) if key == "train_correct" else f"{value:.4f}"
        yield from (percent(row.get("clean")), percent(row.get("robust")))
        yield f"{row.get('learning_rate', float('nan')):.3g}"
        yield f"{row.get('seconds', 0.0) + row.get('validation_seconds', 0.0):.1f}"
        yield f"{row.get('images_per_second', float('nan')):,.0f}"
        yield "best" if row is best else ""

    return table(*columns, "", rows=map(cells, history), numbers=columns)


def _evaluation(run: Path, out: Console) -> None:
    """Print what counts as the result of a folder, and what stands beside it."""
    result, notes = choose(run)
    if result is not None:
        what = f"{result['which']} weights" if "which" in result else str(result.get("model", "a model"))
        facts = f"{what} on {result.get('data', 'images')}, threat model {threat_text(result['threat'])}"
        out.print(f"\nevaluation: {facts}, seed {result.get('seed', 'unknown')}", soft_wrap=True)
        out.print(results_table(result))
    elif not notes:
        notes = [f"not evaluated: there is no {EVALUATION_FILE}"]
    for note in notes:
        out.print(f"note: {note}", soft_wrap=True)
    if result is not None and result.get("verdict"):
        out.print(f"verdict: {result['verdict']}", soft_wrap=True)


def _files(run: Path) -> Table:
    paths = sorted(path for path in run.iterdir() if path.is_file() and not path.name.startswith("."))
    rows = [(path.name, size(path.stat().st_size), _meaning(path)) for path in paths]
    if (run / OWN_CODE).is_dir():
        kept = [path.stat().st_size for path in (run / OWN_CODE).iterdir() if path.is_file()]
        rows.append((f"{OWN_CODE}/", size(sum(kept)), "copies of the code of your own that the run began with"))
    return table("file", "size", "what it is", rows=rows, numbers=("size",))


def _meaning(path: Path) -> str:
    state = Path(EVALUATION_STATE_FILE)  # evaluations that are under way at once number theirs
    is_state = path.name.startswith(f"{state.stem}-") and path.suffix == state.suffix
    return FILES.get(state.name if is_state else path.name, "")


def size(count: float) -> str:
    """Bytes in units of 1000.

    Example:
        >>> size(700), size(1_234_567)
        ('700 B', '1.2 MB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95 or unit == "GB":
            break
    return f"{count:.1f} {unit}"
