"""Study: inverse adversaries computed in one epoch only ("one-off"), by the epoch chosen."""

import math
from typing import Any

from uiat.analyse.figures import format_percent, line_style, make_panels, tick_whole_numbers
from uiat.analyse.fitting import draw_legend
from uiat.analyse.marks import draw_line, span
from uiat.analyse.measurements import find_repeats, held_out_accuracy, measure_step_cost
from uiat.analyse.prose import join_words, percent, points, standard_error
from uiat.analyse.study import Context, Data, Study, StudyRun, check_same_arithmetic
from uiat.errors import UserError
from uiat.formatting import mean_and_deviation, spread
from uiat.inverse import UniversalInverse
from uiat.objectives import PGDAT, UIAT
from uiat.runs.methods import method_name
from uiat.runs.settings import read_plain

EVERY, NEVER = "every epoch", "never"


def measure(context: Context) -> Data:
    """Measure held-out accuracy and cost of one-off runs by the epoch e0 in which z is refined (UIAT, CVPR 2023).

    UIAT that refines in every epoch, and PGD-AT, which never does, have rows of their own where such runs are given
    beside them. Held-out images, since e0 is to be chosen.
    """
    epochs = {run.label: _refined_in(run) for run in context.runs}
    if not any(isinstance(epoch, int) for epoch in epochs.values()):
        raise UserError("one-off needs a run with objective.inverse.epoch set, such as one of digits-uiat-one-off")
    by_epoch = [[run for run in context.runs if epochs[run.label] == epoch] for epoch in set(epochs.values())]
    check_same_arithmetic(by_epoch)
    for runs in by_epoch:
        if len(find_repeats(runs)) > 1:
            labels = join_words([run.label for run in runs])
            raise UserError(f"{labels} differ in more than the seed, and would be averaged: study them one by one")
    rows: list[Data] = []
    for run in context.runs:
        row: Data = {"run": run.label, "epoch": epochs[run.label], "epochs": run.config.optimisation.epochs}
        row |= held_out_accuracy(context, run) | measure_step_cost(context, run)
        rows.append(row)
        context.on_progress(f"{run.label}: robust {percent(row['robust'])}")
    rows.sort(key=lambda row: {NEVER: -1.0, EVERY: math.inf}.get(str(row["epoch"])) or float(row["epoch"]))
    return {"split": "held-out", "rows": rows}


def _refined_in(run: StudyRun) -> int | str:
    """Return the epoch in which a run refines z, counted from 0; or `EVERY` or `NEVER`."""
    objective = run.config.objective
    if isinstance(objective, PGDAT) and method_name(read_plain(run.folder)) == "pgd-at":
        return NEVER
    if isinstance(objective, UIAT) and isinstance(objective.inverse, UniversalInverse):
        return EVERY if objective.inverse.epoch is None else objective.inverse.epoch
    raise UserError(f"{run.label} is neither a one-off run nor UIAT or PGD-AT to compare it with")


def _by_epoch(rows: list[Data]) -> dict[int | str, list[Data]]:
    groups: dict[int | str, list[Data]] = {}
    for row in rows:
        groups.setdefault(row["epoch"], []).append(row)
    return groups


def sentences(data: Data) -> list[str]:
    """Say which epoch is best, how much the choice matters, and what it costs against refining in every epoch."""
    groups = _by_epoch(data["rows"])
    means = {e: mean_and_deviation([row["robust"] for row in rows])[0] for e, rows in groups.items()}
    single = {e: mean for e, mean in means.items() if isinstance(e, int)}
    best, worst = max(single, key=single.__getitem__), min(single, key=single.__getitem__)
    n = data["rows"][0]["n"]
    error = standard_error(single[best], n)
    said = [
        f"Refined in epoch {best} alone (counted from 0), {percent(single[best])} of {n} held-out images are robust."
    ]
    if best != worst:
        said.append(
            f"The worst choice, epoch {worst}, is {points(single[worst] - single[best])} from it, with a standard "
            f"error of {100 * error:.1f} points for each figure."
        )
    for kind, what in ((EVERY, "refining in every epoch"), (NEVER, "PGD-AT")):
        if kind in groups:
            passes = groups[best][0]["passes"] / groups[kind][0]["passes"] - 1
            said.append(
                f"Against {what} ({percent(means[kind])}), that is {points(single[best] - means[kind])} for "
                f"{100 * passes:+.1f} % of the passes of a step."
            )
    return said


def table(data: Data) -> list[list[str]]:
    """Make a row of each epoch."""
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
        for epoch, rows in _by_epoch(data["rows"]).items()
    ]
    return [heading, *rows]


def draw(data: Data) -> Any:
    """Draw accuracy and passes against e0, with UIAT and PGD-AT as level lines; accuracies in bands of 95 %."""
    figure, panes = make_panels(2.6, 1.9)
    groups = _by_epoch(data["rows"])
    quantities = ((panes[0], ("robust", "clean")), (panes[1], ("passes",)))
    for axes, names in quantities:
        axes.set_xlim(-0.5, max(row["epochs"] for row in data["rows"]) - 0.5)  # all the epochs that there could be
        tick_whole_numbers(axes)
        axes.set_xlabel("epoch e0 in which z is refined, counted from 0")
        for i, name in enumerate(names):
            values = {epoch: _span(rows, name) for epoch, rows in groups.items()}
            _draw_quantity(axes, name, values, line_style(i))
    panes[0].set_ylabel("held-out accuracy")
    format_percent(panes[0])
    panes[1].set_ylabel("passes a step")
    draw_legend(figure, panes[0])
    return figure


def _span(rows: list[Data], name: str) -> tuple[float, list[float]]:
    """Return the mean over seeds and its interval; passes are counted, not measured, so that they have none."""
    values = [row[name] for row in rows]
    return (values[0], [values[0]] * 2) if name == "passes" else span(values, rows[0]["n"])


def _draw_quantity(axes: Any, name: str, values: dict[int | str, tuple[float, list[float]]], style: Data) -> None:
    single = sorted(epoch for epoch in values if isinstance(epoch, int))
    draw_line(axes, single, [values[epoch] for epoch in single], label=f"one-off, {name}", **style)
    for kind, dashes, what in ((EVERY, (0, (1, 1)), "UIAT"), (NEVER, (0, (6, 2)), "PGD-AT")):
        if kind in values:
            level = style | {"linestyle": dashes, "marker": "none"}
            draw_line(axes, axes.get_xlim(), [values[kind]] * 2, label=f"{what}, {name}", **level)


STUDY = Study(
    name="one-off",
    about="accuracy and cost by the one epoch in which z is refined",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
)
