"""Study: robust overfitting, as weights of two epochs under one attack, and as metrics of training by epoch."""

from typing import Any

from torch import Tensor

from uiat.analyse.figures import (
    format_percent,
    is_wide,
    line_style,
    make_parts,
    mark_size,
    style_runs,
    tick_whole_numbers,
)
from uiat.analyse.fitting import draw_legend, draw_legend_over, label_rows, rows_height
from uiat.analyse.marks import draw_line, span
from uiat.analyse.measurements import correct_by_split
from uiat.analyse.prose import accuracy_gap, difference_with_error, percent, standard_error
from uiat.analyse.study import Context, Data, Split, Study, StudyRun, kept_weights
from uiat.attacks import PGD
from uiat.errors import UserError
from uiat.evaluation import attack


def measure(context: Context) -> Data:
    """Attack best and last weights alike, on equally many training and held-out images; and read training's own curves.

    Robust overfitting, which UIAT (CVPR 2023) says is milder under it, is the fall from the best to the last. The
    attack is the PGD of validation, with the most steps that a run has, whatever the run was trained under, and
    training images are not augmented. Held-out images are those that chose the best epoch, so the best is a little
    flattered; test images are not used. By epoch, as metrics.jsonl has it: training batches as the method attacked
    them, which compares with nothing else, and held-out images under PGD.
    """
    name = f"pgd-{max(run.config.validation.steps for run in context.runs)}"
    pgd = attack(name, threat=context.threat)
    assert isinstance(pgd, PGD)
    results: Data = {}
    for run in context.runs:
        results[run.label] = _read_epochs(context, run) | _measure_weights(context, run, pgd)
        held_out = results[run.label]["weights"][-1]["held-out"]
        context.on_progress(f"{run.label}: held-out {percent(held_out)} at the end")
    return {"runs": results, "attack": name}


def _read_epochs(context: Context, run: StudyRun) -> Data:
    rows = context.read_history(run)
    validated = [row for row in rows if row.get("robust") is not None]
    if not validated:
        raise UserError(f"{run.folder} was validated without an attack: its metrics have no robust accuracy")
    best = max(validated, key=lambda row: float(row["robust"]))
    return {
        "epochs": [row["epoch"] + 1 for row in rows],
        "train_by_epoch": [row.get("train_correct") for row in rows],
        "held_out_by_epoch": [row.get("robust") for row in rows],
        "best_by_epoch": [best["epoch"] + 1, best["robust"]],
        "held_out": context.count_images(run, "held-out"),
    }


def _measure_weights(context: Context, run: StudyRun, pgd: PGD) -> Data:
    """Measure the kept weights, the earliest first, and how the last differ, image by image, from the first."""
    rows: list[Data] = []
    correct: list[dict[Split, Tensor]] = []
    splits: tuple[Split, Split] = ("train", "held-out")
    for epoch, names in sorted(kept_weights(run).items()):
        masks = correct_by_split(context, run, pgd, splits, which=names[0])
        correct.append(masks)
        accuracies = {str(split): mask.double().mean().item() for split, mask in masks.items()}
        rows.append({"epoch": epoch + 1, "weights": names, **accuracies})
    n = len(correct[0]["train"])
    changes = {split: (correct[-1][split].double() - correct[0][split].double()) for split in splits}
    return {
        "n": n,
        "weights": rows,
        "changes": {
            split: {"mean": by.mean().item(), "error": by.std(unbiased=False).item() / n**0.5}
            for split, by in changes.items()
        },
    }


def sentences(data: Data) -> list[str]:
    """Say what the train-held-out gap of each run is, and what came after the best; the mildest first."""
    said = [f"Under {data['attack']}, the same for all runs and for training and held-out images:"]
    for name, run in sorted(data["runs"].items(), key=lambda item: -item[1]["changes"]["held-out"]["mean"]):
        parts = [
            f"{' and '.join(row['weights'])} weights (epoch {row['epoch']}) {percent(row['train'])} on training and "
            f"{percent(row['held-out'])} on held-out images, a gap of "
            f"{accuracy_gap(row['train'], row['held-out'], run['n'])}"
            for row in run["weights"]
        ]
        text = f"{name}: {'; '.join(parts)}"
        if len(run["weights"]) > 1:
            change = run["changes"]["held-out"]
            text += f"; from best to last, held-out {difference_with_error(change['mean'], change['error'])}"
        said.append(f"{text}.")
    said.append(
        "± is one standard error. The curves by epoch are those of training, where each method attacks its batches in "
        "its own way: those of training batches do not compare between methods, nor with those of held-out images."
    )
    return said


def draw(data: Data) -> Any:
    """Draw what compares on top, a row a run; below, by epoch, training batches and held-out images on one scale."""
    rows = 1.2 + rows_height(list(data["runs"]), 0.5)
    figure, (top, bottom) = make_parts(rows, 2.8 if is_wide() else 5.0)
    _draw_weights(top.subplots(), data)
    shape = (1, 2) if is_wide() else (2, 1)
    above, below = bottom.subplots(*shape, sharex=True, sharey=True)
    for (name, run), look in zip(data["runs"].items(), style_runs(data, data["runs"]), strict=True):
        style = look | {"marker": "none"}
        for axes, values in ((above, run["train_by_epoch"]), (below, run["held_out_by_epoch"])):
            pairs = [(e, v) for e, v in zip(run["epochs"], values, strict=True) if v is not None]
            n = run.get("held_out") if axes is below else None  # training batches are of a model that changes
            draw_line(axes, [e for e, _ in pairs], [span([v], n) for _, v in pairs], label=name, **style)
        below.plot(*run["best_by_epoch"], color=look["color"], marker=look["marker"], markersize=mark_size(1.4))
    above.set_title("training batches, each method's own attack")
    below.set_title("held-out images under PGD; marks: best epoch; bands: 95 %")
    below.set_ylim(bottom=0)
    for axes in (above, below) if is_wide() else (below,):
        axes.set_xlabel("epoch")
    tick_whole_numbers(below)
    for axes in (above, below):
        axes.set_ylabel("accuracy")
        format_percent(axes)
    draw_legend(figure, below)
    return figure


def _draw_weights(axes: Any, data: Data) -> None:
    """Draw training and held-out accuracy of best weights (hollow) and last ones (filled), with standard errors."""
    names = list(data["runs"])
    label_rows(axes, names)
    for i, run in enumerate(data["runs"].values()):
        for row in run["weights"]:
            last = "last" in row["weights"]
            at = i + (0.16 if last else -0.16) * (len(run["weights"]) > 1)
            for j, split in enumerate(("train", "held-out")):
                fill = {} if last else {"markerfacecolor": "white"}
                style = line_style(j) | {"linestyle": "none"} | fill
                label = split if i == 0 and last else None
                bar = standard_error(row[split], run["n"])
                axes.errorbar(row[split], at + 0.06 * (2 * j - 1), xerr=bar, label=label, **style)
    axes.set_xlim(left=-0.01)
    axes.set_xlabel(f"accuracy under {data['attack']}; hollow: best, filled: last")
    draw_legend_over(axes)
    format_percent(axes, along="x")


STUDY = Study(
    name="overfitting",
    about="best and last weights on training and held-out images under one attack, and accuracy by epoch",
    measure=measure,
    sentences=sentences,
    draw=draw,
    reads=("n", "seed", "threat"),
)
