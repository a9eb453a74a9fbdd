"""Pictures for trackers, as arrays of pixels (H, W, 3) in uint8."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from uiat.errors import UserError
from uiat.inverse import load_inverse

SIDE = 64  # pixels, the least of one perturbation
COLUMNS = 10


def draw_perturbations(folder: Path) -> NDArray[np.uint8] | None:
    """Draw the universal inverse perturbations of a run folder side by side, grey for 0; None if it has none.

    Of more than a hundred classes the first hundred are drawn. The largest change of a pixel is black or white.

    Example:
        >>> draw_perturbations(Path("missing-run"))
    """
    try:
        z = load_inverse(folder).z[: COLUMNS**2].detach().float().cpu()
    except UserError:
        return None
    z = z.expand(-1, 3, -1, -1) if z.shape[1] == 1 else z[:, :3]
    if z.shape[1] < 3:
        return None
    z = 0.5 + 0.5 * z / z.abs().max().clamp_min(1e-12)
    enlarge = max(1, SIDE // z.shape[-1])
    z = z.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    z = torch.nn.functional.pad(z, (1, 1, 1, 1), value=1.0)
    missing = -len(z) % min(COLUMNS, len(z))
    z = torch.cat([z, z.new_ones(missing, *z.shape[1:])])
    k, c, h, w = z.shape
    columns = min(COLUMNS, k)
    grid = z.reshape(k // columns, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(k // columns * h, columns * w, c)
    return (grid * 255).round().to(torch.uint8).numpy()


def draw_classes(per_class: Mapping[str, Sequence[float | None]]) -> NDArray[np.uint8] | None:
    """Draw the accuracy of each class under each attack as bars; None without matplotlib, or without any accuracy.

    Example:
        >>> draw_classes({})
    """
    if not per_class:
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(6.4, 3.2), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.subplots()
    width = 0.8 / len(per_class)
    for i, (name, accuracies) in enumerate(per_class.items()):
        at = np.arange(len(accuracies)) + (i - (len(per_class) - 1) / 2) * width
        axes.bar(at, [100 * (value or 0.0) for value in accuracies], width, label=name)
    axes.set(xlabel="class, counted from 0", ylabel="accuracy, %", ylim=(0, 100))
    axes.legend(ncols=4, fontsize=8, loc="lower center")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
