"""Draw small multiples: where many curves would lie over each other, a chart for each, the others grey behind it."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from uiat.report.svg.axes import Frame, around, drawing, spread_labels, text, ticks
from uiat.report.svg.charts import Series, style

WIDTH, HEIGHT, LEFT, RIGHT = 220, 150, 34, 34
MOST_POINTS = 25  # points of a curve that show their value under the pointer: a panel is small
LETTER = 12  # least distance of two labels


def frame(series: Sequence[Series], *, percent: bool = False) -> Frame:
    """Return the plane that panels have in common, so that they compare.

    Example:
        >>> frame([Series("a", ((1, 0.2), (4, 0.41)))], percent=True).ys
        [0.0, 0.2, 0.4, 0.6]
    """
    points = [point for one in series for point in one.points if all(map(math.isfinite, point))] or [(0.0, 0.0)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low = 0.0 if percent else min(ys)
    rows = around(low, max(ys) if max(ys) > low else low + 1, 5)
    room = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": 10, "bottom": 22}
    return Frame(ticks(min(xs), max(xs), 5, whole=True), rows, min(xs), max(xs), percent, **room)


def panel(title: str, series: Sequence[Series], others: Sequence[Series], plane: Frame) -> Markup:
    """Draw one run's curves, each with its last value at its end, in front of those of the other runs.

    Args:
        title: what is drawn, for those who cannot see it as well.
        series: the curves.
        others: curves of the other runs.
        plane: what `frame` returned.

    Example:
        >>> shown = [Series("robust", ((1, 0.2), (2, 0.4)), 0)]
        >>> svg = panel("uiat", shown, [], frame(shown, percent=True))
        >>> ">40.0</text>" in svg and "robust, epoch 2: 40.0 %" in svg
        True
    """
    parts = [plane.grid()]
    parts += [_line(one, plane, Markup('class="behind"')) for one in others]
    parts += [_line(one, plane, style(one.slot)) + _points(one, plane) for one in series]
    ended = [one for one in series if one.points and math.isfinite(one.points[-1][1])]
    places = spread_labels([plane.y(one.points[-1][1]) for one in ended], LETTER)
    for one, y in zip(ended, places, strict=True):
        x, value = one.points[-1]
        label = text(plane.x(x) + 5, y + 4, f"{100 * value:.1f}" if plane.percent else f"{value:.2f}", "start")
        parts.append(Markup('<g class="ink s{}">{}</g>').format(one.slot % 8, label))
    spoken = "; ".join(f"{one.label} ends at {plane.text(one.points[-1][1])}" for one in ended)
    return drawing(f"{title}. {spoken}", parts, width=plane.width, height=plane.height)


def _line(one: Series, plane: Frame, look: Markup) -> Markup:
    path = " ".join(f"{plane.x(a):.1f},{plane.y(b):.1f}" for a, b in one.points if math.isfinite(b))
    return Markup('<polyline fill="none" {} points="{}"/>').format(look, path)


def _points(one: Series, plane: Frame) -> Markup:
    shape = Markup('<g class="p s{}"><title>{}</title><circle class="hit" cx="{:.1f}" cy="{:.1f}" r="6"/></g>')
    known = [(a, b) for a, b in one.points if math.isfinite(b)]
    known = known[:: max(1, math.ceil(len(known) / MOST_POINTS))]
    shown = [(a, b, f"{one.label}, epoch {a:g}: {plane.text(b)}") for a, b in known]
    return Markup("").join(shape.format(one.slot % 8, hint, plane.x(a), plane.y(b)) for a, b, hint in shown)
