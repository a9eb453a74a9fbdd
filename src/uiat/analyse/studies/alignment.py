"""Study: how well input gradients agree at an image and nearby, by epoch."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from uiat.analyse.figures import make_panels, mark_size, style_runs, text_size, tick_whole_numbers
from uiat.analyse.fitting import draw_legend, label_rows, rows_height
from uiat.analyse.measurements import BATCH
from uiat.analyse.prose import join_words
from uiat.analyse.study import Context, Data, Study, kept_weights
from uiat.attacks.random_numbers import keys
from uiat.models.inspect import device_of
from uiat.objectives.grad_align import alignment
from uiat.threat import Threat
from uiat.training.validation import ALIGNED

LOW = 0.3  # a cosine below which one gradient says little about the ball
FALL = 0.2  # a fall from one epoch to the next that is worth mentioning


def measure(context: Context) -> Data:
    """Measure the cosine of the gradients at x and at a random point of the ball (GradAlign; Andriushchenko 2020).

    By epoch, on held-out images, where training has recorded it (single-step runs, see `uiat.training.validation`);
    and of the weights that say their epoch, best and last, on test images.
    """
    results = {}
    for run in context.runs:
        rows = []
        for epoch, names in sorted(kept_weights(run).items()):
            model = context.load_model(run, names[0])
            x, y = context.load_images(run)
            cosine = cosines(model, x, y, context.threat, seed=context.options.seed)
            deviation = cosine.std(unbiased=True).item() if len(cosine) > 1 else 0.0
            rows.append({"epoch": epoch + 1, "weights": names, "mean": cosine.mean().item(), "deviation": deviation})
        history = context.read_history(run)
        recorded = [[row["epoch"] + 1, row["alignment"]] for row in history if row.get("alignment") is not None]
        results[run.label] = {"n": len(x), "weights": rows, "recorded": recorded, "ended": history[-1]["epoch"] + 1}
        context.on_progress(f"{run.label}: cosine {rows[-1]['mean']:.3f}")
    return {"runs": results, "recorded_on": ALIGNED}


def cosines(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, seed: int) -> Tensor:
    """Compute `uiat.objectives.grad_align.alignment` of any number of images, each with random numbers of its own.

    Example:
        >>> from uiat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))  # its gradient has the same direction everywhere
        >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
        >>> cosines(model, x, y, Linf(0.1), seed=0)
        tensor([1.0000, 1.0000])
    """
    device, values = device_of(model), []
    for part in torch.arange(len(x)).split(BATCH):
        images, labels, key = (value.to(device) for value in (x[part], y[part], keys(seed, part)))
        values.append(alignment(model, images, labels, threat, key=key))
    return torch.cat(values)


def sentences(data: Data) -> list[str]:
    """Say what the mean cosine of each run is, the best aligned first, and how it moves between epochs."""
    said = []
    order = sorted(data["runs"].items(), key=lambda item: -item[1]["weights"][-1]["mean"])
    for name, run in order:
        parts = [_say_weights(row, run["n"]) for row in run["weights"]]
        said.append(f"{name}: mean cosine {join_words(parts)} over {run['n']} test images{_say_recorded(run)}.")
    low = [name for name, run in order if run["weights"][-1]["mean"] < LOW]
    if low:
        said.append(
            f"Below {LOW} at the end, as {join_words(low)} {'is' if len(low) == 1 else 'are'}, one gradient step says "
            "little about the ball: catastrophic overfitting of single-step training shows so."
        )
    unknown = [name for name, run in order if not run["recorded"]]
    if unknown:
        said.append(
            f"Of {join_words(unknown)} no other epoch is known: metrics.jsonl has the cosine by epoch where a "
            "single-step run was trained with this version."
        )
    return said


def _say_weights(row: Data, n: int) -> str:
    error = row["deviation"] / n**0.5
    return f"{row['mean']:.3f} ± {error:.3f} at epoch {row['epoch']} ({join_words(row['weights'])})"


def _say_recorded(run: Data) -> str:
    """Say what the extremes are, and the largest fall: a collapse shows, whichever weights were kept."""
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


def draw(data: Data) -> Any:
    """Draw lines through the recorded epochs and marks for the weights; or rows of marks, if no epoch is recorded.

    A mark stands at its own epoch and is joined to no other: what happened between them is not known.
    """
    if not any(run["recorded"] for run in data["runs"].values()):
        return _draw_weights_alone(data)
    figure, (axes,) = make_panels(3.9)
    for (name, run), style in zip(data["runs"].items(), style_runs(data, data["runs"]), strict=True):
        rows = run["weights"]
        if run["recorded"]:
            axes.plot(*zip(*run["recorded"], strict=True), **(style | {"marker": "none"}))
        marks = style | {"linestyle": "none", "markerfacecolor": "none", "markersize": mark_size(1.4)}
        bars = _standard_errors(run)
        axes.errorbar([r["epoch"] for r in rows], [r["mean"] for r in rows], yerr=bars, label=name, **marks)
    about = "lines: by epoch, on held-out images\nmarks: best and last weights, on test images"
    axes.set_title(about, color="#444444", fontsize=text_size())
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(run["ended"] for run in data["runs"].values()) + 0.5)
    tick_whole_numbers(axes)
    axes.set_ylabel("cosine of gradients")
    draw_legend(figure, axes)
    return figure


def _standard_errors(run: Data) -> list[float]:
    return [row["deviation"] / run["n"] ** 0.5 for row in run["weights"]]


def _draw_weights_alone(data: Data) -> Any:
    """Draw a row a run: runs that have only weights of the same epoch would hide each other on an axis of epochs."""
    figure, (axes,) = make_panels(1.3 + rows_height(list(data["runs"]), 0.45))
    styles = style_runs(data, data["runs"])
    for i, run in enumerate(data["runs"].values()):
        for j, (row, bar) in enumerate(zip(run["weights"], _standard_errors(run), strict=True)):
            axes.errorbar(row["mean"], i, xerr=bar, **(styles[i] | {"linestyle": "none", "markersize": mark_size(1.4)}))
            axes.annotate(
                f"epoch {row['epoch']}",
                (row["mean"], i),
                xytext=(0, -5 if j else 5),  # above and below: two epochs may lie close together
                textcoords="offset points",
                ha="center",
                va="top" if j else "bottom",
                fontsize=text_size("least"),
                color="#444444",
            )
    label_rows(axes, list(data["runs"]))
    axes.margins(x=0.12)
    axes.set_xlabel("cosine of gradients")
    axes.set_title("best and last weights; bars: standard error", color="#444444", fontsize=text_size())
    return figure


STUDY = Study(
    name="alignment",
    about="cosine of input gradients at an image and nearby, by epoch",
    measure=measure,
    sentences=sentences,
    draw=draw,
    reads=("n", "seed", "threat"),
)
