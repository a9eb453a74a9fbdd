"""Draw curves, bars and matrices as SVG, for the width of a phone; colours come from the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from uiat import formatting
from uiat.report.svg.axes import Frame, around, drawing, text, ticks
from uiat.report.svg.marks import draw_mark
from uiat.runs.methods import COLOURS

DASHES = ("", "5 3", "1.5 3", "8 3 2 3")
WIDTH = 360
MOST_POINTS = 60  # points of a curve that show their value under the pointer
MOST_MARKS = 8  # points of a curve that are marked


@dataclass(frozen=True)
class Series:
    """A curve.

    Args:
        label: name of the curve.
        points: (x, y) pairs.
        slot: number of the colour, dash and marker.

    Example:
        >>> Series("uiat", ((0, 0.5), (1, 0.6)), 0).label
        'uiat'
    """

    label: str
    points: tuple[tuple[float, float], ...]
    slot: int = 0


def style(slot: int) -> Markup:
    """Return the attributes of a series' line.

    Example:
        >>> style(9)
        Markup('class="s1" stroke-dasharray="5 3"')
    """
    dash = DASHES[slot // COLOURS % len(DASHES)]
    return Markup(f'class="s{slot % COLOURS}"' + (f' stroke-dasharray="{dash}"' if dash else ""))


def curves(
    title: str, series: Sequence[Series], *, x: str, y: str, percent: bool = False, described: str = ""
) -> Markup:
    """Draw curves in one chart; each point shows its value under the pointer.

    Args:
        title: what is drawn, for those who cannot see it as well.
        series: the curves; values that are not finite are left out.
        x: label of the x axis.
        y: label of the y axis.
        percent: True where y is a fraction, shown in percent from 0 on.
        described: the curves in words, for those who cannot see them.

    Example:
        >>> svg = curves("robust accuracy", [Series("a", ((1, 0.2), (2, 0.4)))], x="epoch", y="%", percent=True)
        >>> "a, epoch 2: 40.0 %" in svg
        True
    """
    series = [Series(s.label, tuple(p for p in s.points if all(map(math.isfinite, p))), s.slot) for s in series]
    xs, ys = ([p[i] for s in series for p in s.points] or [0.0, 1.0] for i in (0, 1))
    low, high = (0.0 if percent else min(ys)), max(ys)
    whole = all(x == round(x) for x in xs)
    frame = Frame(ticks(min(xs), max(xs), whole=whole), around(low, high), min(xs), max(xs), percent)
    parts = [frame.grid(), frame.axes(x, y)]
    for s in series:
        places = [(frame.x(a), frame.y(b)) for a, b in s.points]
        if len(places) > 1:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            parts.append(Markup('<polyline fill="none" {} points="{}"/>').format(style(s.slot), path))
        every = max(1, math.ceil(len(places) / MOST_POINTS))
        shown = list(zip(s.points, places, strict=True))[::every]
        for i, ((a, b), (px, py)) in enumerate(shown):
            mark = draw_mark(s.slot, px, py) if i % math.ceil(len(shown) / MOST_MARKS) == 0 else Markup()
            parts.append(_point(s, px, py, f"{s.label}, {x} {a:.6g}: {frame.text(b)}", mark))
    spoken = title + (f". {described}" if described else "")
    return drawing(spoken, parts, width=frame.width, height=frame.height)


def _point(series: Series, x: float, y: float, hint: str, mark: Markup) -> Markup:
    shape = Markup('<g class="p s{}"><title>{}</title><circle class="hit" cx="{:.1f}" cy="{:.1f}" r="7"/>{}</g>')
    return shape.format(series.slot % COLOURS, hint, x, y, mark)


def class_bars(
    title: str, names: Sequence[str], clean: Sequence[float | None], worst: Sequence[float | None]
) -> Markup:
    """Draw two bars a class: behind, accuracy on the images as they are; in front, accuracy in the worst case.

    Example:
        >>> svg = class_bars("uiat", ["cat"], [0.9], [0.4])
        >>> "cat: 90.0 % clean, 40.0 % in the worst case" in svg
        True
    """
    row, left = 18, min(110, 14 + 6.5 * max(map(len, names), default=0))
    scale, parts = WIDTH - left - 12, []
    for i, (name, natural, attacked) in enumerate(zip(names, clean, worst, strict=True)):
        at = i * row + 4
        hint = f"{name}: {_percent(natural)} clean, {_percent(attacked)} in the worst case"
        parts.append(Markup("<g><title>{}</title>").format(hint) + text(left - 5, at + 11, name, "end"))
        shape = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}"/>'
        parts.append(Markup(shape).format("track", left, at, scale, row - 4))
        parts.append(Markup(shape).format("clean", left, at, scale * (natural or 0), row - 4))
        parts.append(Markup(shape).format("worst", left, at + 3, scale * (attacked or 0), row - 10))
        parts.append(Markup("</g>"))
    bottom = len(names) * row + 4
    parts += [text(left + scale * at, bottom + 12, f"{100 * at:g}", "middle") for at in (0, 0.25, 0.5, 0.75, 1)]
    return drawing(title, parts, width=WIDTH, height=bottom + 18)


def _percent(accuracy: float | None) -> str:
    return "no image" if accuracy is None else formatting.percent(accuracy, 1)


def matrix(title: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Draw true classes by predicted classes, the fraction of each row as the strength of the colour.

    Example:
        >>> svg = matrix("confusion", ["cat", "dog"], [[3, 1], [0, 4]])
        >>> "1 of 4 cat images taken for dog" in svg
        True
    """
    k, left = len(names), 84.0
    side = (WIDTH - left - 6) / max(k, 1)
    parts = [_turned(k * side / 2, "true")]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total, y = sum(row), i * side
        if k <= 30:  # beyond that the names would run into each other
            parts.append(text(left - 4, y + side / 2 + 4, _short(name), "end"))
            parts.append(_slanting(left + (i + 0.5) * side + 4, k * side + 10, _short(name)))
        for j, count in enumerate(row):
            hint = f"{count} of {total} {name} images taken for {names[j]}"
            cell = _cell(left + j * side, y, side, count / total if total else 0.0, correct=i == j)
            parts.append(Markup("<g><title>{}</title>{}</g>").format(hint, cell))
    below = 22 + 4 * max((len(_short(name)) for name in names if k <= 30), default=0)  # the names stand slanting
    parts.append(text(left + k * side / 2, k * side + below, "predicted", "middle"))
    return drawing(title, parts, width=WIDTH, height=k * side + below + 5)


def _cell(x: float, y: float, side: float, fraction: float, *, correct: bool) -> Markup:
    shape = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}"/>'
    cell = Markup(shape).format("cell right" if correct else "cell", x, y, side - 1, side - 1, fraction)
    if fraction < 0.005 or side < 24:
        return cell
    number = text(x + side / 2, y + side / 2 + 4, f"{100 * fraction:.0f}", "middle")
    return cell + Markup('<g class="{}">{}</g>').format("on" if fraction > 0.55 else "off", number)


def _slanting(x: float, y: float, content: str) -> Markup:
    shape = '<text transform="rotate(-45 {0:.1f} {1:.1f})" x="{0:.1f}" y="{1:.1f}" text-anchor="end">{2}</text>'
    return Markup(shape).format(x, y, content)


def _turned(y: float, content: str) -> Markup:
    shape = '<text transform="rotate(-90 11 {0:.0f})" x="11" y="{0:.0f}" text-anchor="middle">{1}</text>'
    return Markup(shape).format(y, content)


def _short(name: str) -> str:
    return name if len(name) <= 10 else name[:9] + "…"


def swatch(slot: int) -> Markup:
    """Draw a short piece of a series' line with its marker, for a legend.

    Example:
        >>> "<svg" in swatch(0)
        True
    """
    line = Markup('<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true"><path {} d="M0 5H26"/>').format(
        style(slot)
    )
    return line + Markup('<g class="s{}">{}</g></svg>').format(slot % COLOURS, draw_mark(slot, 13, 5, 4.5))


def behind() -> Markup:
    """Draw a piece of the grey lines of other runs, for a legend.

    Example:
        >>> "behind" in behind()
        True
    """
    return Markup('<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true"><path class="behind" d="M0 5H26"/></svg>')
