"""What robustness costs: one-off epochs, and methods side by side."""

import math
from typing import Any

from uiat.analyse.ablation import held_out_accuracy
from uiat.analyse.passes import kept_bytes, step_cost
from uiat.analyse.study import Context, Data, Study, Subject, named
from uiat.analyse.style import in_percent, look, panels, whole_numbers
from uiat.analyse.words import joined, mean_and_deviation, percent, points, share_error, spread
from uiat.errors import UserError
from uiat.files import read_tensors
from uiat.inverse import UniversalInverse
from uiat.objectives import PGDAT, UIAT
from uiat.store import read_object
from uiat.threat import parse

EVERY, NEVER = "every epoch", "never"


def _passes(context: Context, subject: Subject) -> Data:
    """Passes of a step, and bytes kept, of a run's method: counted on noise, for which no data set has to be there."""
    model = context.model(subject)
    spec = read_tensors(subject.folder / f"{context.asked.which}.safetensors")[1]["model"]
    c, h, w = spec["image_shape"]
    shape, classes = (c, h, w), int(spec["num_classes"])
    cost = step_cost(subject.run, model, image_shape=shape, classes=classes)
    kept = kept_bytes(subject.run, model, image_shape=shape, classes=classes)
    return {**vars(cost), "passes": cost.units, "kept_bytes": kept}


# --- one-off


def measure_one_off(context: Context) -> Data:
    """Accuracy on held-out images and cost of one-off runs, by the epoch e0 in which z is refined (UIAT, CVPR 2023).

    UIAT that refines in every epoch, and PGD-AT, which never does, have rows of their own where such runs are given
    beside them. Held-out images, since e0 is to be chosen.
    """
    kinds = {subject.label: _epoch(subject) for subject in context.subjects}
    if not any(isinstance(kind, int) for kind in kinds.values()):
        raise UserError("one-off needs a run with objective.inverse.epoch set, such as one of digits-uiat-one-off")
    rows: list[Data] = []
    for subject in context.subjects:
        row: Data = {"run": subject.label, "epoch": kinds[subject.label], "epochs": subject.run.optimisation.epochs}
        row |= held_out_accuracy(context, subject) | _passes(context, subject)
        rows.append(row)
        context.told(f"{subject.label}: robust {percent(row['robust'])}")
    rows.sort(key=lambda row: {NEVER: -1.0, EVERY: math.inf}.get(str(row["epoch"])) or float(row["epoch"]))
    return {"split": "held-out", "rows": rows}


def _epoch(subject: Subject) -> int | str:
    objective = subject.run.objective
    if isinstance(objective, PGDAT):
        return NEVER
    if isinstance(objective, UIAT) and isinstance(objective.inverse, UniversalInverse):
        return EVERY if objective.inverse.epoch is None else objective.inverse.epoch
    raise UserError(f"{subject.label} is neither a one-off run nor UIAT or PGD-AT to hold it against")


def _grouped(rows: list[Data]) -> dict[int | str, list[Data]]:
    groups: dict[int | str, list[Data]] = {}
    for row in rows:
        groups.setdefault(row["epoch"], []).append(row)
    return groups


def say_one_off(data: Data) -> list[str]:
    """The best epoch, how much the choice matters, and the price beside refining in every epoch."""
    groups = _grouped(data["rows"])
    means = {e: mean_and_deviation([row["robust"] for row in rows])[0] for e, rows in groups.items()}
    single = {e: mean for e, mean in means.items() if isinstance(e, int)}
    best, worst = max(single, key=single.__getitem__), min(single, key=single.__getitem__)
    n = data["rows"][0]["n"]
    error = share_error(single[best], n)
    found = [f"Refined in epoch {best} alone (counted from 0), {percent(single[best])} of {n} held-out images stand."]
    if best != worst:
        found.append(
            f"The worst choice, epoch {worst}, is {points(single[worst] - single[best])} from it, with a standard "
            f"error of {100 * error:.1f} points for each figure."
        )
    for kind, what in ((EVERY, "refining in every epoch"), (NEVER, "PGD-AT")):
        if kind in groups:
            passes = groups[best][0]["passes"] / groups[kind][0]["passes"] - 1
            found.append(
                f"Against {what} ({percent(means[kind])}), that is {points(single[best] - means[kind])} for "
                f"{100 * passes:+.1f} % of the passes of a step."
            )
    return found


def table_one_off(data: Data) -> list[list[str]]:
    """A row an epoch."""
    heading = ["e0", "runs", "clean, %", "robust, %", "passes a step", "training, s"]
    rows = [
        [
            str(epoch),
            str(len(rows)),
            spread([row["clean"] for row in rows]),
            spread([row["robust"] for row in rows]),
            f"{rows[0]['passes']:.1f}",
            spread([row["seconds"] for row in rows], scale=1),
        ]
        for epoch, rows in _grouped(data["rows"]).items()
    ]
    return [heading, *rows]


def draw_one_off(data: Data) -> Any:
    """Accuracy above, passes below, against e0; what it is held against as level lines."""
    figure, panes = panels(2.6, 1.9)
    groups = _grouped(data["rows"])
    single = [epoch for epoch in groups if isinstance(epoch, int)]
    quantities = ((panes[0], ("robust", "clean")), (panes[1], ("passes",)))
    for axes, names in quantities:
        for i, name in enumerate(names):
            values = {e: mean_and_deviation([row[name] for row in rows]) for e, rows in groups.items()}
            style = look(i)
            bars = [values[e][1] or 0.0 for e in single]
            axes.errorbar(single, [values[e][0] for e in single], yerr=bars, label=f"one-off, {name}", **style)
            for kind, dashes, what in ((EVERY, (0, (1, 1)), "UIAT"), (NEVER, (0, (6, 2)), "PGD-AT")):
                if kind in values:
                    label = f"{what}, {name}"
                    axes.axhline(values[kind][0], color=style["color"], linestyle=dashes, linewidth=1.2, label=label)
    panes[0].set_ylabel("held-out accuracy")
    in_percent(panes[0])
    for axes in panes:  # all the epochs that z could have been refined in
        axes.set_xlim(-0.5, max(row["epochs"] for row in data["rows"]) - 0.5)
        whole_numbers(axes)
    panes[1].set_ylabel("passes a step")
    panes[1].set_xlabel("epoch e0 in which z is refined, counted from 0")
    found = zip(*panes[0].get_legend_handles_labels(), strict=True)
    order = sorted(found, key=lambda pair: ("one-off" not in pair[1], pair[1]))  # two columns, filled downwards
    figure.legend(*zip(*order, strict=True), loc="outside upper left", ncols=2)
    return figure


# --- cost


def measure_cost(context: Context) -> Data:
    """Seconds from metrics.jsonl, passes and bytes of a step, accuracy from evaluation.json (UIAT, CVPR 2023).

    No data set is read.
    """
    rows: list[Data] = []
    for subject in context.subjects:
        judged: Data
        result = read_object(subject.folder / "evaluation.json")
        if result is None:
            raise UserError(f"{subject.folder} has no evaluation.json: run `uiat evaluate {subject.folder}` first")
        history, seen = context.history(subject), read_object(subject.folder / "environment.json") or {}
        try:
            judged = {"clean": float(result["accuracy"]["clean"]), "worst": float(result["accuracy"]["worst"])}
            judged |= {"n": int(result["n"]), "threat": named(parse(str(result["threat"])))}
            judged["attacks"] = [name for name in result["accuracy"] if name not in ("clean", "worst")]
        except (KeyError, TypeError, ValueError, UserError):
            raise UserError(f"{subject.folder}/evaluation.json is damaged: evaluate the run again") from None
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


ONE_OFF = Study(
    name="one-off",
    about="accuracy and cost by the one epoch in which z is refined",
    measure=measure_one_off,
    sentences=say_one_off,
    draw=draw_one_off,
    table=table_one_off,
)
COST = Study(
    name="cost",
    about="seconds, passes and memory beside accuracy",
    measure=measure_cost,
    sentences=say_cost,
    draw=draw_cost,
    table=table_cost,
)
