"""The loss around images: its landscape, and how well gradients nearby agree."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.analyse.figures import key, look, panels, rows_of, whole_numbers
from uiat.analyse.prose import joined
from uiat.analyse.studies.landscape import FALL, LOW
from uiat.analyse.study import BATCH, Context, Data, Study, kept_weights
from uiat.attacks.gradient import input_gradient
from uiat.attacks.random_numbers import keys
from uiat.models.inspect import device_of
from uiat.models.modes import frozen
from uiat.objectives.grad_align import alignment
from uiat.threat import Threat
from uiat.training.validation import ALIGNED


def measure_alignment(context: Context) -> Data:
    """Cosine of the gradients at x and at a random point of the ball (GradAlign: Andriushchenko & Flammarion 2020).

    By epoch, on held-out images, where training has recorded it (single-step runs, see `uiat.training.validation`);
    and of the weights that say their epoch, best and last, on test images.
    """
    found = {}
    for subject in context.subjects:
        rows = []
        for epoch, names in sorted(kept_weights(subject).items()):
            model = context.model(subject, names[0])
            x, y = context.images(subject)
            cosine = cosines(model, x, y, context.ball, seed=context.asked.seed)
            deviation = cosine.std(unbiased=True).item() if len(cosine) > 1 else 0.0
            rows.append({"epoch": epoch + 1, "weights": names, "mean": cosine.mean().item(), "deviation": deviation})
        history = context.history(subject)
        recorded = [[row["epoch"] + 1, row["alignment"]] for row in history if row.get("alignment") is not None]
        found[subject.label] = {"n": len(x), "weights": rows, "recorded": recorded, "ended": history[-1]["epoch"] + 1}
        context.told(f"{subject.label}: cosine {rows[-1]['mean']:.3f}")
    return {"runs": found, "recorded_on": ALIGNED}


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of each image's loss with respect to the image, on the CPU.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> gradients(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
        torch.Size([3, 1, 2, 2])
    """
    device, found = device_of(model), []
    with frozen(model):
        for images, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            target = labels.to(device)

            def loss(at: Tensor, target: Tensor = target) -> tuple[Tensor, Tensor]:
                values = model(at)
                return losses.cross_entropy(values, target), values

            found.append(input_gradient(loss, images.to(device)).gradient.cpu())
    return torch.cat(found)


def cosines(model: nn.Module, x: Tensor, y: Tensor, ball: Threat, *, seed: int) -> Tensor:
    """`uiat.objectives.grad_align` of any number of images, each with random numbers of its own.

    Example:
        >>> from uiat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))  # its gradient has the same direction everywhere
        >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
        >>> cosines(model, x, y, Linf(0.1), seed=0)
        tensor([1.0000, 1.0000])
    """
    device, found = device_of(model), []
    for part in torch.arange(len(x)).split(BATCH):
        images, labels, key = (value.to(device) for value in (x[part], y[part], keys(seed, part)))
        found.append(alignment(model, images, labels, ball, key=key))
    return torch.cat(found)


def say_alignment(data: Data) -> list[str]:
    """The mean cosine of each run, the best aligned first, and how it moves between epochs."""
    found = []
    order = sorted(data["runs"].items(), key=lambda item: -item[1]["weights"][-1]["mean"])
    for name, run in order:
        parts = [_say_weights(row, run["n"]) for row in run["weights"]]
        found.append(f"{name}: mean cosine {joined(parts)} over {run['n']} test images{_say_recorded(run)}.")
    low = [name for name, run in order if run["weights"][-1]["mean"] < LOW]
    if low:
        found.append(
            f"Below {LOW} at the end, as {joined(low)} {'is' if len(low) == 1 else 'are'}, one gradient step says "
            "little about the ball: catastrophic overfitting of single-step training shows so."
        )
    unknown = [name for name, run in order if not run["recorded"]]
    if unknown:
        found.append(
            f"Of {joined(unknown)} no other epoch is known: metrics.jsonl has the cosine by epoch where a single-step "
            "run was trained with this version."
        )
    return found


def _say_weights(row: Data, n: int) -> str:
    error = row["deviation"] / n**0.5
    return f"{row['mean']:.3f} ± {error:.3f} at epoch {row['epoch']} ({joined(row['weights'])})"


def _say_recorded(run: Data) -> str:
    """The extremes, and the largest step down: a collapse is one, whatever the weights that were kept."""
    rows = run["recorded"]
    if not rows:
        return ""
    highest, lowest = max(rows, key=lambda row: row[1]), min(rows, key=lambda row: row[1])
    text = f"; by epoch, on held-out images, between {highest[1]:.3f} (epoch {highest[0]}) and {lowest[1]:.3f} "
    text += f"(epoch {lowest[0]})"
    falls = [(before[1] - after[1], before, after) for before, after in itertools.pairwise(rows)]
    fall, before, after = max(falls, default=(0.0, rows[0], rows[0]), key=lambda one: one[0])
    if fall > FALL:
        text += f", with a fall from {before[1]:.3f} to {after[1]:.3f} from epoch {before[0]} to {after[0]}"
    return text


def draw_alignment(data: Data) -> Any:
    """Lines through the epochs that were recorded, and marks for the weights; without any of the former, rows of marks.

    A mark stands at its own epoch and is joined to no other: what happened between them is not known.
    """
    if not any(run["recorded"] for run in data["runs"].values()):
        return _rows_of_weights(data)
    figure, (axes,) = panels(3.9)
    for i, (name, run) in enumerate(data["runs"].items()):
        rows, style = run["weights"], look(i)
        if run["recorded"]:
            axes.plot(*zip(*run["recorded"], strict=True), **(style | {"marker": "none"}))
        marks = style | {"linestyle": "none", "markerfacecolor": "none", "markersize": 7}
        bars = _bars(run)
        axes.errorbar([r["epoch"] for r in rows], [r["mean"] for r in rows], yerr=bars, label=name, **marks)
    about = "lines: by epoch, on held-out images\nmarks: best and last weights, on test images"
    axes.set_title(about, color="#444444", fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(run["ended"] for run in data["runs"].values()) + 0.5)
    whole_numbers(axes)
    axes.set_ylabel("cosine of gradients")
    key(figure, axes)
    return figure


def _bars(run: Data) -> list[float]:
    return [row["deviation"] / run["n"] ** 0.5 for row in run["weights"]]


def _rows_of_weights(data: Data) -> Any:
    """A row a run: runs that have only weights of the same epoch would hide each other on an axis of epochs."""
    figure, (axes,) = panels(1.3 + 0.45 * len(data["runs"]))
    for i, run in enumerate(data["runs"].values()):
        for row, bar in zip(run["weights"], _bars(run), strict=True):
            axes.errorbar(row["mean"], i, xerr=bar, **(look(i) | {"linestyle": "none", "markersize": 7}))
            axes.annotate(
                f"epoch {row['epoch']}",
                (row["mean"], i),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color="#444444",
            )
    rows_of(axes, list(data["runs"]))
    axes.margins(x=0.12)
    axes.set_xlabel("cosine of gradients")
    axes.set_title("best and last weights; bars: standard error", color="#444444", fontsize=10)
    return figure


ALIGNMENT = Study(
    name="alignment",
    about="cosine of input gradients at an image and nearby, by epoch",
    measure=measure_alignment,
    sentences=say_alignment,
    draw=draw_alignment,
)
