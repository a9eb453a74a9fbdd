"""The panel of what was measured in each epoch: a chart for each measure, or one for each run where runs are many."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from uiat.report.figures import curve_label, describe_ends, group_legend, tabulate
from uiat.report.groups import Group
from uiat.report.inputs import Inputs
from uiat.report.section import Figure, Section, Values
from uiat.report.svg import charts, panels

# By epoch: the name in metrics.jsonl, what it is, and True for a fraction of images, shown in percent.
MEASURED = (
    ("robust", "Robust accuracy, held-out images", True),
    ("clean", "Clean accuracy, held-out images", True),
    ("train_correct", "Accuracy on training batches, as the method attacked them", True),
    ("loss", "Training loss, all terms", False),
)
# Charts of a run among many: accuracies together, as their distance tells of overfitting; and the loss, which methods
# define differently.
CHARTS = (("Accuracy by epoch, %", ("robust", "clean", "train_correct")), ("Loss by epoch", ("loss",)))
MANY = 6  # curves that can be told apart in one chart
MOST_PANELS = 8  # small charts that an eye can compare
_TOO_MANY = f"Of more than {MOST_PANELS} rows there are the numbers alone: report on fewer of them for charts."
COLUMNS = 10  # epochs that a table of all runs shows


def training(inputs: Inputs) -> Section:
    """Return the panel of curves by epoch: accuracy on held-out images, accuracy and loss on training batches.

    Runs of different data are in charts of their own.
    """
    by_data: dict[str, list[Group]] = {}
    for group in inputs.groups:
        by_data.setdefault(str(group.first.setting("data.name", "?")), []).append(group)
    if len(by_data) < 2:
        return _draw(inputs.groups)
    parts = [replace(_draw(groups), title=f"Trained on {name}", anchor="") for name, groups in by_data.items()]
    return Section("Training", anchor="training", parts=parts)


def _draw(groups: Sequence[Group]) -> Section:
    measured = [(title, percent, by_epoch(groups, name)) for name, title, percent in MEASURED]
    measured = [(title, percent, series) for title, percent, series in measured if any(one.points for one in series)]
    many = any(len(series) > MANY for _, _, series in measured)
    figures = []
    for title, percent, series in measured:
        unit, factor = ("%", 100) if percent else ("loss", 1)
        svg = charts.curves(title, series, x="epoch", y=unit, percent=percent, described=describe_ends(series))
        excerpt = _excerpt(f"{title}, %" if percent else title, series, factor)
        values = tabulate(title, series, "epoch", factor)
        figures.append(Figure(title, Markup() if many else svg, values, excerpt))
    if many:
        shown = _charts_by_run(groups) if len(groups) <= MOST_PANELS else []
        parts = [*shown, Section("", figures=figures, layout="listed")]
        intro = _describe_measures(groups) + ("" if shown else f" {_TOO_MANY}")
        return Section("Training", anchor="training", intro=intro, parts=parts)
    legend = group_legend(groups, lambda run: run.history)
    return Section("Training", anchor="training", intro=_describe_measures(groups), legend=legend, figures=figures)


def _describe_measures(groups: Sequence[Group]) -> str:
    """Say of which weights, which images and which attack the accuracies by epoch are."""
    steps = sorted({int(group.first.setting("validation.steps", 10)) for group in groups})
    averaged = any(group.first.setting("optimisation.average", "none") != "none" for group in groups)
    pgd = " or ".join(f"PGD-{count}" for count in steps)
    weights = "weights at the end of the epoch" + (" (averaged, where the run averages)" if averaged else "")
    return (
        f"Held-out images are training images that are not trained on, judged with the {weights}; their robust "
        f"accuracy is that under {pgd} of the run's threat model. Training batches are judged in the step that trains "
        "on them, with the weights before its update and in train mode, on the examples of the method's own attack, or "
        "on the images as they are where it has none."
    )


def by_epoch(groups: Sequence[Group], name: str) -> list[charts.Series]:
    """Return the curve of a measure of every run, without points where it was not measured."""
    series = []
    for group in groups:
        for run in group.runs:
            pairs = [(float(row["epoch"] + 1), _measure(row, name)) for row in run.history]
            points = tuple((x, y) for x, y in pairs if y is not None)
            series.append(charts.Series(curve_label(group, run), points, group.slot))
    return series


def _measure(row: Mapping[str, Any], name: str) -> float | None:
    """Return a measure of an epoch; the loss is the sum of its terms."""
    if name != "loss":
        return row.get(name)
    terms = [v for k, v in row.items() if k.startswith("train_") and k != "train_correct" and v is not None]
    return sum(terms) if terms else None


def _excerpt(title: str, series: Sequence[charts.Series], factor: float) -> Values:
    """Write a row a run, with at most `COLUMNS` epochs from the first to the last."""
    places = sorted({point[0] for one in series for point in one.points})
    last = len(places) - 1
    few = sorted({places[round(i * last / (COLUMNS - 1))] for i in range(COLUMNS)}) if last >= COLUMNS else places
    rows = []
    for one in series:
        known = dict(one.points)
        rows.append([one.label, *("–" if x not in known else f"{factor * known[x]:.4g}" for x in few)])
    return Values(title, ["run", *(f"epoch {x:g}" for x in few)], rows)


def _charts_by_run(groups: Sequence[Group]) -> list[Section]:
    """Draw a chart for each group, all of one scale, with the curves of the other runs in grey behind its own."""
    sections = []
    for title, names in CHARTS:
        kinds = [(slot, row) for slot, row in enumerate(MEASURED) if row[0] in names]
        series = {row[0]: by_epoch(groups, row[0]) for _, row in kinds}
        every = [one for curves in series.values() for one in curves]
        if not any(one.points for one in every):
            continue
        legend = [(charts.swatch(slot), row[1]) for slot, row in kinds if any(one.points for one in series[row[0]])]
        legend.append((charts.behind(), f"{'Robust accuracy' if len(kinds) > 1 else 'Loss'} of the other runs"))
        plane = panels.frame(every, percent=len(kinds) > 1)
        figures = []
        for group in groups:
            own = {curve_label(group, run) for run in group.runs}
            shown = [
                charts.Series(row[1], one.points, slot)
                for slot, row in kinds
                for one in series[row[0]]
                if one.label in own
            ]
            others = [one for one in series[names[0]] if one.label not in own]
            figures.append(Figure(group.label, panels.panel(f"{title}, {group.label}", shown, others, plane)))
        sections.append(Section(title, legend=legend, figures=figures, layout="panels"))
    return sections
