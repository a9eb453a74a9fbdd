"""Study: universal adversarial perturbations beside the inverse ones, between models, and who resists them."""

from itertools import combinations
from typing import Any

from torch import Tensor, nn

from uiat import evaluation
from uiat.analyse.figures import figure_width, is_wide, line_style, make_parts, scale, text_size
from uiat.analyse.fitting import draw_legend, legend_height, rows_height
from uiat.analyse.marks import draw_rows, span
from uiat.analyse.measurements import group_by_seed
from uiat.analyse.pictures import draw_matrix, draw_pictures, name_pictures
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
    groups, runs = list(data["groups"]), list(data["runs"])
    heights = rows_height(groups, 0.6) + 1.0 + legend_height(list(COLUMNS.values())), rows_height(runs, 0.35) + 1.3
    classes, room = data["classes"], figure_width() / len(data["classes"]) - 0.05
    upright = name_pictures(classes, room)[1]
    pictures = (0.1 * len(kinds) * figure_width() + 0.5) / scale() + 0.8 * upright
    if is_wide():
        figure, parts = make_parts(pictures, max(heights))
        accuracy, transfer = parts[1].subplots(1, 2)
    else:
        figure, parts = make_parts(pictures, *heights)
        accuracy, transfer = (part.subplots() for part in parts[1:])
    panes = parts[0].subplots(len(kinds), len(classes), squeeze=False)
    for number, (row, kind) in enumerate(zip(panes, kinds, strict=True)):
        look = {"channels": data["channels"], "room": room}
        draw_pictures(row, first[kind], names=classes if number == 0 else [], **look)
    words = " (top) and ".join(kinds) + (" (below)" if len(kinds) > 1 else "")
    parts[0].suptitle(f"{words}, each at its full scale", x=0.02, ha="left")
    _draw_accuracy(accuracy, data, groups)
    draw_legend(parts[1], accuracy)
    rows = [[100 * data["transfer"][source][run] for run in runs] for source in runs]
    draw_matrix(transfer, rows, low=0.0, high=100.0, digits=0, names=runs)
    title = "accuracy of a run (column) under the class-wise perturbations of another (row), in percent"
    transfer.set_title(title, fontsize=text_size())
    return figure


def _draw_accuracy(axes: Any, data: Data, groups: list[str]) -> None:
    n = data["n"]["test"]
    series = {
        words: (
            line_style(i),
            [span([data["runs"][run][kind] for run in data["groups"][group]], n) for group in groups],
        )
        for i, (kind, words) in enumerate(COLUMNS.items())
    }
    draw_rows(axes, groups, series)
    axes.set_xlabel("accuracy under perturbations (bars: 95 %)")


STUDY = Study(
    name="universal",
    about="universal adversarial perturbations beside the inverse ones, between runs, and which method resists them",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
)
