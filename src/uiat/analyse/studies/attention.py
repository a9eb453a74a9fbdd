"""Where a model looks: the objection that inverse examples draw attention to the background, as numbers."""

from typing import Any

import torch
from torch import Tensor

from uiat.analyse.figures import in_percent, look, panels, rows_of
from uiat.analyse.prose import CHANCE, against_chance, percent, share_error
from uiat.analyse.studies.alignment import gradients
from uiat.analyse.studies.overfitting import gap, standing
from uiat.analyse.study import Context, Data, Study, StudyRun, craft

KINDS = ("natural", "adversarial", "inverse")


def measure(context: Context) -> Data:
    """Share of the saliency |d loss / dx| inside the central square of half the side, and the train-test robust gap.

    On natural and adversarial images and on inverse ones at half the radius, made alike for every run. The square
    covers a quarter of the image, so a model that looks nowhere in particular has a quarter of it there. A later paper
    (DHAT, ICCV 2025) objects to UIAT that inverse examples draw attention to the background and widen the gap.
    """
    found = {}
    for subject in context.subjects:
        model = context.model(subject)
        x, y = context.images(subject)
        seed = context.asked.seed
        images = {
            "natural": x,
            "adversarial": craft(model, x, y, context.settings(), seed=seed),
            "inverse": craft(model, x, y, context.settings(step=0.5, descend=True), seed=seed),
        }
        run: Data = {"n": len(x)}
        shares = {kind: centre_share(gradients(model, at, y)) for kind, at in images.items()}
        for kind, share in shares.items():
            moved = share - shares["natural"]  # of the same image, so that images of other kinds do not blur it
            of_mean, of_move = (value.std(unbiased=False).item() / len(x) ** 0.5 for value in (share, moved))
            run[kind] = {"centre": share.mean().item(), "error": of_mean}
            run[kind] |= {"moved": moved.mean().item(), "moved_error": of_move}
        run |= _gap(context, subject)
        found[subject.label] = run
        context.told(f"{subject.label}: {percent(run['natural']['centre'])} of the saliency in the centre")
    return {"area": centre_share(torch.ones(1, 1, *x.shape[2:])).item(), "runs": found}


def centre_share(gradient: Tensor) -> Tensor:
    """The share of |gradient| in the middle half of rows and columns, of each image; that of the area where it is 0.

    Example:
        >>> centre_share(torch.ones(1, 3, 8, 8)).item()
        0.25
    """
    mass = gradient.abs().sum(dim=1).double()
    height, width = mass.shape[1:]
    top, left = height // 4, width // 4
    inside = mass[:, top : height - top, left : width - left].sum(dim=(1, 2))
    area = (height - 2 * top) * (width - 2 * left) / (height * width)
    total = mass.sum(dim=(1, 2))
    return torch.where(total > 0, inside / total.clamp_min(torch.finfo(mass.dtype).tiny), area)


def _gap(context: Context, subject: StudyRun) -> Data:
    """Robust accuracy on as many training images as test images, and on the latter."""
    right = standing(context, subject, context.settings(), ("train", "test"))
    shares = {f"robust_{split}": verdict.double().mean().item() for split, verdict in right.items()}
    return {"n_robust": len(right["test"]), **shares}


def sentences(data: Data) -> list[str]:
    """Whether saliency leaves the centre on inverse images, and the gap, smallest first."""
    found = []
    for name, run in data["runs"].items():
        parts = ", ".join(f"{kind} {percent(run[kind]['centre'])}" for kind in KINDS)
        change, error = run["inverse"]["moved"], run["inverse"]["moved_error"]
        way = f" (to the {'background' if change < 0 else 'centre'})" if abs(change) > CHANCE * error else ""
        moves = against_chance(change, error)
        found.append(f"{name}: saliency in the centre is {parts}; on inverse images against natural ones {moves}{way}.")
    order = sorted(data["runs"].items(), key=lambda item: item[1]["robust_train"] - item[1]["robust_test"])
    listed = [f"{name} {gap(run['robust_train'], run['robust_test'], run['n_robust'])}" for name, run in order]
    found.append(f"Robust accuracy on training images less that on test images: {'; '.join(listed)}.")
    found.append(f"± is one standard error, of the images. The centre is {percent(data['area'])} of the image.")
    return found


def draw(data: Data) -> Any:
    """Saliency in the centre above, robust accuracy on training and test images below; a line a run."""
    runs = data["runs"]
    height = 1.2 + 0.38 * len(runs)
    figure, (above, below) = panels(height, height)
    _marks(above, runs, [(kind, lambda run, k=kind: (run[k]["centre"], run[k]["error"])) for kind in KINDS])
    accuracy = [
        (split, lambda run, s=split: (run[f"robust_{s}"], share_error(run[f"robust_{s}"], run["n_robust"])))
        for split in ("train", "test")
    ]
    _marks(below, runs, accuracy)
    above.axvline(data["area"], color="#999999", linewidth=1.0)
    above.set_xlabel("saliency in the centre; line: its share of the area")
    below.set_xlabel("robust accuracy; bars: standard error")
    below.set_xlim(left=-0.01)
    return figure


def _marks(axes: Any, runs: Data, groups: list[tuple[str, Any]]) -> None:
    """A row a run, in it a mark with its standard error of each group: its name, and how to read it from a run."""
    rows_of(axes, list(runs))
    for i, (label, read) in enumerate(groups):
        values, errors = zip(*map(read, runs.values()), strict=True)
        style = look(i) | {"linestyle": "none", "markersize": 6}
        apart = 0.2 * (i - (len(groups) - 1) / 2)  # so that bars of a row do not hide each other
        axes.errorbar(values, [row + apart for row in range(len(runs))], xerr=errors, label=label, **style)
    in_percent(axes, along="x")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handletextpad=0.2, columnspacing=1.0)


ATTENTION = Study(
    name="attention",
    about="saliency in the centre of images, and the train-test robust gap",
    measure=measure,
    sentences=sentences,
    draw=draw,
)
