"""Study: how the class-universal inverse perturbations look, how alike they are, and where they move images."""

from typing import Any

import torch
from torch import Tensor

from uiat import losses
from uiat.analyse.figures import figure_width, is_wide, make_parts, scale, text_size
from uiat.analyse.fitting import fold
from uiat.analyse.measurements import compute_logits
from uiat.analyse.pictures import draw_matrix, draw_pictures, name_pictures
from uiat.analyse.prose import percent, points
from uiat.analyse.study import Context, Data, Study, StudyRun
from uiat.errors import UserError
from uiat.formatting import in_255ths, strength_text
from uiat.inverse import load_inverse
from uiat.threat import to_range

SHOWN = 20  # perturbations that are shown


def measure(context: Context) -> Data:
    """Collect pictures and cosines, and the predictions on images moved by another class's z (UIAT, CVPR 2023).

    The perturbations are those of the first run; the other runs are models that they are tried on as well.
    """
    first = context.runs[0]
    universal = load_inverse(first.folder)
    z = universal.upsampled()
    results = {}
    for run in context.runs:
        results[run.label] = measure_moves(context, run, z)
        context.on_progress(f"{run.label}: {percent(results[run.label]['drawn'])} drawn to the class of z")
    return {
        "from": first.label,
        "classes": context.class_names(first),
        "norm": universal.threat.norm,
        "radius": float(universal.threat.epsilon),
        "pictures": [[[round(v, 4) for v in row] for row in channel] for channel in _pictures(z[:SHOWN])],
        "shape": list(z.shape),
        "cosine": [[round(v, 4) for v in row] for row in cosines(z).tolist()],
        "runs": results,
    }


def _pictures(z: Tensor) -> list[list[list[float]]]:
    """Put each class's channels one below the other, (C * H, W), as plain lists."""
    pictures: list[list[list[float]]] = z.flatten(1, 2).tolist()
    return pictures


def cosines(z: Tensor) -> Tensor:
    """Compute the cosine of each pair of perturbations, (K, K); 0 with one that is zero.

    Example:
        >>> cosines(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])).tolist()[0]
        [1.0, 1.0, 0.0]
    """
    flat = torch.nn.functional.normalize(z.flatten(1).double(), dim=1)
    return flat @ flat.t()


def measure_moves(context: Context, run: StudyRun, z: Tensor) -> Data:
    """Measure where z_c moves images of other classes on a run's model, and what z_y does to those of its own."""
    model = context.load_model(run)
    x, y = context.load_images(run)
    classes = len(z)
    if x.shape[1:] != z.shape[1:] or int(y.max()) >= classes:
        raise UserError(f"the perturbations have shape {tuple(z.shape)} and do not fit the images of {run.label}")
    natural = compute_logits(model, x)
    own = compute_logits(model, to_range(x + z[y]))
    p = losses.log_probabilities(natural).exp()
    table, before, shift = [], [], []
    for c in range(classes):
        others = y != c
        values = compute_logits(model, to_range(x[others] + z[c]))
        after = values.argmax(dim=1)
        shift.append((losses.log_probabilities(values).exp() - p[others]).mean(dim=0)[:classes].tolist())
        table.append((torch.bincount(after, minlength=classes)[:classes] / max(len(after), 1)).tolist())
        before.append((natural[others].argmax(dim=1) == c).double().mean().item())
    drawn = [table[c][c] for c in range(classes)]
    return {
        "n": len(x),
        "table": [[round(v, 6) for v in row] for row in table],
        "shift": [[round(v, 6) for v in row] for row in shift],
        "before": before,
        "drawn": sum(drawn) / classes,
        "drawn_before": sum(before) / classes,
        "clean": (natural.argmax(dim=1) == y).double().mean().item(),
        "own": (own.argmax(dim=1) == y).double().mean().item(),
        "loss": losses.cross_entropy(natural, y).mean().item(),
        "own_loss": losses.cross_entropy(own, y).mean().item(),
    }


def sentences(data: Data) -> list[str]:
    """Say what z does to its own class and to others, on which models, and which two are most alike."""
    cosine, classes, names = data["cosine"], len(data["cosine"]), data["classes"]
    pairs = [(cosine[a][b], a, b) for a in range(classes) for b in range(a + 1, classes)]
    said = []
    for name, run in data["runs"].items():
        role = "On its own model" if name == data["from"] else f"On {name}, which it was not made on,"
        best = max(range(classes), key=lambda c: run["shift"][c][c])
        towards = sum(run["shift"][c][c] for c in range(classes)) / classes
        said.append(
            f"{role} z_y brings accuracy from {percent(run['clean'])} to {percent(run['own'])} and the mean loss from "
            f"{run['loss']:.3f} to {run['own_loss']:.3f}; z_c makes {percent(run['drawn'])} of other classes' images "
            f"class c ({percent(run['drawn_before'])} without it) and adds {points(towards)} to "
            f"the mean probability of c, most for class {names[best]} ({points(run['shift'][best][best])})."
        )
    if pairs:
        most, least = max(pairs), min(pairs)
        mean = sum(value for value, _, _ in pairs) / len(pairs)
        alike, unlike = (f"{names[a]} and {names[b]} ({value:+.2f})" for value, a, b in (most, least))
        said.append(
            f"The mean cosine of two perturbations is {mean:+.2f}; most alike are those of classes {alike}, least "
            f"those of {unlike}."
        )
    return said


def draw(data: Data) -> Any:
    """Draw two rows of pictures, and below them the cosines and what z does to predictions of the first runs."""
    width = figure_width()
    columns = min(10 if is_wide() else 5, len(data["pictures"]))
    pictures = data["pictures"][: 2 * columns]
    rows = -(-len(pictures) // columns)
    names, room = data["classes"][: len(pictures)], width / columns - 0.05
    lines = max(name.count("\n") + 1 for name in name_pictures(names, room)[0])
    high = rows * (0.75 * width / columns + 0.02 * text_size("least") * lines) + 0.03 * text_size()
    tables = max(2.65, (0.48 if is_wide() else 0.58) * width)
    figure, (above, below) = make_parts(high / scale(), min(tables, 1.29 * width - high) / scale())
    panes = above.subplots(rows, columns, squeeze=False).flatten()
    _, channels, _, _ = data["shape"]
    look = {"channels": channels, "largest": data["radius"], "room": room}
    draw_pictures(panes, pictures, names=names, **look)
    above.suptitle(_say_colours(data), x=0.02, ha="left")
    _draw_tables(below, data, list(data["runs"].items())[: max(1, int(width / 1.65) - 1)])
    return figure


def _draw_tables(area: Any, data: Data, runs: list[tuple[str, Data]]) -> None:
    """Draw the cosines, and beside them the shifts of these runs in the same colours."""
    axes, *panes = area.subplots(1, 1 + len(runs), sharey=True)
    draw_matrix(axes, data["cosine"], low=-1.0, high=1.0, digits=1, names=data["classes"])
    room = figure_width() / (2 + len(runs))
    axes.set_title(fold("cosine of z", room, size=text_size()), fontsize=text_size())
    largest = max(abs(100 * value) for _, run in runs for row in run["shift"] for value in row) or 1.0
    for pane, (name, run) in zip(panes, runs, strict=True):
        shift = [[100 * value for value in row] for row in run["shift"]]
        drawn = draw_matrix(pane, shift, low=-largest, high=largest, digits=1, names=data["classes"])
        pane.set_title(fold(name, room, size=text_size(), lines=2), fontsize=text_size())
        pane.tick_params(left=False, labelleft=False)
    area.colorbar(drawn, ax=panes, aspect=30)
    left = len(data["runs"]) - len(runs)
    about = "cosine of two classes' z (blue -1, red +1); points that z of class c (row) adds to class k (column)"
    about += f"; {left} more runs in the data" * (left > 0)
    area.suptitle(about, x=0.02, ha="left")


def _say_colours(data: Data) -> str:
    radius = strength_text(data["radius"], pixels=in_255ths(data["norm"], data["radius"]))
    if data["shape"][1] == 1:
        colours = f"full blue: {radius} darker, full red: {radius} brighter"
    else:
        colours = f"magnified {1 / (2 * data['radius']):.3g} times, grey: no change, black and white: {radius}"
    return f"universal inverse perturbations z ({colours})"


STUDY = Study(
    name="inverse-gallery",
    about="the class-universal inverse perturbations and what they do",
    measure=measure,
    sentences=sentences,
    draw=draw,
    reads=("n", "which"),
)
