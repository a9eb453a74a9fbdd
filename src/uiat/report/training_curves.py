"""What was measured in each epoch: a chart for each measure, or one for each run where runs are many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from uiat.report.figures import Figure, ends, named, values
from uiat.report.groups import Group
from uiat.report.svg import charts, panels

# By epoch: the name in metrics.jsonl, what it is, and whether it is a share of images.
MEASURED = (
    ("robust", "Robust accuracy, held-out images", True),
    ("clean", "Clean accuracy, held-out images", True),
    ("train_correct", "Accuracy on the training batches", True),
    ("loss", "Training loss, all terms", False),
)
MANY = 6  # curves that can be told apart in one chart
COLUMNS = 10  # epochs that a table of all runs shows


@dataclass(frozen=True)
class Multiples:
    """A chart for each run, all of one scale.

    Args:
        title: what they show.
        legend: a swatch and what it stands for.
        figures: one a run.

    Example:
        >>> Multiples("Loss", [], []).title
        'Loss'
    """

    title: str
    legend: Sequence[tuple[Markup, str]]
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Training:
    """Curves by epoch.

    Args:
        figures: one a measure; without a drawing where there are panels instead.
        panels: one chart a run, where runs are many.
        tables: by measure, few epochs of every run: title, headings and rows.

    Example:
        >>> Training().figures
        ()
    """

    figures: Sequence[Figure] = ()
    panels: Sequence[Multiples] = ()
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = ()

    def __bool__(self) -> bool:
        return bool(self.figures)


def training(groups: Sequence[Group]) -> Training:
    """Curves by epoch: of accuracy on held-out images, of accuracy and loss on the training batches.

    Example:
        >>> bool(training([]))
        False
    """
    measured = [(title, share, by_epoch(groups, name)) for name, title, share in MEASURED]
    measured = [(title, share, series) for title, share, series in measured if any(one.points for one in series)]
    many = any(len(series) > MANY for _, _, series in measured)
    figures, tables = [], []
    for title, share, series in measured:
        unit = "%" if share else "loss"
        svg = charts.curves(title, series, x="epoch", y=unit, share=share, described=ends(series))
        figures.append(Figure(title, Markup() if many else svg, *values(series, "epoch", 100 if share else 1)))
        tables.append((f"{title}, %" if share else title, *_compact(series, 100 if share else 1)))
    return Training(figures, _multiples(groups) if many else [], tables)


def by_epoch(groups: Sequence[Group], name: str) -> list[charts.Series]:
    """A measure of every run.

    Example:
        >>> by_epoch([], "robust")
        []
    """
    series = []
    for slot, group in enumerate(groups):
        for run in group.runs:
            pairs = [(float(row["epoch"] + 1), _measure(row, name)) for row in run.history]
            points = tuple((x, y) for x, y in pairs if y is not None)
            series.append(charts.Series(named(group, run), points, slot))
    return series


def _measure(row: Mapping[str, Any], name: str) -> float | None:
    if name != "loss":
        return row.get(name)
    terms = [v for k, v in row.items() if k.startswith("train_") and k != "train_correct" and v is not None]
    return sum(terms) if terms else None


def _compact(series: Sequence[charts.Series], factor: float) -> tuple[list[str], list[list[str]]]:
    """A row a run, and at most `COLUMNS` epochs from the first to the last."""
    places = sorted({point[0] for one in series for point in one.points})
    last = len(places) - 1
    few = sorted({places[round(i * last / (COLUMNS - 1))] for i in range(COLUMNS)}) if last >= COLUMNS else places
    rows = []
    for one in series:
        known = dict(one.points)
        rows.append([one.label, *("–" if x not in known else f"{factor * known[x]:.4g}" for x in few)])
    return ["run", *(f"epoch {x:g}" for x in few)], rows


def _multiples(groups: Sequence[Group]) -> list[Multiples]:
    """Accuracies together, as their distance tells of overfitting; and the loss, which methods define differently."""
    found = []
    for title, names in (("Accuracy by epoch, %", ("robust", "clean", "train_correct")), ("Loss by epoch", ("loss",))):
        kinds = [(slot, row) for slot, row in enumerate(MEASURED) if row[0] in names]
        series = {row[0]: by_epoch(groups, row[0]) for _, row in kinds}
        every = [one for many in series.values() for one in many]
        if not any(one.points for one in every):
            continue
        legend = [(charts.swatch(slot), row[1]) for slot, row in kinds if any(one.points for one in series[row[0]])]
        legend.append((charts.behind(), f"{'Robust accuracy' if len(kinds) > 1 else 'Loss'} of the other runs"))
        plane = panels.frame(every, share=len(kinds) > 1)
        figures = []
        for group in groups:
            own = {named(group, run) for run in group.runs}
            shown = [
                charts.Series(row[1], one.points, slot)
                for slot, row in kinds
                for one in series[row[0]]
                if one.label in own
            ]
            others = [one for one in series[names[0]] if one.label not in own]
            figures.append(Figure(group.label, panels.panel(f"{title}, {group.label}", shown, others, plane)))
        found.append(Multiples(title, legend, figures))
    return found
