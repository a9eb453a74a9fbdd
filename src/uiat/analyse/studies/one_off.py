"""Study: inverse adversaries computed in one epoch only ("one-off"), by the epoch chosen."""

import math
from typing import Any

from uiat.analyse.figures import in_percent, look, panels, whole_numbers
from uiat.analyse.prose import percent, points, share_error
from uiat.analyse.studies.ablation import held_out_accuracy
from uiat.analyse.studies.cost import _passes
from uiat.analyse.study import Context, Data, Study, StudyRun
from uiat.errors import UserError
from uiat.formatting import mean_and_deviation, spread
from uiat.inverse import UniversalInverse
from uiat.objectives import PGDAT, UIAT

EVERY, NEVER = "every epoch", "never"


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


def _epoch(subject: StudyRun) -> int | str:
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


ONE_OFF = Study(
    name="one-off",
    about="accuracy and cost by the one epoch in which z is refined",
    measure=measure_one_off,
    sentences=say_one_off,
    draw=draw_one_off,
    table=table_one_off,
)
