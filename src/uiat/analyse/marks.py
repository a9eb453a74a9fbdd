"""Draw accuracies with what chance leaves of them: bands around lines, bars around marks."""

from collections.abc import Mapping, Sequence
from typing import Any

from uiat.analyse.figures import format_percent, style_runs
from uiat.analyse.fitting import label_rows
from uiat.analyse.prose import CHANCE, error_of_mean
from uiat.formatting import mean_and_deviation
from uiat.intervals import wilson

Spans = Sequence[tuple[float, Sequence[float]]]  # values, each with the ends of its interval


def span(fractions: Sequence[float], n: int | None) -> tuple[float, list[float]]:
    """Return the mean of a fraction and its 95 % interval: over images (Wilson), with several seeds over both.

    Args:
        fractions: the fraction of each seed.
        n: number of images; None where it is not known, and then an interval needs seeds.

    Example:
        >>> [round(edge, 3) for edge in span([0.5], 100)[1]], [round(edge, 3) for edge in span([0.4, 0.6], 100)[1]]
        ([0.404, 0.596], [0.281, 0.719])
    """
    mean, deviation = mean_and_deviation(fractions)
    if n is None:
        half = 0.0 if deviation is None else CHANCE * deviation / len(fractions) ** 0.5
    elif len(fractions) == 1:
        return mean, wilson(round(mean * n), n)
    else:
        half = CHANCE * error_of_mean(fractions, n)
    return mean, [max(mean - half, 0.0), min(mean + half, 1.0)]


def span_by_radius(runs: Sequence[Mapping[str, Any]]) -> Spans:
    """Return accuracy with its interval at each radius, of the "accuracy" and "n" of each seed's run.

    Example:
        >>> [value for value, _ in span_by_radius([{"accuracy": [0.5, 0.2], "n": 10}])]
        [0.5, 0.2]
    """
    n = min(run["n"] for run in runs)
    return [span(fractions, n) for fractions in zip(*(run["accuracy"] for run in runs), strict=True)]


def bars(spans: Spans) -> list[list[float]]:
    """Return the lengths of error bars, below and above, as matplotlib takes them.

    Example:
        >>> bars([(0.5, [0.25, 0.625])])
        [[0.25], [0.125]]
    """
    lengths = [(max(value - low, 0.0), max(high - value, 0.0)) for value, (low, high) in spans]
    return [[low for low, _ in lengths], [high for _, high in lengths]]


def draw_line(axes: Any, x: Sequence[float], spans: Spans, *, label: str | None = None, **style: Any) -> None:
    """Draw accuracies as a line in a band of their intervals."""
    axes.plot(x, [value for value, _ in spans], label=label, **style)
    low, high = zip(*(interval for _, interval in spans), strict=True)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def draw_rows(axes: Any, names: Sequence[str], series: Mapping[str, tuple[Mapping[str, Any], Spans]]) -> None:
    """Draw a row for each name, in it a mark with its interval for each series.

    Args:
        axes: where to draw.
        names: names of the rows.
        series: style and values of each kind of mark, by its label.
    """
    label_rows(axes, names)
    apart = min(0.2, 0.8 / len(series))
    for i, (label, (style, spans)) in enumerate(series.items()):
        at = [row + apart * (i - (len(series) - 1) / 2) for row in range(len(names))]  # bars of a row hide no other
        values = [value for value, _ in spans]
        axes.errorbar(values, at, xerr=bars(spans), label=label, **{**style, "linestyle": "none"})
    format_percent(axes, along="x")


def group_styles(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, tuple[list[str], dict[str, Any]]]:
    """Return the runs and the style of each line of a figure: seeds of one method are one line.

    Args:
        data: data of a study, whose "groups" hold the runs that differ in the seed alone.
        names: the runs that have a line.

    Example:
        >>> list(group_styles({"groups": {"a": ["a-0", "a-1"]}}, ["a-0", "a-1", "b"]))
        ['a (2 seeds)', 'b']
    """
    members = {label: [run for run in runs if run in names] for label, runs in data.get("groups", {}).items()}
    grouped = {run for runs in members.values() for run in runs}
    members |= {name: [name] for name in names if name not in grouped}
    lines = {
        runs[0] if len(runs) == 1 else f"{label} ({len(runs)} seeds)": runs for label, runs in members.items() if runs
    }
    styles = style_runs(data, [runs[0] for runs in lines.values()])
    return {label: (runs, style) for (label, runs), style in zip(lines.items(), styles, strict=True)}
