"""Study: saliency in the centre of images, as inverse examples are said to draw attention to the background."""

from typing import Any

import torch
from torch import Tensor

from uiat.analyse.figures import is_wide, line_style, make_panels
from uiat.analyse.fitting import draw_legend_over, rows_height
from uiat.analyse.marks import draw_rows
from uiat.analyse.measurements import compute_gradients, correct_by_split, craft
from uiat.analyse.prose import CHANCE, accuracy_gap, difference_with_error, percent, standard_error
from uiat.analyse.study import Context, Data, Study, StudyRun

KINDS = ("natural", "adversarial", "inverse")


def measure(context: Context) -> Data:
    """Measure the fraction of saliency |d loss / dx| in the central square of half the side, and the train-test gap.

    On natural and adversarial images and on inverse ones at half the radius, made alike for every run. The square
    covers a quarter of the image, so a model that looks nowhere in particular has a quarter of it there. A later paper
    (DHAT, ICCV 2025) objects to UIAT that inverse examples draw attention to the background and widen the gap.
    """
    results = {}
    for run in context.runs:
        model = context.load_model(run)
        x, y = context.load_images(run)
        seed = context.options.seed
        images = {
            "natural": x,
            "adversarial": craft(model, x, y, context.make_attack(), seed=seed),
            "inverse": craft(model, x, y, context.make_attack(scale=0.5, descend=True), seed=seed),
        }
        result: Data = {"n": len(x)}
        fractions = {kind: centre_fraction(compute_gradients(model, at, y)) for kind, at in images.items()}
        for kind, fraction in fractions.items():
            moved = fraction - fractions["natural"]  # of the same image, so that images of other kinds do not blur it
            of_mean, of_move = (value.std(unbiased=False).item() / len(x) ** 0.5 for value in (fraction, moved))
            result[kind] = {"centre": fraction.mean().item(), "error": of_mean}
            result[kind] |= {"moved": moved.mean().item(), "moved_error": of_move}
        result |= _robust_accuracy(context, run)
        results[run.label] = result
        context.on_progress(f"{run.label}: {percent(result['natural']['centre'])} of the saliency in the centre")
    return {"area": centre_fraction(torch.ones(1, 1, *x.shape[2:])).item(), "runs": results}


def centre_fraction(gradient: Tensor) -> Tensor:
    """Compute the fraction of |gradient| in the middle half of rows and columns; that of the area where it is 0.

    Example:
        >>> centre_fraction(torch.ones(1, 3, 8, 8)).item()
        0.25
    """
    mass = gradient.abs().sum(dim=1).double()
    height, width = mass.shape[1:]
    top, left = height // 4, width // 4
    inside = mass[:, top : height - top, left : width - left].sum(dim=(1, 2))
    area = (height - 2 * top) * (width - 2 * left) / (height * width)
    total = mass.sum(dim=(1, 2))
    return torch.where(total > 0, inside / total.clamp_min(torch.finfo(mass.dtype).tiny), area)


def _robust_accuracy(context: Context, run: StudyRun) -> Data:
    """Measure robust accuracy on equally many training and test images."""
    masks = correct_by_split(context, run, context.make_attack(), ("train", "test"))
    accuracies = {f"robust_{split}": mask.double().mean().item() for split, mask in masks.items()}
    return {"n_robust": len(masks["test"]), **accuracies}


def sentences(data: Data) -> list[str]:
    """Say how saliency moves on inverse images, and what the gap is, smallest first."""
    said = []
    for name, run in data["runs"].items():
        parts = ", ".join(f"{kind} {percent(run[kind]['centre'])}" for kind in KINDS)
        change, error = run["inverse"]["moved"], run["inverse"]["moved_error"]
        way = f" (to the {'background' if change < 0 else 'centre'})" if abs(change) > CHANCE * error else ""
        moves = difference_with_error(change, error)
        said.append(f"{name}: saliency in the centre is {parts}; on inverse images against natural ones {moves}{way}.")
    order = sorted(data["runs"].items(), key=lambda item: item[1]["robust_train"] - item[1]["robust_test"])
    listed = [f"{name} {accuracy_gap(run['robust_train'], run['robust_test'], run['n_robust'])}" for name, run in order]
    said.append(f"Robust accuracy on training images less that on test images: {'; '.join(listed)}.")
    said.append(f"± is one standard error, of the images. The centre is {percent(data['area'])} of the image.")
    return said


def draw(data: Data) -> Any:
    """Draw saliency in the centre, and robust accuracy on training and test images; a row a run."""
    runs, names = data["runs"], list(data["runs"])
    height = 1.2 + rows_height(names, 0.38)
    figure, (above, below) = make_panels(height, height)
    saliency = {kind: [_bar(run[kind]["centre"], run[kind]["error"]) for run in runs.values()] for kind in KINDS}
    robust = {
        split: [
            _bar(run[f"robust_{split}"], standard_error(run[f"robust_{split}"], run["n_robust"]))
            for run in runs.values()
        ]
        for split in ("train", "test")
    }
    for axes, series in ((above, saliency), (below, robust)):
        draw_rows(axes, names, {label: (line_style(i), spans) for i, (label, spans) in enumerate(series.items())})
        draw_legend_over(axes)
    if is_wide():
        below.tick_params(left=False, labelleft=False)
    above.axvline(data["area"], color="#999999", linewidth=1.0)
    above.set_xlabel("saliency in the centre; line: its share of the area")
    below.set_xlabel("robust accuracy; bars: standard error")
    below.set_xlim(left=-0.01)
    return figure


def _bar(value: float, error: float) -> tuple[float, list[float]]:
    return value, [value - error, value + error]


STUDY = Study(
    name="attention",
    about="saliency in the centre of images, and the train-test robust gap",
    measure=measure,
    sentences=sentences,
    draw=draw,
)
