"""UIAT with one thing changed, over seeds, on held-out images: given as runs, or trained where they are missing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uiat import recipes
from uiat.analyse.figures import in_percent, panels, rows_of
from uiat.analyse.prose import percent, points
from uiat.analyse.studies.ablation_rows import BASE, changes
from uiat.analyse.study import Context, Data, Study, StudyRun, open_runs
from uiat.config import yaml_io
from uiat.errors import UserError
from uiat.evaluation.engine.stage import correct_under
from uiat.experiments import GridRun, sweep
from uiat.formatting import mean_and_deviation, spread
from uiat.runs.reader import read_history
from uiat.runs.settings import find_differences


def measure(context: Context) -> Data:
    """Clean and robust accuracy of each row of the ablation (UIAT, CVPR 2023), with all of its seeds.

    On images that training held out: rows are there to be chosen from, and test images must not choose.
    """
    rows, failed = _trained(context) if context.asked.recipe is not None else (_given(context), {})
    found: dict[str, Any] = {}
    for name, members in rows.items():
        measured = [held_out_accuracy(context, subject) for subject in members]
        found[name] = {
            "seeds": [subject.run.seed for subject in members],
            "runs": [subject.label for subject in members],
            "n": measured[0]["n"],
            "clean": [row["clean"] for row in measured],
            "robust": [row["robust"] for row in measured],
            "seconds": [row["seconds"] for row in measured],
        }
        context.told(f"{name}: robust {spread(found[name]['robust'])} %, clean {spread(found[name]['clean'])} %")
    return {"base": next(iter(found)), "split": "held-out", "rows": found, "failed": failed}


def held_out_accuracy(context: Context, subject: StudyRun) -> Data:
    """Accuracy of a run on the images that its training held out, as they are and under the attack, and its seconds."""
    x, y = context.images(subject, "held-out")
    model, seed = context.model(subject), context.asked.seed
    clean = correct_under(model, x, y, None)
    robust = correct_under(model, x, y, context.settings(), among=clean, seed=seed)
    seconds = sum(row.get("seconds", 0.0) for row in context.history(subject))
    shares = {name: right.double().mean().item() for name, right in (("clean", clean), ("robust", robust))}
    return {"n": len(x), **shares, "seconds": seconds}


def _given(context: Context) -> dict[str, list[StudyRun]]:
    """The given runs by what they have that the first has not."""
    base = context.subjects[0].run
    found: dict[str, list[StudyRun]] = {}
    for subject in context.subjects:
        found.setdefault(find_differences(subject.run, base) or base.objective.name, []).append(subject)
    return found


def _trained(context: Context) -> tuple[dict[str, list[StudyRun]], dict[str, str]]:
    """The rows of a recipe, trained where they are missing and resumed where they were stopped; and what failed."""
    asked = context.asked
    base = yaml_io.override(recipes.get(str(asked.recipe)), asked.settings)
    if asked.root is not None:
        base = replace(base, data=replace(base.data, root=asked.root))
    folder = asked.train_dir or (context.out or Path("analysis")) / "runs"
    whole = StudyRun(BASE, folder, base)
    context.subjects = [whole]  # what cannot be measured is refused before hours of training
    context.settings()
    context.images(whole, "held-out")
    every = changes(base)
    runs = sweep(base, rows=every, seeds=asked.seeds, folder=folder, evaluated=False, listener=_Lines(context))
    failed = {f"{run.row}, seed {run.run.seed}": run.reason for run in runs if run.status == "failed"}
    done = {name: [run.folder for run in runs if run.row == name and run.status == "done"] for name in every}
    if not done[BASE]:
        raise UserError(f"the recipe itself could not be trained: {next(iter(failed.values()))}")
    rows = {name: open_runs(folders) for name, folders in done.items() if folders}
    context.subjects = [subject for members in rows.values() for subject in members]
    return rows, failed


class _Lines:
    """Prints a line for each run of an ablation that is trained or fails."""

    def __init__(self, context: Context) -> None:
        self.say = context.told
        self.said: set[tuple[Path, str]] = set()

    def planned(self, runs: Sequence[GridRun]) -> None:
        """Do nothing."""

    def changed(self, run: GridRun) -> None:
        """Say what the run has come to, once."""
        if (run.folder, run.status) in self.said:
            return
        self.said.add((run.folder, run.status))
        if run.status == "training":
            self.say(f"training {run.folder}")
        elif run.status == "failed":
            self.say(f"{run.row}, seed {run.run.seed}, failed: {run.reason}")
        elif len(read_history(run.folder)) < run.run.optimisation.epochs:
            self.say(f"{run.folder} stopped early")


def sentences(data: Data) -> list[str]:
    """The base, what helps and what harms most, and what cannot be told from it."""
    rows, base = data["rows"], data["base"]
    own = rows[base]
    found = [
        f"Base ({base}): {percent(mean_and_deviation(own['robust'])[0])} robust and "
        f"{percent(mean_and_deviation(own['clean'])[0])} clean on {own['n']} held-out images, "
        f"{len(own['seeds'])} seed(s)."
    ]
    change = {
        name: mean_and_deviation(row["robust"])[0] - mean_and_deviation(own["robust"])[0] for name, row in rows.items()
    }
    others = sorted((name for name in rows if name != base), key=lambda name: -change[name])
    noise = max(_noise(row) for row in rows.values())
    clear = [name for name in others if abs(change[name]) > 2 * noise]
    if others:
        listed = [f"{name} {points(change[name])}" for name in others]
        found.append(f"Robust accuracy against the base, best first: {'; '.join(listed)}.")
        found.append(
            f"{len(clear)} of {len(others)} are further from it than {200 * noise:.1f} points, twice the largest "
            "standard error of a row (of its images and of its seeds); the rest may be chance."
        )
    if data["failed"]:
        found.append(f"Failed: {'; '.join(f'{name} ({why})' for name, why in data['failed'].items())}.")
    return found


def _noise(row: Data) -> float:
    """Standard error of a row's mean: of its images, which seeds do not make more of, and of its seeds."""
    mean, deviation = mean_and_deviation(row["robust"])
    images = mean * (1 - mean) / row["n"]
    seeds = 0.0 if deviation is None else deviation**2 / len(row["robust"])
    return float((images + seeds) ** 0.5)


def table(data: Data) -> list[list[str]]:
    """Mean and standard deviation of each row, in percent."""
    heading = ["changed", "seeds", "clean, %", "robust, %", "training, s"]
    rows = [
        [name, str(len(row["seeds"])), spread(row["clean"]), spread(row["robust"]), spread(row["seconds"], scale=1)]
        for name, row in data["rows"].items()
    ]
    return [heading, *rows]


def draw(data: Data) -> Any:
    """A line a row: robust accuracy filled, clean hollow; the base's robust accuracy as a line through all."""
    names = list(data["rows"])
    figure, (axes,) = panels(1.0 + 0.3 * len(names))
    rows_of(axes, [name if len(name) < 30 else f"{name[:28]}…" for name in names])
    for kind, fill, colour in (("robust", "#0072B2", "#0072B2"), ("clean", "white", "#D55E00")):
        for i, name in enumerate(names):
            mean, deviation = mean_and_deviation(data["rows"][name][kind])
            axes.errorbar(
                mean, i, xerr=deviation, color=colour, marker="o", markerfacecolor=fill, label=kind if i == 0 else None
            )
    axes.axvline(mean_and_deviation(data["rows"][data["base"]]["robust"])[0], color="#999999", linewidth=1.0)
    axes.set_xlabel("held-out accuracy (line: the base)")
    in_percent(axes, along="x")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


ABLATION = Study(
    name="ablation",
    about="UIAT with one thing changed at a time",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
)
