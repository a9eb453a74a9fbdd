"""Curves, bars and matrices as SVG, drawn for the width of a phone; colours come from the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLOURS = 8  # that the style has; further series repeat them with another dash
DASHES = ("", "5 3", "1.5 3", "8 3 2 3")
WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 38
MOST_POINTS = 60  # of a curve that answer to the pointer


@dataclass(frozen=True)
class Series:
    """A curve.

    Args:
        label: its name.
        points: (x, y).
        slot: which colour and dash.

    Example:
        >>> Series("uiat", ((0, 0.5), (1, 0.6)), 0).label
        'uiat'
    """

    label: str
    points: tuple[tuple[float, float], ...]
    slot: int = 0


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers inside a range, at most `most`.

    Example:
        >>> ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    base = 10.0 ** math.floor(math.log10(span))
    step = next(s for k in (0.1, 0.2, 0.25, 0.5, 1, 2, 5, 10) if span / (s := k * base) <= most - 1 + 1e-9)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def style(slot: int) -> Markup:
    """The attributes of a series' line.

    Example:
        >>> style(9)
        Markup('class="s1" stroke-dasharray="5 3"')
    """
    dash = DASHES[slot // COLOURS % len(DASHES)]
    return Markup(f'class="s{slot % COLOURS}"' + (f' stroke-dasharray="{dash}"' if dash else ""))


def curves(title: str, series: Sequence[Series], *, x: str, y: str, share: bool = False, described: str = "") -> Markup:
    """A chart of curves; each point says its value when pointed at.

    Args:
        title: what is drawn, for those who cannot see it as well.
        series: the curves; values that are not finite are left out.
        x: label of the axis.
        y: label of the axis.
        share: y is a share, shown in percent from 0 on.
        described: what the curves say, for those who cannot see them.

    Example:
        >>> svg = curves("robust accuracy", [Series("a", ((1, 0.2), (2, 0.4)))], x="epoch", y="%", share=True)
        >>> "a, epoch 2: 40.0 %" in svg
        True
    """
    series = [Series(s.label, tuple(p for p in s.points if all(map(math.isfinite, p))), s.slot) for s in series]
    xs, ys = ([p[i] for s in series for p in s.points] or [0.0, 1.0] for i in (0, 1))
    low, high = (0.0 if share else min(ys)), max(ys)
    frame = _Frame(min(xs), max(xs), low, high if high > low else low + 1, share)
    parts = [frame.axes(x, y)]
    for s in series:
        places = [(frame.x(a), frame.y(b)) for a, b in s.points]
        if len(places) > 1:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            parts.append(Markup('<polyline fill="none" {} points="{}"/>').format(style(s.slot), path))
        every = max(1, math.ceil(len(places) / MOST_POINTS))
        for (a, b), (px, py) in list(zip(s.points, places, strict=True))[::every]:
            parts.append(_point(s, px, py, f"{s.label}, {x} {a:.6g}: {frame.text(b)}"))
    return _svg(title + (f". {described}" if described else ""), HEIGHT, parts)


@dataclass(frozen=True)
class _Frame:
    """The plane of a chart."""

    x0: float
    x1: float
    y0: float
    y1: float
    share: bool

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / ((self.x1 - self.x0) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y0) / ((self.y1 - self.y0) or 1) * (HEIGHT - TOP - BOTTOM)

    def text(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.share else f"{value:.4g}"

    def axes(self, x: str, y: str) -> Markup:
        parts = []
        for value in ticks(self.y0, self.y1):
            at = self.y(value)
            text = f"{100 * value:g}" if self.share else f"{value:g}"
            parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, at, WIDTH - RIGHT))
            parts.append(_text(LEFT - 5, at + 4, text, "end"))
        for value in ticks(self.x0, self.x1):
            parts.append(_text(self.x(value), HEIGHT - BOTTOM + 15, f"{value:g}", "middle"))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x, "middle"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turned = Markup('<text transform="rotate(-90 11 {0:.0f})" x="11" y="{0:.0f}" text-anchor="middle">{1}</text>')
        parts.append(turned.format(middle, y))
        return Markup("").join(parts)


def _point(series: Series, x: float, y: float, says: str) -> Markup:
    shape = Markup('<g class="p s{}"><title>{}</title><circle class="hit" cx="{:.1f}" cy="{:.1f}" r="7"/>')
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2"/></g>')
    return shape.format(series.slot % COLOURS, says, x, y) + dot.format(x, y)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _svg(title: str, height: float, parts: Sequence[Markup], width: float = WIDTH) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">')
    return head.format(width, height, title) + Markup("").join(parts) + Markup("</svg>")


def class_bars(
    title: str, names: Sequence[str], clean: Sequence[float | None], worst: Sequence[float | None]
) -> Markup:
    """Two bars a class: accuracy on the images as they are behind, and in the worst case in front.

    Example:
        >>> svg = class_bars("uiat", ["cat"], [0.9], [0.4])
        >>> "cat: 90.0 % clean, 40.0 % in the worst case" in svg
        True
    """
    row, left = 18, min(110, 14 + 6.5 * max(map(len, names), default=0))
    scale, parts = WIDTH - left - 12, []
    for i, (name, natural, attacked) in enumerate(zip(names, clean, worst, strict=True)):
        at = i * row + 4
        says = f"{name}: {_percent(natural)} clean, {_percent(attacked)} in the worst case"
        parts.append(Markup("<g><title>{}</title>").format(says) + _text(left - 5, at + 11, name, "end"))
        shape = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}"/>'
        parts.append(Markup(shape).format("track", left, at, scale, row - 4))
        parts.append(Markup(shape).format("clean", left, at, scale * (natural or 0), row - 4))
        parts.append(Markup(shape).format("worst", left, at + 3, scale * (attacked or 0), row - 10))
        parts.append(Markup("</g>"))
    bottom = len(names) * row + 4
    parts += [
        _text(left + scale * share, bottom + 12, f"{100 * share:g}", "middle") for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    return _svg(title, bottom + 18, parts)


def _percent(share: float | None) -> str:
    return "no image" if share is None else f"{100 * share:.1f} %"


def matrix(title: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """True classes by predicted classes: the share of each row as the strength of the colour.

    Example:
        >>> svg = matrix("confusion", ["cat", "dog"], [[3, 1], [0, 4]])
        >>> "1 of 4 cat images taken for dog" in svg
        True
    """
    k, left, top = len(names), 70.0, 16.0
    side = (WIDTH - left - 6) / max(k, 1)
    parts = [_text((left + WIDTH) / 2, 11, "predicted", "middle")]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        total, y = sum(row), top + i * side
        if k <= 30:  # beyond that the names would run into each other
            parts.append(_text(left - 4, y + side / 2 + 4, _short(name), "end"))
            x, below = left + (i + 0.5) * side, top + k * side + 8
            turned = (
                '<text transform="rotate(-45 {0:.1f} {1:.1f})" x="{0:.1f}" y="{1:.1f}" text-anchor="end">{2}</text>'
            )
            parts.append(Markup(turned).format(x + 4, below, _short(name)))
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            says = f"{count} of {total} {name} images taken for {names[j]}"
            cell = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}">'
            kind = "cell right" if i == j else "cell"
            shape = Markup(cell).format(kind, left + j * side, y, side - 1, side - 1, share)
            parts.append(shape + Markup("<title>{}</title></rect>").format(says))
            if share >= 0.005 and side >= 24:
                number = _text(left + (j + 0.5) * side, y + side / 2 + 4, f"{100 * share:.0f}", "middle")
                parts.append(Markup('<g class="{}">{}</g>').format("on" if share > 0.55 else "off", number))
    below = 16 + 4 * max((len(_short(name)) for name in names if k <= 30), default=0)  # the names stand slanting
    return _svg(title, top + k * side + below, parts)


def _short(name: str) -> str:
    return name if len(name) <= 10 else name[:9] + "…"


def swatch(slot: int) -> Markup:
    """A short piece of a series' line, for a legend.

    Example:
        >>> "<svg" in swatch(0)
        True
    """
    return Markup('<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true"><path {} d="M0 4H26"/></svg>').format(
        style(slot)
    )
