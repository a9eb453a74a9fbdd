"""Fit words into figures: names folded, legends in as many columns as have room, titles no wider than their panel."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from uiat.analyse.figures import figure_width, is_wide, scale, text_size
from uiat.system.extras import from_extra

LINE = 1.3  # height of a line of text, in sizes of the text
MARGIN = 0.08  # inches between words and the edge of a figure
BREAKS = re.compile(r"(?<=[ ,/=_:])|(?<=\w[.-])(?=[^\W\d])")  # where a name may go on in the next line, not in 0.1
ROWS_SHADE = "#F2F2F2"


def measure_text(line: str, size: float) -> float:
    """Return the width of a line of text in inches.

    Example:
        >>> measure_text("mm", 10.0) > measure_text("m", 10.0) > 0
        True
    """
    return size * sum(map(_measure_letter, line))


@lru_cache(maxsize=10_000)
def _measure_letter(letter: str) -> float:
    """Return how far a letter moves the next one, in inches for text of one point."""
    with from_extra("report", "a figure"):
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import text_to_path

    font = FontProperties(size=100)
    ends, whole = (text_to_path.get_text_width_height_descent(t, font, ismath=False)[0] for t in ("||", f"|{letter}|"))
    return float(whole - ends) / 7200


def fold(label: str, width: float, *, size: float, lines: int | None = 3) -> str:
    """Break a name into lines of at most this width; what is too much goes from the middle: its end tells runs apart.

    Args:
        label: the name.
        width: room in inches.
        size: size of the text in points.
        lines: the most lines there may be; None for no limit.

    Example:
        >>> print(fold("digits-uiat,optimisation.epochs=4,objective.momentum=class,seed=3", 1.5, size=10, lines=2))
        digits-uiat,
        …class,seed=3
    """
    rows = [""]
    for piece in BREAKS.split(label):
        if rows[-1] and measure_text((rows[-1] + piece).rstrip(), size) > width:
            rows.append("")
        for letter in piece:  # one by one only where the piece itself is too long
            if rows[-1] and measure_text((rows[-1] + letter).rstrip(), size) > width:
                rows.append("")
            rows[-1] += letter
    rows = [row.strip() for row in rows]
    if lines is None or len(rows) <= lines:
        return "\n".join(rows)
    ends = [len(label) - i for i in range(1, len(label)) if measure_text("…" + label[-i:], size) <= width]
    if lines == 1:
        half = max((i for i in range(len(label)) if 2 * measure_text(label[:i], size) <= width), default=0)
        ends = [start for start in ends if measure_text(label[:half] + "…" + label[start:], size) <= width]
        return label[:half] + "…" + label[min(ends, default=len(label)) :]
    starts = {match.end() for match in BREAKS.finditer(label)} & set(ends)  # rather not within a word
    return "\n".join([*rows[: lines - 1], "…" + label[min(starts or ends, default=len(label)) :]])


def fold_names(labels: Sequence[str], width: float, *, size: float, lines: int = 3) -> list[str]:
    """Fold names; whole where two of them would look alike otherwise.

    Example:
        >>> fold_names(["a", "b"], 1.0, size=10)
        ['a', 'b']
    """
    short = [fold(label, width, size=size, lines=lines) for label in labels]
    if len(set(short)) == len(set(labels)):
        return short
    return [fold(label, width, size=size, lines=None) for label in labels]


def _lay_legend(labels: Sequence[str]) -> tuple[list[str], int, float]:
    """Return the folded names of a legend, its columns, and its height in inches."""
    size = text_size()
    room, handle = figure_width() - 2 * MARGIN, 5.2 * size / 72  # the line, and the space on both sides
    names = fold_names(labels, room - handle, size=size)
    longest = max(measure_text(line, size) for name in names for line in name.split("\n"))
    columns = max(1, min(len(names), 4, int(room / (longest + handle))))
    rows, lines = -(-len(names) // columns), max(name.count("\n") + 1 for name in names)
    return names, columns, rows * (LINE * lines + 0.5) * size / 72


def legend_height(labels: Sequence[str]) -> float:
    """Return the height that `draw_legend` takes, in inches of `make_panels`.

    Example:
        >>> legend_height(["a"]) < legend_height(["a" * 50, "b" * 50])
        True
    """
    return _lay_legend(labels)[2] / scale()


def draw_legend(figure: Any, axes: Any) -> None:
    """Draw a legend above all panels, of what one of them shows, in as many columns as have room.

    A figure grows by its height; a part of one does not, and has to be made as much higher (`legend_height`).
    """
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    names, columns, height = _lay_legend(labels)
    figure.legend(handles, names, loc="outside upper left", ncols=columns, handlelength=2.4, columnspacing=1.4)
    if figure.figure is figure:
        figure.set_figheight(figure.get_figheight() + height - LINE * text_size() / 72)


def draw_legend_over(axes: Any, *, columns: int = 3) -> None:
    """Draw the legend of one panel over it, in one row of a few short words."""
    size = {"handletextpad": 0.2, "columnspacing": 0.8, "borderaxespad": 0.2}
    axes.legend(loc="lower right", bbox_to_anchor=(1.02, 1.0), ncols=columns, **size)


def _fold_rows(labels: Sequence[str]) -> list[str]:
    return fold_names(labels, 0.36 * figure_width() / (2 if is_wide() else 1), size=text_size())


def rows_height(labels: Sequence[str], least: float = 0.3) -> float:
    """Return the height of a row for each of these names, of which none is below this; in inches of `make_panels`.

    Example:
        >>> rows_height(["a", "b"], 0.5)
        1.0
    """
    lines = max((name.count("\n") + 1 for name in _fold_rows(labels)), default=1)
    return len(labels) * max(least, (lines * LINE + 0.3) * text_size() / 72 / scale())


def label_rows(axes: Any, labels: Sequence[str]) -> None:
    """Write names down the left side, the first on top; every second row is shaded, instead of lines between them."""
    axes.set_yticks(range(len(labels)), _fold_rows(labels))
    shade_rows(axes, len(labels))


def shade_rows(axes: Any, count: int) -> None:
    """Shade every second of so many rows, which begin at the top."""
    axes.grid(visible=False, axis="y")
    for i in range(1, count, 2):
        axes.axhspan(i - 0.5, i + 0.5, color=ROWS_SHADE, linewidth=0, zorder=0)
    axes.set_ylim(count - 0.5, -0.5)


def fit_texts(figure: Any) -> None:
    """Break titles and labels that are wider than their room, and leave out numbers that are wider than their squares.

    Layouts leave room for the heights of titles and labels, never for their widths.
    """
    with from_extra("report", "a figure"):
        from matplotlib.text import Text

    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox(for_layout_only=True) for axes in figure.axes]  # once: they take long
    for axes in figure.axes:
        if not axes.axison:  # a picture: its name is folded already
            continue
        left, right = _find_room(figure, axes, boxes)
        titles = [text for text in axes.get_children() if isinstance(text, Text) and text not in axes.texts]
        for text in (*titles, axes.xaxis.label):
            _break(text, axes, left, right)
        _drop_numbers(axes)
    whole = figure.bbox.width / figure.dpi - 2 * MARGIN
    for part in (figure, *figure.subfigs):
        for text in part.texts:  # titles and labels of a whole part
            if not text.get_rotation():
                text.set_text(_fold_lines(text.get_text(), whole, text.get_fontsize()))


def _find_room(figure: Any, axes: Any, boxes: Sequence[Any]) -> tuple[float, float]:
    """Return where the words of axes may begin and end, in inches from the figure's left edge."""
    own = axes.get_window_extent()
    left, right = 0.0, figure.bbox.width
    for other, box in zip(figure.axes, boxes, strict=True):
        if other is axes or box is None or box.y1 < own.y0 or own.y1 < box.y0:
            continue
        if box.x0 >= own.x1:
            right = min(right, box.x0)
        elif box.x1 <= own.x0:
            left = max(left, box.x1)
    return left / figure.dpi + MARGIN, right / figure.dpi - MARGIN


def _break(text: Any, axes: Any, left: float, right: float) -> None:
    words = text.get_text()
    if words and not text.get_rotation():
        box, dpi = axes.get_window_extent(), axes.get_figure().dpi
        start, centre = box.x0 / dpi, (box.x0 + box.x1) / 2 / dpi
        width = right - start if text.get_ha() == "left" else 2 * min(centre - left, right - centre)
        text.set_text(_fold_lines(words, width, text.get_fontsize()))


def _drop_numbers(axes: Any) -> None:
    if axes.images and axes.texts:
        rows, columns = axes.images[0].get_size()
        box, dpi = axes.get_window_extent(), axes.get_figure().dpi
        size = axes.texts[0].get_fontsize()
        wide = max(measure_text(text.get_text(), size) for text in axes.texts) > 0.95 * box.width / dpi / columns
        if wide or LINE * size / 72 > box.height / dpi / rows:
            for text in list(axes.texts):
                text.remove()


def _fold_lines(words: str, width: float, size: float) -> str:
    """Fold each line, into lines of about the same width: a last one of a single word looks like an accident."""
    folded = []
    for line in words.replace(" %", "\N{NO-BREAK SPACE}%").split("\n"):
        best = fold(line, width, size=size, lines=None)
        narrow = width
        while best.count("\n") and (narrow := 0.95 * narrow) > 0.5 * width:
            tried = fold(line, narrow, size=size, lines=None)
            best = tried if tried.count("\n") == best.count("\n") else best
        folded.append(best)
    return "\n".join(folded)
