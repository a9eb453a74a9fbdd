"""What the epochs of runs say: robust overfitting."""

from typing import Any

from uiat.analyse.study import Context, Data, Study
from uiat.analyse.style import in_percent, look, panels
from uiat.analyse.words import percent, points
from uiat.errors import UserError


def measure(context: Context) -> Data:
    """Accuracy on training batches as they were attacked and on held-out images under PGD, by epoch (UIAT).

    Held-out images are those that chose the best epoch, so the best is a little flattered; test images are not used.
    """
    found: dict[str, Any] = {}
    for subject in context.subjects:
        rows = context.history(subject)
        judged = [row for row in rows if row.get("robust") is not None]
        if not judged:
            raise UserError(f"{subject.folder} was validated without an attack: its metrics have no robust accuracy")
        best = max(judged, key=lambda row: float(row["robust"]))
        last = judged[-1]
        _, y = context.images(subject, "held-out")
        found[subject.label] = {
            "n": len(y),
            "method": subject.run.objective.name,
            "epochs": [row["epoch"] + 1 for row in rows],
            "train": [row.get("train_correct") for row in rows],
            "held_out": [row.get("robust") for row in rows],
            "best_epoch": best["epoch"] + 1,
            "best": best["robust"],
            "last": last["robust"],
            "best_to_last": best["robust"] - last["robust"],
            "train_to_held_out": None if last.get("train_correct") is None else last["train_correct"] - last["robust"],
        }
    steps = sorted({subject.run.validation.steps for subject in context.subjects})
    return {"runs": found, "attack": " and ".join(f"pgd-{count}" for count in steps)}


def sentences(data: Data) -> list[str]:
    """Best against last, and training against held-out, of each run; the mildest first."""
    found = []
    for name, run in sorted(data["runs"].items(), key=lambda item: item[1]["best_to_last"]):
        text = (
            f"{name}: robust accuracy on held-out images is {percent(run['best'])} at best (epoch {run['best_epoch']} "
            f"of {run['epochs'][-1]}) and {percent(run['last'])} at the end, {points(-run['best_to_last'])}"
        )
        gap = run["train_to_held_out"]
        seen = "training images as they are" if run["method"] == "standard" else "attacked training images"
        found.append(f"{text}; {seen} are then ahead of it by {points(gap)}." if gap is not None else f"{text}.")
    least = min(run["n"] for run in data["runs"].values())
    typical = max(run["best"] for run in data["runs"].values())
    error = (typical * (1 - typical) / max(least, 1)) ** 0.5
    found.append(f"With {least} held-out images one standard error is {100 * error:.1f} points.")
    return found


def draw(data: Data) -> Any:
    """Two panels with the same scale: training above, held-out below, the best epoch marked."""
    figure, (above, below) = panels(2.3, 2.7)
    for i, (name, run) in enumerate(data["runs"].items()):
        style = look(i) | {"marker": "none"}
        for axes, values in ((above, run["train"]), (below, run["held_out"])):
            pairs = [(e, v) for e, v in zip(run["epochs"], values, strict=True) if v is not None]
            axes.plot(*zip(*pairs, strict=True), label=name, **style)
        below.plot(run["best_epoch"], run["best"], color=look(i)["color"], marker=look(i)["marker"], markersize=7)
    above.set_title("training batches, as the method attacked them")
    below.set_title("held-out images under PGD; marks: the best epoch")
    below.set_xlabel("epoch")
    for axes in (above, below):
        axes.set_ylabel("accuracy")
        axes.set_ylim(-0.02, 1.02)
        in_percent(axes)
    handles, labels = below.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3 if max(map(len, labels)) < 13 else 2)
    return figure


OVERFITTING = Study(
    name="overfitting",
    about="training and held-out robust accuracy by epoch",
    measure=measure,
    sentences=sentences,
    draw=draw,
)
