"""Give all figures one style: readable in print and on a phone, lines told apart without colours too."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from uiat.runs.methods import MARKERS, assign_slots
from uiat.system.extras import from_extra

Width = Literal["screen", "one", "two"]
# Width in inches, size of text and of the words on ticks in points. A screen is the usual one: at 390 pixels, a phone's
# width, text of 11 points is still 11 pixels high. Columns of a paper print text as large as it says; none is below 7.
SIZES: dict[Width, tuple[float, float, float]] = {
    "screen": (5.2, 11.0, 10.0),
    "one": (3.3, 8.0, 7.5),
    "two": (6.9, 8.0, 7.5),
}
LEAST = 7.0
# Okabe & Ito (2008), which colour-blind readers tell apart, without the yellow that paper swallows. Reports have the
# same hues, in shades that text can have.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#7F7F7F")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so no machine lacks it
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    "text.parse_math": False,  # a dollar in the name of a run is no formula
    "svg.hashsalt": "uiat",  # the same figure is the same file
    "pdf.fonttype": 42,  # fonts that a journal's checks take, and whose text can be searched
}


@contextmanager
def styled(width: Width = "screen") -> Iterator[None]:
    """Style the figures that are made inside.

    Args:
        width: what they are for: a screen, one column of a paper or both.

    Example:
        >>> with styled("one"):
        ...     figure, axes = make_panels(2.0)
        >>> len(axes), float(figure.get_figwidth())
        (1, 3.3)
    """
    with from_extra("report", "a figure"):
        import matplotlib

    inches, text, small = SIZES[width]
    sizes = {f"{name}.labelsize": small for name in ("xtick", "ytick")} | {"legend.fontsize": small, "font.size": text}
    sizes |= {"axes.titlesize": text, "axes.labelsize": text, "figure.titlesize": small, "figure.labelsize": small}
    sizes |= {"lines.linewidth": 0.145 * text, "lines.markersize": 0.45 * text, "lines.markeredgewidth": 0.09 * text}
    with matplotlib.rc_context(STYLE | sizes | {"figure.figsize": (inches, inches)}):  # type: ignore[arg-type]
        yield


def _rc(name: str) -> Any:
    with from_extra("report", "a figure"):
        from matplotlib import rcParams

    return rcParams[name]  # type: ignore[index]


def figure_width() -> float:
    """Return the width in inches of the figures that are made here."""
    return float(_rc("figure.figsize")[0])


def is_wide() -> bool:
    """True where panels that would stand one below the other fit beside one another: at two columns of a paper."""
    return figure_width() >= SIZES["two"][0]


def text_size(kind: Literal["text", "small", "least"] = "small") -> float:
    """Return a size of text in points: of labels, of ticks and legends, or the least that can be read."""
    with from_extra("report", "a figure"):
        from matplotlib.font_manager import FontProperties

    name = "font.size" if kind == "text" else "legend.fontsize"
    points = float(FontProperties(size=_rc(name)).get_size_in_points())
    return max(LEAST, points - 2) if kind == "least" else points


def scale() -> float:
    """Return how large text and marks are beside those of the screen; heights of panels follow them."""
    return text_size("text") / SIZES["screen"][1]


def mark_size(times: float) -> float:
    """Return the size of a mark that is so many times as large as usual, in points."""
    return times * float(_rc("lines.markersize"))


def make_panels(*heights: float) -> tuple[Any, list[Any]]:
    """Make a figure of panels one below the other; at two columns' width beside one another, all of the largest height.

    Args:
        heights: height of each panel in inches, beside text of 11 points.

    Example:
        >>> len(make_panels(2.0, 1.0)[1])
        2
    """
    with from_extra("report", "a figure"):
        from matplotlib.figure import Figure

    across = is_wide()
    figure = Figure(
        figsize=(figure_width(), scale() * (max(heights) if across else sum(heights))), layout="constrained"
    )
    if across:
        return figure, list(figure.subplots(1, len(heights), squeeze=False)[0])
    axes = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    return figure, [row[0] for row in axes]


def make_parts(*heights: float) -> tuple[Any, list[Any]]:
    """Make a figure of parts one below the other, each to be filled with panels of its own.

    Args:
        heights: height of each part in inches, beside text of 11 points.

    Example:
        >>> len(make_parts(2.0, 1.0)[1])
        2
    """
    with from_extra("report", "a figure"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(figure_width(), scale() * sum(heights)), layout="constrained")
    return figure, list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flatten())


def line_style(i: int) -> dict[str, Any]:
    """Return colour, marker and dashes of the i-th line, or of a slot of `uiat.runs.methods`.

    Example:
        >>> line_style(0)["marker"]
        'o'
    """
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[(i + i // len(COLOURS)) % len(DASHES)],
    }


def style_runs(data: Mapping[str, Any], labels: Iterable[str]) -> list[dict[str, Any]]:
    """Return the colour, marker and dashes of runs: those of their methods, the same in every figure and report.

    Args:
        data: data of a study; its "methods" names the method of each run, by label.
        labels: the runs, in the order in which they are drawn.

    Example:
        >>> [style["marker"] for style in style_runs({"methods": {"a": "pgd-at", "b": "uiat"}}, ["a", "b"])]
        ['s', 'o']
    """
    methods = data.get("methods", {})
    return [line_style(slot) for slot in assign_slots([methods.get(label, label) for label in labels])]


def format_percent(axes: Any, *, along: str = "y") -> None:
    """Write the ticks of an axis of fractions in percent."""
    axis = axes.yaxis if along == "y" else axes.xaxis
    axis.set_major_formatter(lambda fraction, _: f"{round(100 * fraction, 1):g}%")


def label_radii(axes: Any, strengths: Sequence[float]) -> None:
    """Put ticks at whole 255ths along the x axis, written so."""
    low, high = 255 * min(strengths), 255 * max(strengths)
    step = next((s for s in (1, 2, 4, 8, 16) if high - low <= 6 * s), 32)
    ticks = range(math.ceil(low / step - 1e-6) * step, round(high) + 1, step)
    axes.set_xticks([tick / 255 for tick in ticks], [f"{tick}/255" if tick else "0" for tick in ticks])


def tick_whole_numbers(axes: Any) -> None:
    """Put ticks at whole numbers alone along the x axis: there is no epoch 1.5."""
    with from_extra("report", "a figure"):
        from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
