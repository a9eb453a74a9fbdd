"""Study: where an attack takes the predictions of images that a model gets wrong as they are (the motivation)."""

from typing import Any

import torch
from torch import Tensor

from uiat import losses
from uiat.analyse.figures import figure_width, format_percent, make_panels, text_size
from uiat.analyse.fitting import draw_legend, fold
from uiat.analyse.measurements import compute_logits, craft
from uiat.analyse.prose import percent
from uiat.analyse.study import Context, Data, Study
from uiat.intervals import wilson

FEW = 30  # images, below which a fraction says little


def measure(context: Context) -> Data:
    """Measure where adversarial and inverse predictions go, on images with a wrong natural prediction w.

    A method that ties the adversarial prediction to the natural one (TRADES) ties it to w on these images; UIAT ties it
    to the inverse prediction (CVPR 2023). For each run: the mean probability of w and of the true class y, as they are,
    under attack, and on inverse examples at half the radius; the fraction of predictions equal to w and to y; and the
    pull, the mean of p(w) / (p(w) + p(y)): 1 is wholly to w, 0 wholly to y.
    """
    results: Data = {}
    wrong_in: dict[str, Tensor] = {}
    pulls: dict[str, Tensor] = {}
    attacks = {"adversarial": context.make_attack(), "inverse": context.make_attack(scale=0.5, descend=True)}
    for run in context.runs:
        model = context.load_model(run)
        x, y = context.load_images(run)
        natural = compute_logits(model, x)
        wrong = natural.argmax(dim=1) != y
        result: Data = {"n": len(x), "misclassified": int(wrong.sum())}
        w, target = natural.argmax(dim=1)[wrong], y[wrong]
        logits = {"natural": natural[wrong]}
        for kind, attack in attacks.items():
            logits[kind] = (
                compute_logits(model, craft(model, x[wrong], target, attack, seed=context.options.seed))
                if len(w)
                else natural[wrong]
            )
        for kind, values in logits.items():
            result[kind] = summarise_predictions(values, w, target)
        all_pulls = torch.full((len(x),), float("nan"))
        all_pulls[wrong] = pull(logits["adversarial"], w, target)
        wrong_in[run.label], pulls[run.label] = wrong, all_pulls
        results[run.label] = result
        context.on_progress(f"{run.label}: {result['misclassified']} of {len(x)} wrong as they are")
    return {"runs": results, "common": _pull_in_common(context, wrong_in, pulls)}


def pull(logits: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """Compute p(w) / (p(w) + p(y)) of each image from logits: 1 where only the wrong class is left of the two.

    Example:
        >>> pull(torch.tensor([[0.0, 0.0], [0.0, 99.0]]), torch.tensor([1, 1]), torch.tensor([0, 0])).tolist()
        [0.5, 1.0]
    """
    gap = logits.gather(1, w[:, None]) - logits.gather(1, y[:, None])
    return gap.squeeze(1).sigmoid()


def summarise_predictions(logits: Tensor, w: Tensor, y: Tensor) -> Data:
    """Average over images: probability of w and y, predictions equal to them, and the pull; None without images.

    Example:
        >>> summarise_predictions(torch.tensor([[0.0, 99.0]]), torch.tensor([1]), torch.tensor([0]))["is_wrong"]
        1.0
    """
    if len(logits) == 0:
        return dict.fromkeys(("p_wrong", "p_true", "is_wrong", "is_true", "pull"))
    p, predicted = losses.log_probabilities(logits).exp(), logits.argmax(dim=1)
    rows = {
        "p_wrong": p.gather(1, w[:, None]),
        "p_true": p.gather(1, y[:, None]),
        "is_wrong": predicted == w,
        "is_true": predicted == y,
        "pull": pull(logits, w, y),
    }
    return {name: value.double().mean().item() for name, value in rows.items()}


def _pull_in_common(context: Context, wrong_in: dict[str, Tensor], pulls: dict[str, Tensor]) -> Data | None:
    """Average the pull over images that every run gets wrong; None unless all runs have seen the same images."""
    same = len({run.config.data.name for run in context.runs}) == 1 and len({len(w) for w in wrong_in.values()}) == 1
    if len(wrong_in) < 2 or not same:
        return None
    shared = torch.stack(list(wrong_in.values())).all(dim=0)
    count = int(shared.sum())
    means = {name: values[shared].double().mean().item() for name, values in pulls.items()} if count else {}
    return {"n": count, "pull": means}


def sentences(data: Data) -> list[str]:
    """Say where each run's predictions go, the least pulled first, and how far the numbers can be believed."""
    said = []
    runs = {name: run for name, run in data["runs"].items() if run["misclassified"]}
    for name in data["runs"].keys() - runs.keys():
        said.append(f"{name} gets every image right, so there is nothing to see of it here.")
    for name, run in sorted(runs.items(), key=lambda item: item[1]["adversarial"]["pull"]):
        adv, inv, count = run["adversarial"], run["inverse"], run["misclassified"]
        low, high = (percent(edge) for edge in wilson(round(adv["is_wrong"] * count), count))
        said.append(
            f"{name}: {count} of {run['n']} images are wrong as they are; under attack {percent(adv['is_wrong'])} of "
            f"them keep that wrong prediction (95 % interval {low} to {high}), with a mean probability of "
            f"{adv['p_wrong']:.2f} for it and {adv['p_true']:.2f} for the true class, a pull of {adv['pull']:.2f} to "
            f"the wrong one ({run['natural']['pull']:.2f} before the attack). On inverse examples "
            f"{percent(inv['is_true'])} are predicted right and {percent(inv['is_wrong'])} keep the wrong prediction."
        )
    common = data["common"]
    if common and common["n"]:
        pulls = ", ".join(f"{name} {value:.2f}" for name, value in sorted(common["pull"].items(), key=lambda i: i[1]))
        said.append(f"On the {common['n']} images that all runs get wrong, the pull is: {pulls}.")
    if runs and min(run["misclassified"] for run in runs.values()) < FEW:
        said.append(f"Runs with fewer than {FEW} misclassified images say little.")
    return said


def table(data: Data) -> list[list[str]]:
    """Make a row of each run and kind of image."""
    heading = ["run", "images", "wrong", "p(wrong)", "p(true)", "= wrong, %", "= true, %", "pull"]
    rows = []
    for name, run in data["runs"].items():
        for kind in ("natural", "adversarial", "inverse"):
            if run[kind]["pull"] is not None:
                values = run[kind]
                numbers = [f"{values['p_wrong']:.2f}", f"{values['p_true']:.2f}"]
                numbers += [
                    f"{100 * values['is_wrong']:.0f}",
                    f"{100 * values['is_true']:.0f}",
                    f"{values['pull']:.2f}",
                ]
                rows.append([name, kind, str(run["misclassified"]), *numbers])
    return [heading, *rows]


def draw(data: Data) -> Any:
    """Draw, for each run and kind of image, predictions to the wrong class, to the true one, and elsewhere."""
    runs = {name: run for name, run in data["runs"].items() if run["misclassified"]}
    kinds = ("natural", "adversarial", "inverse")
    figure, (axes,) = make_panels(1.1 + 0.85 * max(len(runs), 1))
    labels = []
    for i, (name, run) in enumerate(runs.items()):
        for j, kind in enumerate(kinds):
            wrong, true = run[kind]["is_wrong"], run[kind]["is_true"]
            parts = ((wrong, "#D55E00", "", "wrong natural class"), (true, "#0072B2", "///", "true class"))
            left = 0.0
            for fraction, colour, hatch, what in (*parts, (max(0.0, 1 - wrong - true), "#CCCCCC", "", "another class")):
                label = what if i == j == 0 else None
                axes.barh(4 * i + j, fraction, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
                left += fraction
            labels.append((4 * i + j, kind))
        label = fold(f"{name} ({run['misclassified']} images)", 0.7 * figure_width(), size=text_size(), lines=1)
        axes.text(0.0, 4 * i - 0.6, label, ha="left", va="bottom", fontsize=text_size())
    axes.grid(visible=False, axis="y")
    axes.set_yticks([at for at, _ in labels], [kind for _, kind in labels])
    axes.set_ylim(4 * max(len(runs), 1) - 1.0, -1.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("predictions on images that are wrong as they are")
    format_percent(axes, along="x")
    draw_legend(figure, axes)
    return figure


STUDY = Study(
    name="misaligned",
    about="where the predictions of misclassified images go under attack",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
)
