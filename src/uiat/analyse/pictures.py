"""Draw perturbations as pictures, and tables of numbers as coloured squares."""

from collections.abc import Sequence
from typing import Any

import torch

from uiat.analyse.figures import DIVERGING, text_size
from uiat.analyse.fitting import fold_names, measure_text

READ = 12  # classes, above which squares are too small for names and numbers
Picture = Sequence[Sequence[float]]  # the channels of a perturbation one below the other, (C * H, W)


def draw_pictures(
    panes: Any,
    pictures: Sequence[Picture],
    *,
    channels: int,
    names: Sequence[str],
    room: float,
    largest: float | None = None,
) -> None:
    """Draw perturbations of one channel in blue and red; others as an image, with grey for no change.

    Args:
        panes: a list of axes, at least as many as there are pictures; those that are left over are hidden.
        pictures: the perturbations.
        channels: number of their channels.
        names: name of each picture, or none.
        room: width of an axes in inches; names that need more stand upright.
        largest: the value of full colour; by default the largest of each picture.
    """
    short, upright = name_pictures(names, room)
    for axes in panes:
        axes.axis("off")
    for i, (axes, picture) in enumerate(zip(panes, pictures, strict=False)):
        z = torch.tensor(picture)
        full = largest or float(z.abs().max()) or 1.0
        if channels == 1:
            axes.imshow(z.tolist(), cmap=DIVERGING, vmin=-full, vmax=full)
        else:
            image = z.view(channels, len(z) // channels, -1)[:3]
            axes.imshow((0.5 + image / (2 * full)).clamp(0, 1).permute(1, 2, 0).numpy())
        if short:
            turned = 90 if upright else 0
            axes.set_title(short[i], fontsize=text_size("least"), loc="center", rotation=turned, pad=2)


def name_pictures(names: Sequence[str], room: float) -> tuple[list[str], bool]:
    """Return names folded to the width of their pictures in inches, and True if they stand upright in little room.

    Example:
        >>> name_pictures(["cat", "automobile"], 2.0), name_pictures(["cat", "automobile"], 0.2)
        ((['cat', 'automobile'], False), (['cat', 'automobile'], True))
    """
    size = text_size("least")
    if any(measure_text(name, size) > room for name in names) and room < 0.5:
        return fold_names(names, 0.8, size=size, lines=1), True
    return fold_names(names, room, size=size, lines=2), False


def draw_matrix(
    axes: Any, values: Sequence[Sequence[float]], *, low: float, high: float, digits: int, names: Sequence[str]
) -> Any:
    """Draw a table of numbers as coloured squares; where they are few enough to be read, written out and with names.

    Columns have the names of the rows, or their numbers where the names are long. Numbers that do not fit into their
    squares are left out by `fit_texts`.
    """
    drawn = axes.imshow(values, vmin=low, vmax=high, cmap=DIVERGING, aspect="auto")
    axes.grid(visible=False)
    if len(values) > READ:
        return drawn
    _name_squares(axes, names)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            text = f"{round(value, digits) + 0.0:.{digits}f}"
            colour = "white" if dark else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=text_size("least"), color=colour, in_layout=False)
    return drawn


def _name_squares(axes: Any, names: Sequence[str]) -> None:
    size, longest = text_size("least"), max(map(len, names))
    short = fold_names(names, 1.0, size=size, lines=2)
    columns = list(short)
    if any("\n" in name for name in short):
        columns = [str(i + 1) for i in range(len(names))]
        short = [f"{name} ({i + 1})" for i, name in enumerate(short)]
    upright = 90 if longest > 3 and columns[0] != "1" else 0
    axes.set_xticks(range(len(names)), columns, rotation=upright, fontsize=size)
    axes.set_yticks(range(len(names)), short, fontsize=size)
