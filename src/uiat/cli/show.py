"""`uiat show`: a run folder, from its files alone."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from uiat.cli.output import AsJson, console, json_printed, table
from uiat.cli.tables import results_table
from uiat.config import yaml_io
from uiat.config.schema import Data, Run
from uiat.errors import UserError
from uiat.evaluation.bracket import sentence_on_until
from uiat.experiments.overview import best_row, describe_folder, find_overrides, kind_of, list_files
from uiat.experiments.sweep_file import SWEEP_FILE, find_staleness, read_sweep
from uiat.formatting import batch_accuracy_name, percent, threat_text
from uiat.runs.evaluations import choose
from uiat.runs.reader import EVALUATION_FILE, METRICS_FILE, read_environment, read_history
from uiat.runs.settings import read_evaluated, read_plain
from uiat.system.manifest import find_damage, read_manifest

SECONDS_BETWEEN_LOOKS = 1.0  # at a folder that is watched
_CAN_HIDE = ("images/s", "seconds", "learning rate")  # columns of epochs, in a narrow terminal


def show(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder, or one of a sweep or an evaluation.", show_default=False),
    ],
    json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew at each epoch, until the run has ended.")
    ] = False,
) -> None:
    """Show a run: settings, epochs, alarms, evaluation, files.

    Reads files only: a run can be looked at while it trains. Each file is held against the manifest, and one that is
    damaged is named in the end, with exit code 2.
    """
    if watch and json:
        raise UserError("--watch shows a run again and again, --json once: leave one of them out")
    if json:
        with json_printed(True) as give:
            facts = describe_folder(run)
            give(facts)
        damage = facts["damage"]
    else:
        _watch(run, console()) if watch else _show(run, console())
        damage = find_damage(run)
    if damage:
        raise UserError("; ".join(damage))


def _watch(folder: Path, out: Console) -> None:
    """Show a folder whenever what it has measured changes, until nothing more will."""
    shown: float | None = None
    while True:
        ended = _has_ended(folder)  # before it is read, so that its last epoch is shown
        files = [folder / name for name in (METRICS_FILE, EVALUATION_FILE, SWEEP_FILE)]
        changed = max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)
        if changed != shown:
            shown = changed
            if out.is_terminal:
                out.clear()
            _show(folder, out)
        if ended:
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _has_ended(folder: Path) -> bool:
    if kind_of(folder) == "sweep":
        return all(row.get("status") in ("done", "failed") for row in read_sweep(folder / SWEEP_FILE)["runs"])
    manifest = read_manifest(folder)
    return manifest is None or bool(manifest.get("ended", False)) or kind_of(folder) == "evaluation"


def _show(folder: Path, out: Console) -> None:
    show_kind = {"sweep": _sweep, "evaluation": _evaluation, "run": _run}[kind_of(folder)]
    show_kind(folder, out)
    out.print(f"\nfiles in {folder}", soft_wrap=True)
    out.print(_files(folder))


def _run(run: Path, out: Console) -> None:
    (settings, threat), plain, history = read_evaluated(run), read_plain(run), read_history(run)
    best = best_row(history, settings)
    out.print(_settings(settings, plain, read_environment(run), history, best))
    if history:
        attacked = plain["objective"]["name"] != "standard" and threat is not None
        may_go = [*_CAN_HIDE, batch_accuracy_name(attacked=attacked)]
        epochs, hidden = _fitting(out, _epochs(history, best, attacked=attacked), may_go)
        left_out = f" (too narrow here for {', '.join(hidden)})" if hidden else ""
        out.print(f"\nepochs{left_out}", soft_wrap=True)
        out.print(epochs)
    for row in history:
        for alarm in row.get("alarms", ()):
            out.print(f"alarm in epoch {row['epoch'] + 1}: {alarm}", soft_wrap=True)
    _evaluation(run, out)


def _sweep(folder: Path, out: Console) -> None:
    """Print a table of the runs in sweep.json, and in which of them it is not what is there now."""
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
        ("data", describe_data(run.data)),
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


def describe_data(data: Data) -> str:
    """Say what a run is trained on: the set, extra images, and all that changes them at random.

    Example:
        >>> describe_data(Data(mixup=0.5, extra="more.npz", batch_size=64))
        'digits, batches of 64, 0.7 of each from more.npz, augmentation mixup 0.5'
    """
    changes = {name: getattr(data, name) for name in ("randaugment", "erasing", "mixup", "cutmix")}
    crop = [data.augment] if data.augment != "none" else []
    augmentation = " and ".join(crop + [f"{name} {value:g}" for name, value in changes.items() if value]) or "none"
    extra = "" if data.extra is None else f", {data.extra_share:g} of each from {data.extra}"
    return f"{data.name}, batches of {data.batch_size}{extra}, augmentation {augmentation}"


def _differences(name: str, plain: dict[str, Any]) -> str:
    """Return the settings that were overridden, where the run is named after a recipe."""
    changed = find_overrides(name, plain)
    if changed is None:
        return ""
    return ", ".join(f"{path}={yaml_io.write_value(value)}" for path, value in changed.items()) or "nothing"


def _fitting(out: Console, epochs: Table, may_go: list[str]) -> tuple[Table, list[str]]:
    """Break the headings of a table that is too wide, and take columns from it, but break no number of those left.

    Returns:
        The table, and the headings of the columns that were taken.
    """
    hidden = list[str]()
    wide = out.options.update(width=10_000)
    for column in epochs.columns if out.measure(epochs, options=wide).maximum > out.width else ():
        column.header, column.no_wrap = str(column.header).replace(" ", "\n"), True
    while may_go and out.measure(epochs, options=wide).maximum > out.width:
        hidden.append(may_go.pop(0))
        epochs.columns = [column for column in epochs.columns if column.header != hidden[-1].replace(" ", "\n")]
    return epochs, hidden


def _accuracies(row: dict[str, Any]) -> str:
    parts = [f"{name} {percent(row[name])}" for name in ("clean", "robust") if row.get(name) is not None]
    return ", ".join(parts) or "not validated"


def _epochs(history: list[dict[str, Any]], best: dict[str, Any] | None, *, attacked: bool) -> Table:
    terms = list(dict.fromkeys(key for row in history for key in row if key.startswith("train_")))
    terms.sort(key=lambda key: key == "train_correct")
    accuracy = batch_accuracy_name(attacked=attacked)
    headings = [accuracy if key == "train_correct" else key.removeprefix("train_") for key in terms]
    columns = ["epoch", *headings, "clean", "robust", *reversed(_CAN_HIDE)]

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
        if result.get("until"):
            out.print(sentence_on_until(result["until"]), soft_wrap=True)
    elif not notes:
        notes = [f"not evaluated: there is no {EVALUATION_FILE}"]
    for note in notes:
        out.print(f"note: {note}", soft_wrap=True)
    if result is not None and result.get("verdict"):
        out.print(f"verdict: {result['verdict']}", soft_wrap=True)


def _files(run: Path) -> Table:
    rows = [(name, size(count), about) for name, count, about in list_files(run)]
    return table("file", "size", "what it is", rows=rows, numbers=("size",))


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
