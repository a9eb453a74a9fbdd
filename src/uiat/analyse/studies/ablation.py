"""Study: UIAT with one thing changed at a time, over seeds; of runs that are given, or trained where missing."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uiat import recipes
from uiat.analyse.figures import line_style, make_parts
from uiat.analyse.fitting import rows_height
from uiat.analyse.marks import draw_rows, span
from uiat.analyse.measurements import held_out_accuracy
from uiat.analyse.prose import CHANCE, error_of_mean, percent, points
from uiat.analyse.studies.ablation_rows import changes
from uiat.analyse.study import Context, Data, Study, StudyRun, check_same_arithmetic, open_runs
from uiat.config import yaml_io
from uiat.errors import UserError
from uiat.experiments import GridRun, sweep
from uiat.formatting import mean_and_deviation, spread
from uiat.runs.reader import read_history
from uiat.runs.settings import find_differences, read_plain


def measure(context: Context) -> Data:
    """Measure clean and robust accuracy of each row of the ablation (UIAT, CVPR 2023), with all of its seeds.

    On images that training held out: rows are there to be chosen from, and test images must not choose.
    """
    rows, failed = _train_rows(context) if context.options.recipe is not None else (_sort_runs(context), {})
    check_same_arithmetic(rows.values())
    results: Data = {}
    for name, members in rows.items():
        measured = [held_out_accuracy(context, run) for run in members]
        results[name] = {
            "seeds": [run.config.seed for run in members],
            "runs": [run.label for run in members],
            "n": measured[0]["n"],
            "clean": [row["clean"] for row in measured],
            "robust": [row["robust"] for row in measured],
            "seconds": [row["seconds"] for row in measured],
        }
        robust, clean = (spread(results[name][kind]) for kind in ("robust", "clean"))
        context.on_progress(f"{name}: robust {robust} %, clean {clean} %")
    return {"base": next(iter(results)), "split": "held-out", "rows": results, "failed": failed}


def _sort_runs(context: Context) -> dict[str, list[StudyRun]]:
    """Sort the given runs into rows by what they have that the first has not."""
    base = read_plain(context.runs[0].folder)
    rows: dict[str, list[StudyRun]] = {}
    for run in context.runs:
        rows.setdefault(find_differences(read_plain(run.folder), base) or str(base["objective"]["name"]), []).append(
            run
        )
    return rows


def _train_rows(context: Context) -> tuple[dict[str, list[StudyRun]], dict[str, str]]:
    """Train the rows of a recipe where missing, resume them where stopped; return them, and what failed."""
    options = context.options
    base = yaml_io.override(recipes.get(str(options.recipe)), options.settings)
    if options.root is not None:
        base = replace(base, data=replace(base.data, root=options.root))
    folder = options.train_dir or (context.out or Path("analysis")) / "runs"
    every = changes(base)
    recipe = next(iter(every))
    whole = StudyRun(recipe, folder, base)
    context.runs = [whole]  # what cannot be measured is refused before hours of training
    context.make_attack()
    context.load_images(whole, "held-out")
    runs = sweep(base, rows=every, seeds=options.seeds, folder=folder, evaluated=False, listener=_Lines(context))
    failed = {f"{run.row}, seed {run.run.seed}": run.reason for run in runs if run.status == "failed"}
    done = {name: [run.folder for run in runs if run.row == name and run.status == "done"] for name in every}
    if not done[recipe]:
        raise UserError(f"the recipe itself could not be trained: {next(iter(failed.values()))}")
    rows = {name: open_runs(folders) for name, folders in done.items() if folders}
    context.runs = [run for members in rows.values() for run in members]
    return rows, failed


class _Lines:
    """Write a line for each run of an ablation that is trained or fails."""

    def __init__(self, context: Context) -> None:
        self.on_progress = context.on_progress
        self.seen: set[tuple[Path, str]] = set()

    def planned(self, runs: Sequence[GridRun]) -> None:
        """Do nothing."""

    def changed(self, run: GridRun) -> None:
        """Write what the run has come to, once."""
        if (run.folder, run.status) in self.seen:
            return
        self.seen.add((run.folder, run.status))
        if run.status == "training":
            self.on_progress(f"training {run.folder}")
        elif run.status == "elsewhere":
            self.on_progress(f"{run.folder}: another process works on it; it is left to that one, and waited for")
        elif run.status == "failed":
            self.on_progress(f"{run.row}, seed {run.run.seed}, failed: {run.reason}")
        elif len(read_history(run.folder)) < run.run.optimisation.epochs:
            self.on_progress(f"{run.folder} stopped early")


def sentences(data: Data) -> list[str]:
    """Say how the base does, what helps and what harms most, and what cannot be told from it."""
    rows, base = data["rows"], data["base"]
    own = rows[base]
    said = [
        f"Base ({base}): {percent(mean_and_deviation(own['robust'])[0])} robust and "
        f"{percent(mean_and_deviation(own['clean'])[0])} clean on {own['n']} held-out images, "
        f"{len(own['seeds'])} seed(s)."
    ]
    change = {
        name: mean_and_deviation(row["robust"])[0] - mean_and_deviation(own["robust"])[0] for name, row in rows.items()
    }
    others = sorted((name for name in rows if name != base), key=lambda name: -change[name])
    clear = [name for name in others if _is_clear(rows[name], own, "robust")]
    if others:
        listed = [f"{name} {points(change[name])}" for name in others]
        said.append(f"Robust accuracy against the base, best first: {'; '.join(listed)}.")
        said.append(
            f"{len(clear)} of {len(others)} are further from it than the 95 % interval of the difference (of images "
            "and of seeds); the rest may be chance."
        )
    if data["failed"]:
        said.append(f"Failed: {'; '.join(f'{name} ({why})' for name, why in data['failed'].items())}.")
    return said


def _is_clear(row: Data, base: Data, kind: str) -> bool:
    """True if a row is further from the base than the 95 % interval of their difference."""
    error = math.hypot(*(error_of_mean(each[kind], each["n"]) for each in (row, base)))
    return bool(abs(mean_and_deviation(row[kind])[0] - mean_and_deviation(base[kind])[0]) > CHANCE * error)


def table(data: Data) -> list[list[str]]:
    """Make a row of the mean and standard deviation of each row, in percent."""
    heading = ["changed", "seeds", "clean, %", "robust, %", "training, s"]
    rows = [
        [name, str(len(row["seeds"])), spread(row["clean"]), spread(row["robust"]), spread(row["seconds"], scale=1)]
        for name, row in data["rows"].items()
    ]
    return [heading, *rows]


def draw(data: Data) -> Any:
    """Draw a row for each change, robust accuracy beside clean accuracy, and the base's as a line through all rows.

    Filled are rows that are further from the base than the 95 % interval of their difference.
    """
    rows, names = data["rows"], list(data["rows"])
    figure, (area,) = make_parts(1.0 + rows_height(names))
    panes = area.subplots(1, 2, sharey=True)
    for axes, kind, style in zip(panes, ("robust", "clean"), (line_style(0), line_style(1)), strict=True):
        own = rows[data["base"]]
        base = mean_and_deviation(own[kind])[0]
        axes.axvline(base, color="#999999", linewidth=1.0, zorder=1)
        spans = {name: span(row[kind], row["n"]) for name, row in rows.items()}
        draw_rows(axes, names, {kind: (style | {"marker": "none"}, list(spans.values()))})
        for i, (name, row) in enumerate(rows.items()):
            clear = name == data["base"] or _is_clear(row, own, kind)
            fill = {} if clear else {"markerfacecolor": "white"}
            axes.plot(spans[name][0], i, **style | {"linestyle": "none"} | fill)
        axes.set_xlabel(f"{kind} accuracy")
        axes.locator_params(axis="x", nbins=4)
    panes[1].tick_params(left=False, labelleft=False)
    about = "held-out; line: the base; bars: 95 %; hollow: may be chance"
    area.suptitle(about, color="#444444", x=0.02, ha="left")
    return figure


STUDY = Study(
    name="ablation",
    about="UIAT with one thing changed at a time",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
)
