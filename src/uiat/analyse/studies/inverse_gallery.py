"""Study: how the class-universal inverse perturbations look, how alike they are, and where they move images."""

from typing import Any

import torch
from torch import Tensor

from uiat import losses
from uiat.analyse.figures import draw_matrix, make_parts
from uiat.analyse.measurements import compute_logits
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
    """Draw the pictures, the cosines and the predictions; for each further model another table of those."""
    count = len(data["pictures"])
    rows = -(-count // 5)
    tables = list(data["runs"].items())
    heights = [1.15 * rows + 0.5, 4.2, *(4.6 for _ in tables)]
    figure, parts = make_parts(*heights)
    _draw_pictures(parts[0], data, rows)
    axes = parts[1].subplots()
    drawn = draw_matrix(axes, data["cosine"], low=-1.0, high=1.0, digits=1, names=data["classes"])
    parts[1].colorbar(drawn, ax=axes, shrink=0.8)
    axes.set_title("cosine of the perturbations of two classes")
    for area, (name, run) in zip(parts[2:], tables, strict=True):
        axes = area.subplots()
        shift = [[100 * value for value in row] for row in run["shift"]]
        largest = max(abs(value) for row in shift for value in row) or 1.0
        draw_matrix(axes, shift, low=-largest, high=largest, digits=1, names=data["classes"])
        axes.set_title(f"{name}: what z_c adds to the probability of k,\nin points, on images of other classes than c")
        axes.set_xlabel("class k")
        axes.set_ylabel("class c of z")
    return figure


def _draw_pictures(area: Any, data: Data, rows: int) -> None:
    """Draw perturbations of one channel in blue and red; others as an image, with grey for no change."""
    _, channels, height, _ = data["shape"]
    panes = area.subplots(rows, 5, squeeze=False).flatten()
    for axes in panes:
        axes.axis("off")
    largest = data["radius"]
    for c, picture in enumerate(data["pictures"]):
        if channels == 1:
            panes[c].imshow(picture, cmap="RdBu_r", vmin=-largest, vmax=largest)
        else:
            z = torch.tensor(picture).view(channels, height, -1)[:3]
            panes[c].imshow((0.5 + z / (2 * largest)).clamp(0, 1).permute(1, 2, 0).numpy())
        panes[c].set_title(data["classes"][c], fontsize=10, loc="center")
    radius = strength_text(largest, pixels=in_255ths(data["norm"], largest))
    if channels == 1:
        colours = f"full blue: {radius} darker, full red: {radius} brighter"
    else:
        colours = f"magnified {1 / (2 * largest):.3g} times, grey: no change, black and white: {radius}"
    area.suptitle(f"universal inverse perturbations\n({colours})", fontsize=10, x=0.02, ha="left")


STUDY = Study(
    name="inverse-gallery",
    about="the class-universal inverse perturbations and what they do",
    measure=measure,
    sentences=sentences,
    draw=draw,
)
