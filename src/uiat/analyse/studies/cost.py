"""What robustness costs: one-off epochs, and methods side by side."""

from typing import Any

from uiat.analyse.figures import in_percent, look, panels
from uiat.analyse.prose import joined, percent, points
from uiat.analyse.study import Context, Data, Study, StudyRun
from uiat.errors import UserError
from uiat.formatting import threat_option
from uiat.runs.reader import EVALUATION_FILE, WEIGHTS_FILES, read_environment, read_evaluation
from uiat.system.atomic_files import read_tensors
from uiat.threat import parse
from uiat.training.pass_count import activation_bytes, step_cost


def _passes(context: Context, subject: StudyRun) -> Data:
    """Passes of a step, and bytes kept, of a run's method: counted on noise, for which no data set has to be there."""
    model = context.model(subject)
    spec = read_tensors(subject.folder / WEIGHTS_FILES[context.asked.which])[1]["model"]
    c, h, w = spec["image_shape"]
    shape, classes = (c, h, w), int(spec["num_classes"])
    cost = step_cost(subject.run, model, image_shape=shape, classes=classes)
    kept = activation_bytes(subject.run, model, image_shape=shape, classes=classes)
    return {**vars(cost), "passes": cost.units, "kept_bytes": kept}


def measure_cost(context: Context) -> Data:
    """Seconds from metrics.jsonl, passes and bytes of a step, accuracy from evaluation.json (UIAT, CVPR 2023).

    No data set is read.
    """
    rows: list[Data] = []
    for subject in context.subjects:
        judged: Data
        result = read_evaluation(subject.folder)
        if result is None:
            raise UserError(f"{subject.folder} has no {EVALUATION_FILE}: run `uiat evaluate {subject.folder}` first")
        history, seen = context.history(subject), read_environment(subject.folder)
        try:
            judged = {"clean": float(result["accuracy"]["clean"]), "worst": float(result["accuracy"]["worst"])}
            judged |= {"n": int(result["n"]), "threat": threat_option(parse(str(result["threat"])))}
            judged["attacks"] = [name for name in result["accuracy"] if name not in ("clean", "worst")]
        except (KeyError, TypeError, ValueError, UserError):
            raise UserError(f"{subject.folder / EVALUATION_FILE} is damaged: evaluate the run again") from None
        seconds = sum(row.get("seconds", 0.0) for row in history)
        row = {"run": subject.label, "method": subject.run.objective.name, "seconds": seconds, "epochs": len(history)}
        row["seconds_an_epoch"] = seconds / len(history)
        row["hardware"] = (
            f"{seen.get('processor')}, {seen.get('threads')} thread(s), {seen.get('device_names') or 'no GPU'}"
        )
        rows.append(row | judged | _passes(context, subject))
        context.told(f"{subject.label}: {rows[-1]['passes']:.1f} passes a step")
    judged = {key: rows[0][key] for key in ("threat", "attacks")}
    return {
        "rows": rows,
        "n": {"test": rows[0]["n"]},
        "threat": judged["threat"],
        "attack": ", ".join(judged["attacks"]),
    }


def say_cost(data: Data) -> list[str]:
    """Who is beaten by nobody, and what each costs beside the cheapest robust one."""
    rows, found = data["rows"], []
    for name in ("attacks", "threat", "n", "hardware"):
        if len({str(row[name]) for row in rows}) > 1:
            found.append(f"Careful: the runs differ in {name}, so their figures do not compare as they stand.")
    best = [row for row in rows if not any(_beats(other, row) for other in rows)]
    names = joined([f"{row['run']} ({row['passes']:.1f} passes, {percent(row['worst'])})" for row in best])
    found.append(f"No other run is both cheaper and more robust than {names}.")
    robust = [row for row in rows if row["method"] != "standard"]
    if len(robust) > 1:
        cheapest = min(robust, key=lambda row: row["passes"])
        for row in robust:
            if row is not cheapest:
                times = row["passes"] / cheapest["passes"]
                found.append(
                    f"{row['run']} takes {times:.2f} times the passes of {cheapest['run']} and is "
                    f"{points(row['worst'] - cheapest['worst'])} from it in the worst case."
                )
    return found


def _beats(one: Data, other: Data) -> bool:
    """At least as good in both, and better in one."""
    pairs = ((-one["passes"], -other["passes"]), (one["worst"], other["worst"]))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def table_cost(data: Data) -> list[list[str]]:
    """A row a run."""
    heading = ["run", "clean, %", "worst, %", "s an epoch", "forward", "to images", "to weights", "passes", "MB kept"]
    rows = [
        [
            row["run"],
            f"{100 * row['clean']:.1f}",
            f"{100 * row['worst']:.1f}",
            f"{row['seconds_an_epoch']:.2f}",
            *(f"{row[name]:.1f}" for name in ("forward", "input_backward", "training_backward", "passes")),
            f"{row['kept_bytes'] / 1e6:.1f}",
        ]
        for row in data["rows"]
    ]
    return [heading, *rows]


def draw_cost(data: Data) -> Any:
    """Worst-case accuracy against passes, and against seconds."""
    figure, panes = panels(2.7, 2.7)
    kinds = (("passes", "passes of a training step, in forward passes"), ("seconds", "seconds of training"))
    for axes, (name, below) in zip(panes, kinds, strict=True):
        for i, row in enumerate(data["rows"]):
            style = look(i) | {"linestyle": "none", "markersize": 8}
            axes.plot(row[name], row["worst"], label=row["run"], **style)
        axes.margins(0.08, 0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel(below)
        axes.set_ylabel("worst case")
        in_percent(axes)
    labels = panes[0].get_legend_handles_labels()[1]
    figure.legend(
        *panes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3 if max(map(len, labels)) < 13 else 2
    )
    return figure


COST = Study(
    name="cost",
    about="seconds, passes and memory beside accuracy",
    measure=measure_cost,
    sentences=say_cost,
    draw=draw_cost,
    table=table_cost,
)
