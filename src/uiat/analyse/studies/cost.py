"""Study: seconds, passes and memory of runs, beside their accuracy."""

from typing import Any

from uiat.analyse.figures import format_percent, make_panels, mark_size
from uiat.analyse.fitting import draw_legend
from uiat.analyse.marks import bars, group_styles, span
from uiat.analyse.measurements import measure_step_cost
from uiat.analyse.prose import join_words, percent, points
from uiat.analyse.study import Context, Data, Study, StudyRun
from uiat.errors import UserError
from uiat.formatting import mean_and_deviation, threat_option
from uiat.runs.evaluations import choose
from uiat.runs.reader import EVALUATION_FILE, read_environment
from uiat.threat import parse


def measure(context: Context) -> Data:
    """Collect seconds from metrics.jsonl, accuracy from evaluation.json, passes and bytes of a step (UIAT, CVPR 2023).

    No data set is read.
    """
    rows: list[Data] = []
    for run in context.runs:
        history, environment = context.read_history(run), read_environment(run.folder)
        seconds = sum(row.get("seconds", 0.0) for row in history)
        row = {"run": run.label, "method": run.config.objective.name, "seconds": seconds, "epochs": len(history)}
        row["seconds_an_epoch"] = seconds / len(history)
        row["hardware"] = (
            f"{environment.get('processor')}, {environment.get('threads')} thread(s), "
            f"{environment.get('device_names') or 'no GPU'}"
        )
        rows.append(row | _read_accuracy(run) | measure_step_cost(context, run))
        context.on_progress(f"{run.label}: {rows[-1]['passes']:.1f} passes a step")
    first = rows[0]
    return {
        "rows": rows,
        "n": {"test": first["n"]},
        "threat": first["threat"],
        "attack": ", ".join(first["attacks"]),
    }


def _read_accuracy(run: StudyRun) -> Data:
    """Read the evaluation of a run.

    Raises:
        UserError: it was not evaluated, or the file is damaged.
    """
    result, notes = choose(run.folder)
    if result is None:
        stale = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(f"{run.folder} has no {EVALUATION_FILE}: run `uiat evaluate {run.folder}` first{stale}")
    try:
        accuracy = result["accuracy"]
        return {
            "clean": float(accuracy["clean"]),
            "worst": float(accuracy["worst"]),
            "n": int(result["n"]),
            "threat": threat_option(parse(str(result["threat"]))),
            "attacks": [name for name in accuracy if name not in ("clean", "worst")],
        }
    except (KeyError, TypeError, ValueError, UserError):
        raise UserError(f"{run.folder / EVALUATION_FILE} is damaged: evaluate the run again") from None


def sentences(data: Data) -> list[str]:
    """Say which runs no other beats, and what each costs beside the cheapest robust one."""
    rows, said = data["rows"], list[str]()
    for name in ("attacks", "threat", "n", "hardware"):
        if len({str(row[name]) for row in rows}) > 1:
            said.append(f"Careful: the runs differ in {name}, so their figures do not compare.")
    best = [row for row in rows if not any(_beats(other, row) for other in rows)]
    names = join_words([f"{row['run']} ({row['passes']:.1f} passes, {percent(row['worst'])})" for row in best])
    said.append(f"No other run is both cheaper and more robust than {names}.")
    robust = [row for row in rows if row["method"] != "standard"]
    if len(robust) > 1:
        cheapest = min(robust, key=lambda row: row["passes"])
        for row in robust:
            if row is not cheapest:
                times = row["passes"] / cheapest["passes"]
                said.append(
                    f"{row['run']} takes {times:.2f} times the passes of {cheapest['run']} and is "
                    f"{points(row['worst'] - cheapest['worst'])} from it in the worst case."
                )
    return said


def _beats(one: Data, other: Data) -> bool:
    """True if one run is at least as good as the other in passes and accuracy, and better in one of them."""
    pairs = ((-one["passes"], -other["passes"]), (one["worst"], other["worst"]))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def table(data: Data) -> list[list[str]]:
    """Make a row of each run."""
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


def draw(data: Data) -> Any:
    """Draw worst-case accuracy, a mark a method with its 95 % interval, against passes, and against seconds."""
    figure, panes = make_panels(2.7, 2.7)
    rows = {row["run"]: row for row in data["rows"]}
    kinds = (("passes", "passes of a training step, in forward passes"), ("seconds", "seconds of training"))
    for axes, (name, below) in zip(panes, kinds, strict=True):
        for label, (runs, style) in group_styles(data, list(rows)).items():
            worst = span([rows[run]["worst"] for run in runs], min(rows[run]["n"] for run in runs))
            at, apart = mean_and_deviation([rows[run][name] for run in runs])
            marks = style | {"linestyle": "none", "markersize": mark_size(1.5), "elinewidth": mark_size(0.25)}
            axes.errorbar(at, worst[0], xerr=apart, yerr=bars([worst]), label=label, **marks)
        axes.margins(0.08, 0.12)
        axes.set_xlim(left=0)
        axes.set_xlabel(below)
        axes.set_ylabel("worst case (bars: 95 %)")
        format_percent(axes)
    draw_legend(figure, panes[0])
    return figure


STUDY = Study(
    name="cost",
    about="seconds, passes and memory beside accuracy",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
    reads=("which",),
)
