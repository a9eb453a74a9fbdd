"""Draw rows as points with bars of error: two accuracies against each other."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from uiat.report.svg.axes import Frame, around, drawing
from uiat.report.svg.marks import draw_mark
from uiat.runs.methods import COLOURS


@dataclass(frozen=True)
class Point:
    """A point.

    Args:
        label: its name.
        x: its place along the x axis, a fraction.
        y: its place along the y axis, a fraction.
        x_error: the error of x, in both directions.
        y_error: the error of y.
        slot: number of its colour and marker.
    """

    label: str
    x: float
    y: float
    x_error: float
    y_error: float
    slot: int


def scatter(title: str, points: Sequence[Point], *, x: str, y: str) -> Markup:
    """Draw points in one chart, in percent; each shows its values under the pointer.

    Example:
        >>> svg = scatter("accuracy", [Point("uiat", 0.8, 0.5, 0.01, 0.01, 0)], x="clean, %", y="robust, %")
        >>> "uiat, clean, %: 80.0, robust, %: 50.0" in svg
        True
    """
    low, high = min(p.x - p.x_error for p in points), max(p.x + p.x_error for p in points)
    across = around(100 * low, 100 * high)
    rows = around(min(p.y - p.y_error for p in points), max(p.y + p.y_error for p in points))
    frame = Frame(across, rows, across[0], across[-1], percent=True)
    parts = [frame.grid(), frame.axes(x, y)]
    shape = '<g class="p s{}"><title>{}</title><path d="M{:.1f} {:.1f}H{:.1f}M{:.1f} {:.1f}V{:.1f}"/>{}</g>'
    for p in points:
        at, height = frame.x(100 * p.x), frame.y(p.y)
        left, right = frame.x(100 * (p.x - p.x_error)), frame.x(100 * (p.x + p.x_error))
        bottom, top = frame.y(p.y - p.y_error), frame.y(p.y + p.y_error)
        hint = f"{p.label}, {x}: {100 * p.x:.1f}, {y}: {100 * p.y:.1f}"
        mark = draw_mark(p.slot, at, height, 5)
        bars = (left, height, right, at, bottom, top)
        parts.append(Markup(shape).format(p.slot % COLOURS, hint, *bars, mark))
    spoken = "; ".join(f"{p.label} {100 * p.x:.1f} and {100 * p.y:.1f}" for p in points)
    return drawing(f"{title}. {spoken}", parts, width=frame.width, height=frame.height)
