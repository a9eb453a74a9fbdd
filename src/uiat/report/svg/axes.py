"""Lay out the plane of a chart: round ticks around the data, and the place of a value on the drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from uiat import formatting
from uiat.system.extras import from_extra


def ticks(low: float, high: float, most: int = 6, *, whole: bool = False) -> list[float]:
    """Return round numbers inside a range, at most `most` of them.

    Args:
        low: where the range begins.
        high: where it ends.
        most: the most numbers there may be.
        whole: True for whole numbers alone: there is no epoch 1.5.

    Example:
        >>> ticks(0, 1), ticks(1, 3, whole=True)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 2.0, 3.0])
    """
    slack = 1e-9 * (high - low)
    return [tick for tick in around(low, high, most, whole=whole) if low - slack <= tick <= high + slack] or [low]


def around(low: float, high: float, most: int = 6, *, whole: bool = False) -> list[float]:
    """Return round numbers that enclose a range, so that no value lies outside of the labelled part of an axis.

    Example:
        >>> around(0, 0.27)
        [0.0, 0.1, 0.2, 0.3]
    """
    if not math.isfinite(high - low) or high <= low:
        return [low, low + 1]
    with from_extra("report", "a report"):
        from matplotlib.ticker import MaxNLocator

    locator = MaxNLocator(nbins=most - 1, steps=(1, 2, 2.5, 5, 10), integer=whole, min_n_ticks=1)
    return [round(float(tick), 10) for tick in locator.tick_values(low, high)]


@dataclass(frozen=True)
class Frame:
    """The plane of a chart.

    Args:
        xs: labelled values of the x axis; the data may begin before and end after them.
        ys: labelled values of the y axis, around the data.
        x0: first value of the x axis.
        x1: last value of the x axis.
        percent: True where y is a fraction, shown in percent.
        width: width of the drawing.
        height: height of the drawing.
        left: room for the ticks at the left of the plane.
        right: room at the right of the plane.
        top: room above the plane.
        bottom: room below the plane.

    Example:
        >>> frame = Frame(xs=[0, 1], ys=[0, 1], x0=0, x1=1)
        >>> frame.x(0), frame.y(1), frame.text(0.5)
        (46.0, 12.0, '0.5')
    """

    xs: Sequence[float]
    ys: Sequence[float]
    x0: float
    x1: float
    percent: bool = False
    width: float = 360
    height: float = 230
    left: float = 46
    right: float = 10
    top: float = 12
    bottom: float = 38

    def x(self, value: float) -> float:
        """Return the place of a value from the left edge of the drawing."""
        return self.left + (value - self.x0) / ((self.x1 - self.x0) or 1) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Return the place of a value from the upper edge of the drawing."""
        fraction = (value - self.ys[0]) / ((self.ys[-1] - self.ys[0]) or 1)
        return self.height - self.bottom - fraction * (self.height - self.top - self.bottom)

    def text(self, value: float) -> str:
        """Write a value, in percent where the axis is."""
        return formatting.percent(value, 1) if self.percent else f"{value:.4g}"

    def grid(self) -> Markup:
        """Draw lines at the ticks, and write their values."""
        parts = []
        for value in self.ys:
            at = self.y(value)
            line = Markup('<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>')
            parts.append(line.format(self.left, at, self.width - self.right))
            parts.append(text(self.left - 5, at + 4, f"{100 * value:.4g}" if self.percent else f"{value:.4g}", "end"))
        for value in self.xs:
            parts.append(text(self.x(value), self.height - self.bottom + 15, f"{value:g}", "middle"))
        return Markup("").join(parts)

    def axes(self, x: str, y: str) -> Markup:
        """Write the names of both axes."""
        across = text((self.left + self.width - self.right) / 2, self.height - 5, x, "middle")
        middle = (self.top + self.height - self.bottom) / 2
        turned = Markup('<text transform="rotate(-90 11 {0:.0f})" x="11" y="{0:.0f}" text-anchor="middle">{1}</text>')
        return across + turned.format(middle, y)


def text(x: float, y: float, content: str, anchor: str) -> Markup:
    """Write a piece of text in a drawing.

    Args:
        x: place from the left edge.
        y: place from the upper edge.
        content: the text; it is escaped.
        anchor: "start", "middle" or "end": the part of the text that lies at the place.

    Example:
        >>> text(1, 2, "a < b", "end")
        Markup('<text x="1.0" y="2.0" text-anchor="end">a &lt; b</text>')
    """
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, content)


def drawing(title: str, parts: Sequence[Markup], *, width: float, height: float, kind: str = "chart") -> Markup:
    """Put parts together to an SVG with a title for those who cannot see it.

    Example:
        >>> drawing("accuracy", [], width=10, height=5)
        Markup('<svg class="chart" viewBox="0 0 10 5" role="img" aria-label="accuracy"></svg>')
    """
    head = Markup('<svg class="{}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">')
    return head.format(kind, width, height, title) + Markup("").join(parts) + Markup("</svg>")


def spread_labels(wanted: Sequence[float], least: float) -> list[float]:
    """Move labels apart: places near the wanted ones, in their order, of which no two are closer than `least`.

    Example:
        >>> spread_labels([10.0, 11.0, 30.0], 8)
        [6.5, 14.5, 30.0]
    """
    blocks: list[tuple[float, list[int]]] = []  # labels that touch: their middle, and their positions in `wanted`
    for i in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        middle, members = wanted[i], [i]
        while blocks and middle - least * len(members) / 2 < blocks[-1][0] + least * len(blocks[-1][1]) / 2:
            before, others = blocks.pop()
            middle = (before * len(others) + middle * len(members)) / (len(others) + len(members))
            members = others + members
        blocks.append((middle, members))
    places = list(wanted)
    for middle, members in blocks:
        for k, i in enumerate(members):
            places[i] = middle + least * (k - (len(members) - 1) / 2)
    return places
