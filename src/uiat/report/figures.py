"""Panels of figures: accuracy against strength, accuracy by class, and confusion under attack."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from uiat.formatting import class_spread, spread, whole_255ths
from uiat.report.groups import Group
from uiat.report.inputs import Inputs
from uiat.report.section import Cell, Column, Figure, Legend, Section, Table, Values
from uiat.report.svg import charts
from uiat.runs.run_files import RunFiles

LEAST_OF_A_CLASS = 30  # images of each class that a confusion matrix needs: percents of fewer are noise


def describe_ends(series: Sequence[charts.Series]) -> str:
    """Write the last value of each curve in words.

    Example:
        >>> describe_ends([charts.Series("uiat", ((1, 0.2), (2, 0.4)))])
        'uiat ends at 0.4'
    """
    return "; ".join(f"{s.label} ends at {s.points[-1][1]:.3g}" for s in series if s.points)


def tabulate(title: str, series: Sequence[charts.Series], x: str, factor: float) -> Values:
    """Write the points of curves as a table with a row for each x.

    Args:
        title: what the points are.
        series: the curves.
        x: heading of the first column.
        factor: what y is multiplied by, such as 100 for percent.

    Example:
        >>> tabulate("accuracy", [charts.Series("uiat", ((1, 0.2), (2, 0.4)))], "epoch", 100).rows
        [['1', '20'], ['2', '40']]
    """
    places = sorted({point[0] for s in series for point in s.points})
    known = [dict(s.points) for s in series]
    rows = [[f"{p:.6g}", *("–" if p not in k else f"{factor * k[p]:.4g}" for k in known)] for p in places]
    return Values(title, [x, *(s.label for s in series)], rows)


def group_legend(groups: Sequence[Group], has_curve: Callable[[RunFiles], Any]) -> Legend:
    """Return the legend of a chart with a line for each group in which some run has a curve."""
    return [(charts.swatch(group.slot), group.label) for group in groups if any(map(has_curve, group.runs))]


def curve_label(group: Group, run: RunFiles) -> str:
    """Return the label of a run's curve: that of its group, with the seed where the group has several.

    Example:
        >>> from pathlib import Path
        >>> curve_label(Group((RunFiles(Path("a"), {}),), "uiat"), RunFiles(Path("a"), {}))
        'uiat'
    """
    return group.label if len(group.runs) == 1 else f"{group.label}, seed {run.setting('seed')}"


def strength(inputs: Inputs) -> Section:
    """Return the panel of accuracy against the radius of the attack; one figure for each norm, attack and data set."""
    by_kind: dict[tuple[str, str, str, str], list[charts.Series]] = {}
    for group in inputs.groups:
        for run in group.runs:
            record = _sweep(run)
            if isinstance(record, dict) and record.get("epsilons") and record.get("accuracy"):
                scale, unit = _unit(record)
                pairs = zip(record["epsilons"], record["accuracy"], strict=False)
                points = tuple((scale * float(e), float(a)) for e, a in pairs)
                kind = (str(record.get("norm")), str(record.get("attack")), unit, group.data)
                by_kind.setdefault(kind, []).append(charts.Series(curve_label(group, run), points, group.slot))
    drawn, several = [], len({kind[3] for kind in by_kind}) > 1
    for (norm, attack, unit, data), series in by_kind.items():
        title = f"Accuracy under {attack} at each {norm} radius{f', {data}' * several}"
        svg = charts.curves(title, series, x=unit, y="%", percent=True, described=describe_ends(series))
        caption = f"{title}; below 0 it helps the model"
        drawn.append(Figure(caption, svg, tabulate(caption, series, unit, 100)))
    legend = group_legend(inputs.groups, _sweep)
    return Section("Accuracy against strength", anchor="strength", link="Strength", legend=legend, figures=drawn)


def _sweep(run: RunFiles) -> Any:
    """Return what evaluation.json says of a sweep over radii."""
    return (run.evaluation or {}).get("sweep")


def _unit(record: Mapping[str, Any]) -> tuple[int, str]:
    """Choose pixel values for Linf radii that are whole ones, as people write 8/255; all others stay as they are."""
    whole = record.get("norm") == "Linf" and all(whole_255ths(float(e)) is not None for e in record["epsilons"])
    return (255, "radius / 255") if whole else (1, "radius")


def classes(inputs: Inputs) -> Section:
    """Return the panel of the accuracy of each class, of the first run of each group."""
    drawn = []
    for group in inputs.groups:
        accuracies = (group.evaluation or {}).get("per_class") or {}
        clean, worst = accuracies.get("clean"), accuracies.get("worst")
        if clean and worst and len(clean) == len(worst):
            names = inputs.class_names(group, len(clean))
            rows = [[name, *(_percent(v) for v in pair)] for name, *pair in zip(names, clean, worst, strict=True)]
            hardest = min((v, n) for n, v in zip(names, worst, strict=True) if v is not None)
            svg = charts.class_bars(f"Accuracy by class, {group.label}. Hardest: {hardest[1]}", names, clean, worst)
            drawn.append(Figure(group.label, svg, Values(group.label, ["class", "clean, %", "worst, %"], rows)))
    spreads = _class_spreads(inputs.groups)
    key = Markup('<span class="key {}"></span>')
    return Section(
        "Accuracy by class, %",
        anchor="classes",
        link="Classes",
        markdown_title="Accuracy by class",
        legend=[(key.format("clean"), "as they are"), (key.format("worst"), "in the worst case")],
        figures=drawn,
        tables=[spreads] if spreads.rows else [],
    )


def _class_spreads(groups: Sequence[Group]) -> Table:
    """Build the table of how unevenly accuracy falls on the classes, over all seeds of each group."""
    names = {"worst": "lowest", "gap": "highest less lowest", "std": "standard deviation"}
    columns = [Column(f"{kind}, {name}", number=True) for kind in ("clean", "worst case") for name in names.values()]
    rows = []
    for group in groups:
        records = [(run.evaluation or {}).get("per_class") or {} for run in group.runs]
        found = [(class_spread(r["clean"]), class_spread(r["worst"])) for r in records if {"clean", "worst"} <= set(r)]
        if found and all(all(pair) for pair in found):
            values = [[100 * pair[which][name] for pair in found] for which in (0, 1) for name in names]
            cells = [Cell(spread(v, scale=1, digits=1), sum(v) / len(v)) for v in values]
            rows.append([Cell(group.label, mark=charts.swatch(group.slot)), *cells])
    return Table([Column("run"), *columns], rows, "Accuracy over the classes, in points")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def confusions(inputs: Inputs) -> Section:
    """Return the panel of which class is taken for which under attack, for runs whose models have answered."""
    drawn, without = [], []
    for group in inputs.groups:
        answers = inputs.samples_of(group)
        if answers is not None and answers.n:
            sizes = [sum(row) for row in answers.confusion]
            if min(sizes) < LEAST_OF_A_CLASS:
                without.append(f"{group.label} ({min(sizes)} of a class)")
                continue
            each = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
            title = f"{group.label}: {answers.attack}, {answers.n:,} images, {each} of a class"
            svg = charts.matrix(f"Confusion under attack, {title}", answers.classes, answers.confusion)
            counts = zip(answers.classes, sizes, answers.confusion, strict=True)
            rows = [[name, *(str(count) for count in row), str(size)] for name, size, row in counts]
            head = ["true ↓, predicted →", *answers.classes, "images"]
            drawn.append(Figure(title, svg, Values(title, head, rows)))
    return Section(
        "Confusion under attack",
        anchor="confusion",
        link="Confusion",
        markdown_title="Confusion under attack, images",
        intro="Rows are true classes, columns predicted ones; the numbers are percent of a row. How many images stand "
        "behind a row is said under each matrix and, cell by cell, under Values."
        + (
            f" Without a matrix, for want of {LEAST_OF_A_CLASS} images of each class: {', '.join(without)}."
            * bool(without)
        ),
        figures=drawn,
    )
