"""Where a model looks: the objection that inverse examples draw attention to the background, as numbers."""

from typing import Any

import torch
from torch import Tensor

from uiat.analyse.study import Context, Data, Split, Study, Subject, crafted
from uiat.analyse.style import in_percent, look, panels, rows_of
from uiat.analyse.surfaces import gradients
from uiat.analyse.words import percent, points
from uiat.evaluation.stage import correct_under

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
            "adversarial": crafted(model, x, y, context.settings(), seed=seed),
            "inverse": crafted(model, x, y, context.settings(step=0.5, descend=True), seed=seed),
        }
        run: Data = {"n": len(x)}
        shares = {kind: centre_share(gradients(model, at, y)) for kind, at in images.items()}
        for kind, share in shares.items():
            moved = share - shares["natural"]  # of the same image, so that images of other kinds do not blur it
            error = moved.std(unbiased=False).item() / len(x) ** 0.5
            run[kind] = {"centre": share.mean().item(), "moved": moved.mean().item(), "moved_error": error}
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


def _gap(context: Context, subject: Subject) -> Data:
    """Robust accuracy on as many training images as test images, and on the latter."""
    model, found = context.model(subject), {}
    splits: tuple[Split, Split] = ("train", "test")
    for split in splits:
        x, y = context.images(subject, split)
        right = correct_under(model, x, y, context.settings(), seed=context.asked.seed)
        found[f"robust_{split}"] = right.double().mean().item()
        found[f"n_{split}"] = len(x)
    return found


def sentences(data: Data) -> list[str]:
    """Whether saliency leaves the centre on inverse images, and the gap, smallest first."""
    found = []
    for name, run in data["runs"].items():
        parts = ", ".join(f"{kind} {percent(run[kind]['centre'])}" for kind in KINDS)
        change, error = run["inverse"]["moved"], run["inverse"]["moved_error"]
        way = "to the background" if change < 0 else "to the centre"
        moves = f"moves {way}, {points(change)}" if abs(change) > 2 * error else "does not move beyond chance"
        found.append(f"{name}: saliency in the centre is {parts}; on inverse images it {moves} against natural ones.")
    gaps = {name: run["robust_train"] - run["robust_test"] for name, run in data["runs"].items()}
    listed = [f"{name} {points(gap)}" for name, gap in sorted(gaps.items(), key=lambda item: item[1])]
    found.append(f"Robust accuracy on training images less that on test images: {', '.join(listed)}.")
    found.append(f"The centre is {percent(data['area'])} of the image.")
    return found


def draw(data: Data) -> Any:
    """Saliency in the centre above, robust accuracy on training and test images below; a line a run."""
    names = list(data["runs"])
    height = 0.9 + 0.34 * len(names)
    figure, (above, below) = panels(height + 0.3, height + 0.3)
    for axes, groups in (
        (above, [(kind, [data["runs"][name][kind]["centre"] for name in names]) for kind in KINDS]),
        (below, [(split, [data["runs"][name][f"robust_{split}"] for name in names]) for split in ("train", "test")]),
    ):
        rows_of(axes, names)
        for i, (label, values) in enumerate(groups):
            style = look(i) | {"linestyle": "none", "markersize": 7}
            axes.plot(values, range(len(names)), label=label, **style)
        in_percent(axes, along="x")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handletextpad=0.2, columnspacing=1.0)
    above.axvline(data["area"], color="#999999", linewidth=1.0)
    above.set_xlabel("saliency in the centre; line: its share of the area")
    below.set_xlabel("robust accuracy")
    return figure


ATTENTION = Study(
    name="attention",
    about="saliency in the centre of images, and the train-test robust gap",
    measure=measure,
    sentences=sentences,
    draw=draw,
)
