"""Study: universal adversarial perturbations beside the inverse ones, between models, and who resists them."""

from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from uiat import evaluation
from uiat.analyse.figures import COLOURS, draw_matrix, format_percent, label_rows, make_parts
from uiat.analyse.measurements import group_by_seed
from uiat.analyse.prose import difference_with_error, error_of_mean, join_words, percent
from uiat.analyse.study import Context, Data, Study, StudyRun, check_same_arithmetic
from uiat.evaluation.engine.stage import correct_under
from uiat.formatting import mean_and_deviation, spread
from uiat.inverse import FitImages, UniversalAttack, load_inverse
from uiat.inverse.universal import INVERSE_FILE, apply_universal
from uiat.models.inspect import Target

PASSES = 10
SHOWN = 10  # classes whose perturbations are shown
COLUMNS = {
    "clean": "clean",
    "all": "one perturbation for all images",
    "class": "one a class",
    "robust": "one an image",
}


def measure(context: Context) -> Data:
    """Fit a universal perturbation, and one a class, on each run's training images, and measure both on test images.

    Those of a class are tried on every other run too, and set beside the run's universal inverse perturbations.
    """
    groups = group_by_seed(context.runs)
    check_same_arithmetic(groups.values())
    rows, fitted, models = {}, {}, {}
    for run in context.runs:
        models[run.label] = context.load_model(run), *context.load_images(run)
        rows[run.label], fitted[run.label] = _measure_run(context, run, *models[run.label])
        context.on_progress(f"{run.label}: {percent(rows[run.label]['class'])} under one perturbation a class")
    _, x, _ = models[context.runs[0].label]
    return {
        "passes": PASSES,
        "attack": context.options.attack,
        "classes": context.class_names(context.runs[0])[:SHOWN],
        "channels": x.shape[1],
        "groups": {label: [run.label for run in members] for label, members in groups.items()},
        "runs": rows,
        "transfer": {
            source: {label: _accuracy(*models[label], attack) for label in models} for source, attack in fitted.items()
        },
    }


def _measure_run(
    context: Context, run: StudyRun, model: nn.Module, x: Tensor, y: Tensor
) -> tuple[Data, UniversalAttack]:
    images, seed = FitImages(*context.load_images(run, "train")), context.options.seed
    target = Target(model, x)
    fitted = {}
    for kind, name in (("all", f"uap-{PASSES}"), ("class", f"uap-class-{PASSES}")):
        attack = evaluation.attack(name, threat=context.threat)
        assert isinstance(attack, UniversalAttack)
        fitted[kind] = attack.fit(model, images, num_classes=target.classes, seed=seed, device=target.device)
    row: Data = {"seed": run.config.seed, "fitted_on": len(images.y), "clean": _accuracy(model, x, y, None)}
    row |= {kind: _accuracy(model, x, y, attack) for kind, attack in fitted.items()}
    row["robust"] = correct_under(model, x, y, context.make_attack(), seed=seed).double().mean().item()
    z = fitted["class"].z
    assert z is not None
    row["adversarial"] = _pictures(z[0])
    return row | _beside_inverse(run, model, x, y, z[0].cpu()), fitted["class"]


def _accuracy(model: nn.Module, x: Tensor, y: Tensor, attack: UniversalAttack | None) -> float:
    return correct_under(model, x, y, attack).double().mean().item()


def _pictures(z: Tensor) -> list[list[list[float]]]:
    """Put each class's channels one below the other, (C * H, W), as plain lists, of a few classes."""
    pictures: list[list[list[float]]] = (1e4 * z[:SHOWN].double()).round().div(1e4).flatten(1, 2).tolist()
    return pictures


def _beside_inverse(run: StudyRun, model: nn.Module, x: Tensor, y: Tensor, z: Tensor) -> Data:
    """Compare a run's adversarial perturbations with its inverse ones, class by class; nothing of a run without."""
    if not (run.folder / INVERSE_FILE).is_file():
        return {}
    inverse = load_inverse(run.folder).upsampled()
    cosine = nn.functional.cosine_similarity(inverse.double().flatten(1), z.double().flatten(1))
    moved = apply_universal(x, y, inverse)
    helped = correct_under(model, moved, y, None).double().mean().item()
    return {"cosine": [round(value, 4) for value in cosine.tolist()], "inverse": _pictures(inverse), "helped": helped}


def _mean(data: Data, group: str, kind: str) -> float:
    return mean_and_deviation([data["runs"][run][kind] for run in data["groups"][group]])[0]


def table(data: Data) -> list[list[str]]:
    """Return the accuracies of each group, mean and deviation over seeds, in percent."""
    rows = [
        [group, str(len(runs)), *(spread([data["runs"][run][kind] for run in runs]) for kind in COLUMNS)]
        for group, runs in data["groups"].items()
    ]
    return [["method", "seeds", *COLUMNS.values()], *rows]


def sentences(data: Data) -> list[str]:
    """Say who resists one perturbation a class, how alike it is to the inverse one, and what it does elsewhere."""
    count = data["runs"][next(iter(data["runs"]))]["fitted_on"]
    said = [
        f"The perturbations are fitted in {data['passes']} passes over {count} training images of each run; one an "
        f"image is {data['attack']}."
    ]
    for one, other in combinations(data["groups"], 2):
        said.append(_say_difference(data, one, other))
    for label, row in data["runs"].items():
        if "cosine" in row:
            least, most = min(row["cosine"]), max(row["cosine"])
            mean = sum(row["cosine"]) / len(row["cosine"])
            said.append(
                f"{label}: the inverse perturbation of a class and the adversarial one have a mean cosine of "
                f"{mean:+.2f} ({least:+.2f} to {most:+.2f}); the one brings accuracy from {percent(row['clean'])} to "
                f"{percent(row['helped'])}, the other to {percent(row['class'])}."
            )
    return said + _say_transfer(data)


def _say_difference(data: Data, one: str, other: str) -> str:
    n, said = data["n"]["test"], []
    for kind in ("class", "all"):
        values = [[data["runs"][run][kind] for run in data["groups"][group]] for group in (one, other)]
        error = (error_of_mean(values[0], n) ** 2 + error_of_mean(values[1], n) ** 2) ** 0.5
        difference = _mean(data, one, kind) - _mean(data, other, kind)
        said.append(f"{difference_with_error(difference, error)} under {COLUMNS[kind]}")
    return f"{one} against {other}: {join_words(said)}."


def _say_transfer(data: Data) -> list[str]:
    """Say what perturbations of other runs leave right, beside those of the run itself."""
    transfer = data["transfer"]
    if len(transfer) < 2:
        return []
    own = [transfer[run][run] for run in transfer]
    others = [transfer[source][run] for source in transfer for run in transfer if source != run]
    return [
        f"One perturbation a class leaves {percent(sum(own) / len(own))} right on the run it was fitted to, and "
        f"{percent(sum(others) / len(others))} on another of these runs, on average."
    ]


def draw(data: Data) -> Any:
    """Draw both kinds of perturbations, the accuracies of each group, and the transfer between runs."""
    first = next((run for run in data["runs"].values() if "inverse" in run), next(iter(data["runs"].values())))
    kinds = [kind for kind in ("inverse", "adversarial") if kind in first]
    groups, runs = data["groups"], list(data["runs"])
    figure, parts = make_parts(0.8 * len(kinds) + 0.6, 0.9 * len(groups) + 1.2, 0.35 * len(runs) + 2.2)
    _draw_pictures(parts[0], data, first, kinds)
    axes = parts[1].subplots()
    for i, (kind, words) in enumerate(COLUMNS.items()):
        at = [j + 0.2 * (i - 1.5) for j in range(len(groups))]
        values = [mean_and_deviation([data["runs"][run][kind] for run in members]) for members in groups.values()]
        axes.barh(at, [v for v, _ in values], 0.18, xerr=[d or 0.0 for _, d in values], color=COLOURS[i], label=words)
    label_rows(axes, list(groups))
    format_percent(axes, along="x")
    axes.set_title("accuracy under perturbations; bars: deviation over seeds")
    parts[1].legend(loc="outside lower left", ncols=2)
    axes = parts[2].subplots()
    rows = [[100 * data["transfer"][source][run] for run in runs] for source in runs]
    draw_matrix(axes, rows, low=0.0, high=100.0, digits=0, names=runs)
    axes.set_title("accuracy of a run (column) under the class-wise\nperturbations of another (row), in percent")
    return figure


def _draw_pictures(area: Any, data: Data, run: Data, kinds: list[str]) -> None:
    """Draw perturbations of one channel in blue and red; others as an image, with grey for no change."""
    columns, channels = len(data["classes"]), data["channels"]
    panes = area.subplots(len(kinds), columns, squeeze=False)
    for number, kind in enumerate(kinds):
        for c, axes in enumerate(panes[number]):
            picture = torch.tensor(run[kind][c])
            largest = float(picture.abs().max()) or 1.0
            axes.axis("off")
            if channels == 1:
                axes.imshow(picture.tolist(), cmap="RdBu_r", vmin=-largest, vmax=largest)
            else:
                z = picture.view(channels, len(picture) // channels, -1)[:3]
                axes.imshow((0.5 + z / (2 * largest)).clamp(0, 1).permute(1, 2, 0).numpy())
            if number == 0:
                axes.set_title(data["classes"][c], fontsize=8, loc="center")
    words = " (top) and ".join(kinds) + (" (below)" if len(kinds) > 1 else "")
    area.suptitle(f"{words}, each at its full scale", fontsize=10, x=0.02, ha="left")


STUDY = Study(
    name="universal",
    about="universal adversarial perturbations beside the inverse ones, between runs, and which method resists them",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
)
