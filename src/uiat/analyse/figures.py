"""Give all figures one style: readable in print and on a phone, lines told apart without colours too."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from uiat.runs.methods import MARKERS, assign_slots
from uiat.system.extras import from_extra

WIDTH = 5.2  # inches: at 390 pixels, a phone's width, text of 11 points is still 11 pixels high
# Okabe & Ito (2008), which colour-blind readers tell apart, without the yellow that paper swallows. Reports have the
# same hues, in shades that text can have.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#7F7F7F")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so no machine lacks it
    "font.size": 11.0,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 11.0,
    "legend.fontsize": 10.0,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    "text.parse_math": False,  # a dollar in the name of a run is no formula
    "svg.hashsalt": "uiat",  # the same figure is the same file
    "pdf.fonttype": 42,  # fonts that a journal's checks take, and whose text can be searched
}


@contextmanager
def styled() -> Iterator[None]:
    """Style the figures that are made inside.

    Example:
        >>> with styled():
        ...     figure, axes = make_panels(2.0)
        >>> len(axes)
        1
    """
    with from_extra("report", "a figure"):
        import matplotlib

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def make_panels(*heights: float) -> tuple[Any, list[Any]]:
    """Make a figure of panels one below the other, of these heights in inches.

    Example:
        >>> len(make_panels(2.0, 1.0)[1])
        2
    """
    with from_extra("report", "a figure"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    return figure, [row[0] for row in axes]


def make_parts(*heights: float) -> tuple[Any, list[Any]]:
    """Make a figure of parts one below the other, each to be filled with panels of its own; heights in inches.

    Example:
        >>> len(make_parts(2.0, 1.0)[1])
        2
    """
    with from_extra("report", "a figure"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
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


def draw_legend(figure: Any, axes: Any) -> None:
    """Draw a legend above all panels, of what one of them shows."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(map(len, labels), default=0)
    columns = min(len(labels), 3 if longest < 13 else 2 if longest < 24 else 1)
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=2.6)


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


def draw_matrix(
    axes: Any, values: Sequence[Sequence[float]], *, low: float, high: float, digits: int, names: Sequence[str]
) -> Any:
    """Draw a table of numbers as coloured squares; where they are few enough to be read, written out and with names."""
    drawn = axes.imshow(values, vmin=low, vmax=high, cmap=DIVERGING, aspect="auto")
    axes.grid(visible=False)
    size = len(values)
    if size <= 12:
        axes.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(size), names)
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                red, green, blue, _ = drawn.cmap(drawn.norm(value))
                dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
                text = f"{round(value, digits) + 0.0:.{digits}f}"
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    return drawn


def fold(label: str) -> str:
    """Return a name in at most three lines, so that a long one leaves room for what it is of.

    Example:
        >>> print(fold("run, kind=universal, radius=0.1, step_size=0.05, steps=1, start=zeros, storage=float32"))
        run, kind=universal,
        radius=0.1,
        step_size=0.05, ...
    """
    return "\n".join(textwrap.wrap(label, 22, max_lines=3, placeholder=" ..."))


def label_rows(axes: Any, labels: Sequence[str]) -> None:
    """Write names down the left side, the first on top; no lines between them."""
    axes.set_yticks(range(len(labels)), [fold(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
