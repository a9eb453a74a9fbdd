"""Small multiples: where many curves would lie over each other, a chart for each, and the others grey behind it."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from uiat.report.svg.axes import Frame, apart, around, drawing, text, ticks
from uiat.report.svg.charts import Series, style

WIDTH, HEIGHT, LEFT, RIGHT = 220, 150, 34, 34
MOST_POINTS = 25  # of a curve that answer to the pointer: a panel is small
LETTER = 12  # least distance of two labels


def frame(series: Sequence[Series], *, share: bool = False) -> Frame:
    """The plane that panels have in common, so that they compare.

    Example:
        >>> frame([Series("a", ((1, 0.2), (4, 0.41)))], share=True).ys
        [0.0, 0.2, 0.4, 0.6]
    """
    points = [point for one in series for point in one.points if all(map(math.isfinite, point))] or [(0.0, 0.0)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low = 0.0 if share else min(ys)
    rows = around(low, max(ys) if max(ys) > low else low + 1, 5)
    room = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": 10, "bottom": 22}
    return Frame(ticks(min(xs), max(xs), 5), rows, min(xs), max(xs), share, **room)


def panel(title: str, series: Sequence[Series], others: Sequence[Series], plane: Frame) -> Markup:
    """One run's curves, each with its last value at its end, before those of the other runs.

    Args:
        title: what is drawn, for those who cannot see it as well.
        series: the curves.
        others: those of other runs.
        plane: of `frame`.

    Example:
        >>> shown = [Series("robust", ((1, 0.2), (2, 0.4)), 0)]
        >>> svg = panel("uiat", shown, [], frame(shown, share=True))
        >>> ">40.0</text>" in svg and "robust, epoch 2: 40.0 %" in svg
        True
    """
    parts = [plane.grid()]
    parts += [_line(one, plane, Markup('class="behind"')) for one in others]
    parts += [_line(one, plane, style(one.slot)) + _points(one, plane) for one in series]
    ended = [one for one in series if one.points and math.isfinite(one.points[-1][1])]
    places = apart([plane.y(one.points[-1][1]) for one in ended], LETTER)
    for one, y in zip(ended, places, strict=True):
        x, value = one.points[-1]
        says = text(plane.x(x) + 5, y + 4, f"{100 * value:.1f}" if plane.share else f"{value:.2f}", "start")
        parts.append(Markup('<g class="ink s{}">{}</g>').format(one.slot % 8, says))
    said = "; ".join(f"{one.label} ends at {plane.text(one.points[-1][1])}" for one in ended)
    return drawing(f"{title}. {said}", parts, width=plane.width, height=plane.height)


def _line(one: Series, plane: Frame, look: Markup) -> Markup:
    path = " ".join(f"{plane.x(a):.1f},{plane.y(b):.1f}" for a, b in one.points if math.isfinite(b))
    return Markup('<polyline fill="none" {} points="{}"/>').format(look, path)


def _points(one: Series, plane: Frame) -> Markup:
    shape = Markup('<g class="p s{}"><title>{}</title><circle class="hit" cx="{:.1f}" cy="{:.1f}" r="6"/></g>')
    known = [(a, b) for a, b in one.points if math.isfinite(b)]
    known = known[:: max(1, math.ceil(len(known) / MOST_POINTS))]
    said = [(a, b, f"{one.label}, epoch {a:g}: {plane.text(b)}") for a, b in known]
    return Markup("").join(shape.format(one.slot % 8, says, plane.x(a), plane.y(b)) for a, b, says in said)
