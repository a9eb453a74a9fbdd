"""Robust overfitting: weights of two epochs under one attack, and what the epochs of training said of themselves."""

from typing import Any

from torch import Tensor

from uiat.analyse.figures import in_percent, key, look, rows_of, stacked, whole_numbers
from uiat.analyse.prose import against_chance, percent, share_error
from uiat.analyse.study import Context, Data, Split, Study, StudyRun, kept_weights
from uiat.attacks import PGD
from uiat.errors import UserError
from uiat.evaluation import attack
from uiat.evaluation.engine.stage import correct_under
from uiat.runs.checkpoint import Which


def measure(context: Context) -> Data:
    """Best and last weights under one attack, on equally many training and held-out images; and training's own curves.

    Robust overfitting, which UIAT (CVPR 2023) says is milder under it, is the fall from the best to the last. The
    attack is the PGD of validation, with the most steps that a run has, whatever the run was trained under, and
    training images are not augmented. Held-out images are those that chose the best epoch, so the best is a little
    flattered; test images are not used. By epoch, as metrics.jsonl has it: training batches as the method attacked
    them, which compares with nothing else, and held-out images under PGD.
    """
    name = f"pgd-{max(subject.run.validation.steps for subject in context.subjects)}"
    settings = attack(name, threat=context.ball)
    assert isinstance(settings, PGD)
    found: dict[str, Any] = {}
    for subject in context.subjects:
        found[subject.label] = _by_epoch(context, subject) | _weights(context, subject, settings)
        context.told(f"{subject.label}: held-out {percent(found[subject.label]['weights'][-1]['held-out'])} at the end")
    return {"runs": found, "attack": name}


def _by_epoch(context: Context, subject: StudyRun) -> Data:
    rows = context.history(subject)
    judged = [row for row in rows if row.get("robust") is not None]
    if not judged:
        raise UserError(f"{subject.folder} was validated without an attack: its metrics have no robust accuracy")
    best = max(judged, key=lambda row: float(row["robust"]))
    return {
        "epochs": [row["epoch"] + 1 for row in rows],
        "train_by_epoch": [row.get("train_correct") for row in rows],
        "held_out_by_epoch": [row.get("robust") for row in rows],
        "best_by_epoch": [best["epoch"] + 1, best["robust"]],
    }


def _weights(context: Context, subject: StudyRun, settings: PGD) -> Data:
    """Accuracy of the kept weights, the earliest first, and how the last differ, image by image, from the first."""
    rows: list[Data] = []
    verdicts: list[dict[Split, Tensor]] = []
    splits: tuple[Split, Split] = ("train", "held-out")
    for epoch, names in sorted(kept_weights(subject).items()):
        right = standing(context, subject, settings, splits, which=names[0])
        verdicts.append(right)
        shares = {str(split): verdict.double().mean().item() for split, verdict in right.items()}
        rows.append({"epoch": epoch + 1, "weights": names, **shares})
    n = len(verdicts[0]["train"])
    changes = {split: (verdicts[-1][split].double() - verdicts[0][split].double()) for split in splits}
    return {
        "n": n,
        "weights": rows,
        "changes": {
            split: {"mean": by.mean().item(), "error": by.std(unbiased=False).item() / n**0.5}
            for split, by in changes.items()
        },
    }


def standing(
    context: Context, subject: StudyRun, settings: PGD, splits: tuple[Split, Split], *, which: Which | None = None
) -> dict[Split, Tensor]:
    """Which of equally many images of two splits a run's model gets right under an attack."""
    model = context.model(subject, which)
    images = {split: context.images(subject, split) for split in splits}
    count = min(len(y) for _, y in images.values())
    context.sizes |= dict.fromkeys(splits, count)
    return {
        split: correct_under(model, x[:count], y[:count], settings, seed=context.asked.seed)
        for split, (x, y) in images.items()
    }


def gap(train: float, other: float, n: int) -> str:
    """The difference of accuracies on two sets of n images, with its standard error.

    Example:
        >>> gap(0.5, 0.4, 1000)
        '+10.0 ± 2.2 points'
    """
    return against_chance(train - other, (share_error(train, n) ** 2 + share_error(other, n) ** 2) ** 0.5)


def sentences(data: Data) -> list[str]:
    """The train-held-out gap of the weights of each run, and what came after the best; the mildest first."""
    found = [f"Under {data['attack']}, the same for all runs and for training and held-out images:"]
    for name, run in sorted(data["runs"].items(), key=lambda item: -item[1]["changes"]["held-out"]["mean"]):
        parts = [
            f"{' and '.join(row['weights'])} weights (epoch {row['epoch']}) {percent(row['train'])} on training and "
            f"{percent(row['held-out'])} on held-out images, a gap of {gap(row['train'], row['held-out'], run['n'])}"
            for row in run["weights"]
        ]
        text = f"{name}: {'; '.join(parts)}"
        if len(run["weights"]) > 1:
            change = run["changes"]["held-out"]
            text += f"; from best to last, held-out {against_chance(change['mean'], change['error'])}"
        found.append(f"{text}.")
    found.append(
        "± is one standard error. The curves by epoch are those of training, where each method attacks its batches in "
        "its own way: those of training batches do not compare between methods, nor with those of held-out images."
    )
    return found


def draw(data: Data) -> Any:
    """What compares on top, a row a run; below, by epoch and with one scale, training batches and held-out images."""
    figure, (top, bottom) = stacked(1.2 + 0.5 * len(data["runs"]), 5.0)
    _draw_weights(top.subplots(), data)
    above, below = bottom.subplots(2, 1, sharex=True, sharey=True)
    for i, (name, run) in enumerate(data["runs"].items()):
        style = look(i) | {"marker": "none"}
        for axes, values in ((above, run["train_by_epoch"]), (below, run["held_out_by_epoch"])):
            pairs = [(e, v) for e, v in zip(run["epochs"], values, strict=True) if v is not None]
            axes.plot(*zip(*pairs, strict=True), label=name, **style)
        below.plot(*run["best_by_epoch"], color=look(i)["color"], marker=look(i)["marker"], markersize=7)
    above.set_title("training batches, each method's own attack")
    below.set_title("held-out images under PGD; marks: best epoch")
    below.set_xlabel("epoch")
    below.set_ylim(bottom=0)
    whole_numbers(below)
    for axes in (above, below):
        axes.set_ylabel("accuracy")
        in_percent(axes)
    key(bottom, below)
    return figure


def _draw_weights(axes: Any, data: Data) -> None:
    """Training and held-out accuracy of best weights (hollow) and last ones (filled), with standard errors."""
    names = list(data["runs"])
    rows_of(axes, names)
    for i, run in enumerate(data["runs"].values()):
        for row in run["weights"]:
            last = "last" in row["weights"]
            at = i + (0.16 if last else -0.16) * (len(run["weights"]) > 1)
            for j, split in enumerate(("train", "held-out")):
                style = look(j) | {"linestyle": "none", "markerfacecolor": look(j)["color"] if last else "white"}
                label = split if i == 0 and last else None
                bar = share_error(row[split], run["n"])
                axes.errorbar(row[split], at + 0.06 * (2 * j - 1), xerr=bar, label=label, **style)
    axes.set_xlim(left=-0.01)
    axes.set_xlabel(f"accuracy under {data['attack']}; hollow: best, filled: last")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, handletextpad=0.2)
    in_percent(axes, along="x")


OVERFITTING = Study(
    name="overfitting",
    about="best and last weights on training and held-out images under one attack, and accuracy by epoch",
    measure=measure,
    sentences=sentences,
    draw=draw,
)
