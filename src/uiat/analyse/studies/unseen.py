"""Study: robustness to what a model was not trained for: radii, norms, patches, geometry, colours, corruptions."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from torch import Tensor, nn

from uiat import evaluation
from uiat.analyse.figures import make_panels, style_runs
from uiat.analyse.fitting import draw_legend, rows_height
from uiat.analyse.marks import draw_rows, span
from uiat.analyse.measurements import group_by_seed
from uiat.analyse.prose import CHANCE, error_of_mean, join_words, percent
from uiat.analyse.study import Context, Data, Study, StudyRun, check_same_arithmetic
from uiat.data.catalog import USUAL_THREATS
from uiat.evaluation.corruptions import KINDS, corruption_accuracy
from uiat.evaluation.engine.stage import correct_under
from uiat.formatting import mean_and_deviation, spread, threat_text
from uiat.threat import L1, L2, Threat, parse

SCALES = (0.5, 1.0, 1.5)  # radii of the norm that was trained for, as multiples of its radius
PATCH = 4  # a patch is this fraction of the image's side
# Of the longest in the Linf ball, epsilon d^(1/2) and epsilon d: what 0.5 and 12 are beside 8/255 on CIFAR-10.
L2_FRACTION, L1_FRACTION = 0.29, 0.125
SEVERITIES = (1, 3, 5)  # of the corruptions, of which the mean over kinds and severities is taken


def measure(context: Context) -> Data:
    """Measure each run under threats that it was not trained for, on the same test images, seeds grouped.

    The norm of the threat model at half, once and one and a half times its radius; the other norms at the usual radii
    of the data, or as large beside Linf as those of CIFAR-10; patches of a quarter of the side; rotations and shifts;
    recolouring; corruptions.
    """
    groups = group_by_seed(context.runs)
    check_same_arithmetic(groups.values())
    threats, rows = _threats(context), {}
    for run in context.runs:
        rows[run.label] = _measure_run(context, run, threats)
        worst = min(rows[run.label], key=lambda name: rows[run.label][name])
        context.on_progress(f"{run.label}: lowest {percent(rows[run.label][worst])}, {worst}")
    return {
        "trained": threat_text(context.threat),
        "columns": list(rows[context.runs[0].label]),
        "groups": {label: [run.label for run in members] for label, members in groups.items()},
        "runs": rows,
    }


def _threats(context: Context) -> list[Threat]:
    """Return the balls: the one that was trained for at several radii, and the usual ones of the other norms."""
    trained, run = context.threat, context.runs[0]
    usual = [parse(text) for text in USUAL_THREATS.get(run.config.data.name, ())]
    if not usual and trained.norm == "Linf":
        pixels, radius = context.load_images(run)[0][0].numel(), float(trained.epsilon)
        usual = [L2(L2_FRACTION * radius * pixels**0.5), L1(L1_FRACTION * radius * pixels)]
    scaled = [replace(trained, epsilon=scale * float(trained.epsilon)) for scale in SCALES]
    return scaled + [threat for threat in usual if threat.norm != trained.norm]


def _measure_run(context: Context, run: StudyRun, threats: Sequence[Threat]) -> Data:
    model, (x, y), seed = context.load_model(run), context.load_images(run), context.options.seed
    clean = correct_under(model, x, y, None)
    row = {"clean": clean.double().mean().item()}
    for threat in threats:
        row[threat_text(threat)] = _attacked(model, x, y, clean, context.options.attack, threat, seed)
    for name in (f"patch-{max(1, min(x.shape[-2:]) // PATCH)}", "spatial", "recolour"):
        row[name] = _attacked(model, x, y, clean, name, context.threat, seed)
    corrupted = corruption_accuracy(model, x, y, kinds=list(KINDS), severities=list(SEVERITIES), seed=seed)
    return row | {"corruptions": corrupted.mean}


def _attacked(model: nn.Module, x: Tensor, y: Tensor, clean: Tensor, attack: str, threat: Threat, seed: int) -> float:
    correct = clean
    for _, settings in evaluation.stages(attack, threat=threat):
        correct = correct_under(model, x, y, settings, mask=correct, seed=seed)
    return correct.double().mean().item()


def _values(data: Data, group: str, column: str) -> list[float]:
    return [data["runs"][run][column] for run in data["groups"][group]]


def table(data: Data) -> list[list[str]]:
    """Return a row for each threat, with mean and deviation over the seeds of each group, in percent."""
    heading = [
        "accuracy, % under",
        *(f"{group} ({len(runs)} seed{'s' * (len(runs) > 1)})" for group, runs in data["groups"].items()),
    ]
    rows = [[column, *(spread(_values(data, group, column)) for group in data["groups"])] for column in data["columns"]]
    return [heading, *rows]


def sentences(data: Data) -> list[str]:
    """Say under which threats a group is lowest, and where one is above another by more than chance explains."""
    said = [
        f"The runs are trained for {data['trained']}; patches, spatial, recolour and corruptions are in no such ball."
    ]
    for group in data["groups"]:
        means = {column: mean_and_deviation(_values(data, group, column))[0] for column in data["columns"]}
        lowest = min(means, key=lambda column: means[column])
        said.append(f"{group} is lowest under {lowest} ({percent(means[lowest])}).")
    return said + [_say_difference(data, one, other) for one, other in combinations(data["groups"], 2)]


def _say_difference(data: Data, one: str, other: str) -> str:
    better, worse = list[str](), list[str]()
    for column in data["columns"]:
        values = [_values(data, group, column) for group in (one, other)]
        (first, _), (second, _) = map(mean_and_deviation, values)
        error = sum(error_of_mean(each, data["n"]["test"]) ** 2 for each in values) ** 0.5
        if abs(first - second) > CHANCE * error:
            (better if first > second else worse).append(column)
    above, below = (join_words(names) if names else "nothing" for names in (better, worse))
    return f"By more than chance explains, {one} is above {other} under {above}, and below it under {below}."


def draw(data: Data) -> Any:
    """Draw a row for each threat, in it a mark for each group with its 95 % interval over images or seeds."""
    groups, columns, n = data["groups"], data["columns"], data["n"]["test"]
    figure, (axes,) = make_panels(rows_height(columns, 0.3 * max(1, len(groups) / 2.5)) + 1.2)
    styles = style_runs(data, [runs[0] for runs in groups.values()])
    series = {
        group: (style, [span(_values(data, group, column), n) for column in columns])
        for group, style in zip(groups, styles, strict=True)
    }
    draw_rows(axes, columns, series)
    axes.set_xlabel(f"accuracy (bars: 95 %); trained for {data['trained']}")
    draw_legend(figure, axes)
    return figure


STUDY = Study(
    name="unseen",
    about="accuracy under other radii and norms, patches, rotations and shifts, recolouring and corruptions",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
    needs_pgd=False,
)
