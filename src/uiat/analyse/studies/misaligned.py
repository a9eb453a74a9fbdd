"""Images that a model gets wrong as they are: where does an attack take its prediction (the paper's motivation)?"""

from typing import Any

import torch
from torch import Tensor

from uiat import losses
from uiat.analyse.figures import in_percent, panels
from uiat.analyse.prose import percent
from uiat.analyse.study import Context, Data, Study, compute_logits, craft
from uiat.evaluation.result import wilson

FEW = 30  # below so many images a share says little


def measure(context: Context) -> Data:
    """Of the images with a wrong natural prediction w, where the adversarial and the inverse prediction go.

    A method that ties the adversarial prediction to the natural one (TRADES) ties it to w on these images; UIAT ties it
    to the inverse prediction (CVPR 2023). For each run: the mean probability of w and of the true class y, as they are,
    under attack, and on inverse examples at half the radius; the share of predictions equal to w and to y; and the
    pull, the mean of p(w) / (p(w) + p(y)): 1 is wholly to w, 0 wholly to y.
    """
    found: dict[str, Any] = {}
    wrong_in: dict[str, Tensor] = {}
    pulls: dict[str, Tensor] = {}
    kinds = {"adversarial": context.settings(), "inverse": context.settings(step=0.5, descend=True)}
    for subject in context.subjects:
        model = context.model(subject)
        x, y = context.images(subject)
        natural = compute_logits(model, x)
        wrong = natural.argmax(dim=1) != y
        run: Data = {"n": len(x), "misclassified": int(wrong.sum())}
        w, target = natural.argmax(dim=1)[wrong], y[wrong]
        given = {"natural": natural[wrong]}
        for kind, settings in kinds.items():
            given[kind] = (
                compute_logits(model, craft(model, x[wrong], target, settings, seed=context.asked.seed))
                if len(w)
                else natural[wrong]
            )
        for kind, values in given.items():
            run[kind] = towards(values, w, target)
        all_pulls = torch.full((len(x),), float("nan"))
        all_pulls[wrong] = pull(given["adversarial"], w, target)
        wrong_in[subject.label], pulls[subject.label] = wrong, all_pulls
        found[subject.label] = run
        context.told(f"{subject.label}: {run['misclassified']} of {len(x)} wrong as they are")
    return {"runs": found, "common": _common(context, wrong_in, pulls)}


def pull(values: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """p(w) / (p(w) + p(y)) of each image, from logits: 1 where only the wrong class is left of the two.

    Example:
        >>> pull(torch.tensor([[0.0, 0.0], [0.0, 99.0]]), torch.tensor([1, 1]), torch.tensor([0, 0])).tolist()
        [0.5, 1.0]
    """
    gap = values.gather(1, w[:, None]) - values.gather(1, y[:, None])
    return gap.squeeze(1).sigmoid()


def towards(values: Tensor, w: Tensor, y: Tensor) -> Data:
    """Means over the images: probability of w and y, predictions equal to them, and the pull; None without images.

    Example:
        >>> towards(torch.tensor([[0.0, 99.0]]), torch.tensor([1]), torch.tensor([0]))["is_wrong"]
        1.0
    """
    if len(values) == 0:
        return dict.fromkeys(("p_wrong", "p_true", "is_wrong", "is_true", "pull"))
    p, predicted = losses.log_probabilities(values).exp(), values.argmax(dim=1)
    rows = {
        "p_wrong": p.gather(1, w[:, None]),
        "p_true": p.gather(1, y[:, None]),
        "is_wrong": predicted == w,
        "is_true": predicted == y,
        "pull": pull(values, w, y),
    }
    return {name: value.double().mean().item() for name, value in rows.items()}


def _common(context: Context, wrong_in: dict[str, Tensor], pulls: dict[str, Tensor]) -> Data | None:
    """The pull on the images that every run gets wrong, where all runs have seen the same images."""
    same = len({s.run.data.name for s in context.subjects}) == 1 and len({len(w) for w in wrong_in.values()}) == 1
    if len(wrong_in) < 2 or not same:
        return None
    shared = torch.stack(list(wrong_in.values())).all(dim=0)
    count = int(shared.sum())
    means = {name: values[shared].double().mean().item() for name, values in pulls.items()} if count else {}
    return {"n": count, "pull": means}


def sentences(data: Data) -> list[str]:
    """Where each run's predictions go, the least pulled first, and how far the numbers can be believed."""
    found = []
    runs = {name: run for name, run in data["runs"].items() if run["misclassified"]}
    for name in data["runs"].keys() - runs.keys():
        found.append(f"{name} gets every image right, so there is nothing to see of it here.")
    for name, run in sorted(runs.items(), key=lambda item: item[1]["adversarial"]["pull"]):
        adv, inv, count = run["adversarial"], run["inverse"], run["misclassified"]
        low, high = (percent(edge) for edge in wilson(round(adv["is_wrong"] * count), count))
        found.append(
            f"{name}: {count} of {run['n']} images are wrong as they are; under attack {percent(adv['is_wrong'])} of "
            f"them keep that wrong prediction (95 % interval {low} to {high}), with a mean probability of "
            f"{adv['p_wrong']:.2f} for it and {adv['p_true']:.2f} for the true class, a pull of {adv['pull']:.2f} to "
            f"the wrong one ({run['natural']['pull']:.2f} before the attack). On inverse examples "
            f"{percent(inv['is_true'])} are predicted right and {percent(inv['is_wrong'])} keep the wrong prediction."
        )
    common = data["common"]
    if common and common["n"]:
        pulls = ", ".join(f"{name} {value:.2f}" for name, value in sorted(common["pull"].items(), key=lambda i: i[1]))
        found.append(f"On the {common['n']} images that all runs get wrong, the pull is: {pulls}.")
    if runs and min(run["misclassified"] for run in runs.values()) < FEW:
        found.append(f"Runs with fewer than {FEW} misclassified images say little.")
    return found


def table(data: Data) -> list[list[str]]:
    """A row a run and kind of image."""
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
    """For each run and kind of image, predictions to the wrong class, to the true one, and elsewhere."""
    runs = {name: run for name, run in data["runs"].items() if run["misclassified"]}
    kinds = ("natural", "adversarial", "inverse")
    figure, (axes,) = panels(1.1 + 0.85 * max(len(runs), 1))
    labels = []
    for i, (name, run) in enumerate(runs.items()):
        for j, kind in enumerate(kinds):
            wrong, true = run[kind]["is_wrong"], run[kind]["is_true"]
            parts = ((wrong, "#D55E00", "", "wrong natural class"), (true, "#0072B2", "///", "true class"))
            left = 0.0
            for share, colour, hatch, what in (*parts, (max(0.0, 1 - wrong - true), "#CCCCCC", "", "another class")):
                label = what if i == j == 0 else None
                axes.barh(4 * i + j, share, left=left, color=colour, hatch=hatch, edgecolor="white", label=label)
                left += share
            labels.append((4 * i + j, kind))
        axes.text(0.0, 4 * i - 0.6, f"{name} ({run['misclassified']} images)", ha="left", va="bottom", fontsize=10)
    axes.grid(visible=False, axis="y")
    axes.set_yticks([at for at, _ in labels], [kind for _, kind in labels])
    axes.set_ylim(4 * max(len(runs), 1) - 1.0, -1.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("predictions on images that are wrong as they are")
    in_percent(axes, along="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=9, handlelength=1.4)
    return figure


MISALIGNED = Study(
    name="misaligned",
    about="where the predictions of misclassified images go under attack",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
)
