"""Study: natural against robust accuracy, over the weight of a method and over averaged weights of two of its runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from uiat.analyse.figures import format_percent, make_panels, mark_size, style_runs, text_size
from uiat.analyse.fitting import draw_legend
from uiat.analyse.interpolation import has_batch_norm, interpolate
from uiat.analyse.marks import bars, span
from uiat.analyse.measurements import group_by_seed, measure_accuracy
from uiat.analyse.prose import CHANCE, error_of_mean, join_words, percent, points
from uiat.analyse.study import Context, Data, Study, StudyRun
from uiat.errors import UserError
from uiat.formatting import mean_and_deviation, spread
from uiat.runs.reader import leaves
from uiat.runs.settings import read_plain

ALPHAS = (0.25, 0.5, 0.75)  # between two runs, which are at 0 and 1 themselves
SAME = ("data.name", "data.subset", "data.validation", "model.name", "model.width")


def measure(context: Context) -> Data:
    """Measure clean and robust accuracy of runs that differ in a weight, such as lambda, and of averages of two.

    Runs that differ in the seed alone are one point. Between the most robust and the most accurate point, or the next
    one where these are the same, weights are averaged seed by seed (`uiat.analyse.interpolation`). On images that
    training held out: a weight is there to be chosen, and test images must not choose.
    """
    _check_comparable(context.runs)
    groups = group_by_seed(context.runs)
    if len(groups) < 2:
        raise UserError("tradeoff needs runs that differ in more than the seed, such as in objective.weight")
    rows = {label: _measure_group(context, label, members) for label, members in groups.items()}
    ends = _choose_ends(rows)
    return {
        "split": "held-out",
        "rows": rows,
        "front": find_front(rows),
        "between": _measure_between(context, ends, groups[ends[0]], groups[ends[1]]),
    }


def _check_comparable(runs: Sequence[StudyRun]) -> None:
    """Refuse a single run, and runs of other data or architectures, whose accuracies are no trade-off."""
    if len(runs) < 2:
        raise UserError("tradeoff needs two or more runs, such as those of a sweep over objective.weight")
    first = runs[0]
    ours = _list_settings(first)
    for run in runs[1:]:
        theirs = _list_settings(run)
        different = next((path for path in ours if ours[path] != theirs[path]), None)
        if different is not None:
            raise UserError(
                f"tradeoff compares runs of the same data and architecture: {different} is {ours[different]} in "
                f"{first.label} and {theirs[different]} in {run.label}"
            )


def _list_settings(run: StudyRun) -> dict[str, Any]:
    """List the settings that decide, with the seed, what was held out, and the shapes of the weights."""
    settings = dict(leaves(read_plain(run.folder)))
    return {path: settings.get(path) for path in SAME}


def _measure_group(context: Context, label: str, members: Sequence[StudyRun]) -> Data:
    measured = [_measure_model(context, run, context.load_model(run)) for run in members]
    row = {
        "seeds": [run.config.seed for run in members],
        "runs": [run.label for run in members],
        "weight": getattr(members[0].config.objective, "weight", None),
        "n": measured[0]["n"],
        "clean": [each["clean"] for each in measured],
        "robust": [each["robust"] for each in measured],
    }
    context.on_progress(f"{label}: clean {spread(row['clean'])} %, robust {spread(row['robust'])} %")
    return row


def _measure_model(context: Context, run: StudyRun, model: nn.Module) -> Data:
    x, y = context.load_images(run, "held-out")
    return measure_accuracy(model, x, y, context.make_attack(), seed=context.options.seed)


def _mean(row: Mapping[str, Any], kind: str) -> float:
    return mean_and_deviation(row[kind])[0]


def _choose_ends(rows: Mapping[str, Data]) -> tuple[str, str]:
    """Return the labels between which weights are averaged: of the most accurate and of the most robust group."""
    robust = max(rows, key=lambda label: _mean(rows[label], "robust"))
    return max((label for label in rows if label != robust), key=lambda label: _mean(rows[label], "clean")), robust


def find_front(rows: Mapping[str, Data]) -> list[str]:
    """Return the labels that no other beats in both mean accuracies, the most accurate first: the Pareto front.

    Example:
        >>> rows = {name: {"clean": [c], "robust": [r]} for name, c, r in (("a", 0.9, 0.5), ("b", 0.8, 0.4))}
        >>> find_front(rows | {"c": {"clean": [0.7], "robust": [0.6]}})
        ['a', 'c']
    """
    at = {label: (_mean(row, "clean"), _mean(row, "robust")) for label, row in rows.items()}
    front = [
        label
        for label, (clean, robust) in at.items()
        if not any(c >= clean and r >= robust and (c, r) != (clean, robust) for c, r in at.values())
    ]
    return sorted(front, key=lambda label: -at[label][0])


def _measure_between(
    context: Context, ends: tuple[str, str], start: Sequence[StudyRun], stop: Sequence[StudyRun]
) -> Data:
    """Average the weights of two groups, seed by seed: two seeds would hold out each other's training images."""
    pairs = {
        run.config.seed: (run, other)
        for run in reversed(start)
        for other in stop
        if run.config.seed == other.config.seed
    }
    found: Data = {"from": ends[0], "to": ends[1], "seeds": sorted(pairs), "batch_norm": 0, "rows": []}
    for alpha in ALPHAS if pairs else ():
        row: Data = {"alpha": alpha, "clean": [], "robust": []}
        for seed in found["seeds"]:
            run, other = pairs[seed]
            images, _ = context.load_images(run, "train")
            model = interpolate(context.load_model(run), context.load_model(other), alpha, images=images)
            found["batch_norm"] = len(images) if has_batch_norm(model) else 0
            measured = _measure_model(context, run, model)
            for kind in ("clean", "robust"):
                row[kind].append(measured[kind])
        found["rows"].append(row)
        context.on_progress(f"alpha {alpha}: clean {spread(row['clean'])} %, robust {spread(row['robust'])} %")
    return found


def sentences(data: Data) -> list[str]:
    """Say which weights are on the front, which are beaten, how sure that is, and what averaged weights give."""
    rows, front = data["rows"], data["front"]
    n = next(iter(rows.values()))["n"]
    error = max(error_of_mean(row[kind], n) for row in rows.values() for kind in ("clean", "robust"))
    said = [
        f"No other has more of both accuracies than {join_words([_say_point(name, rows[name]) for name in front])}."
    ]
    beaten = [_say_point(name, row) for name, row in rows.items() if name not in front]
    if beaten:
        said.append(f"Beaten: {join_words(beaten)}.")
    said.append(
        f"The standard error of a figure is at most {100 * error:.1f} points (of {n} held-out images and of seeds): "
        f"differences below {100 * CHANCE * 2**0.5 * error:.1f} points may be chance."
    )
    return said + _say_between(data, error)


def _say_point(label: str, row: Data) -> str:
    return f"{label} ({percent(_mean(row, 'clean'))} clean, {percent(_mean(row, 'robust'))} robust)"


def _say_between(data: Data, error: float) -> list[str]:
    """Say whether averaged weights are above the line between both ends, below it, or no model at all any more."""
    between, rows = data["between"], data["rows"]
    ends = f"{between['from']} and {between['to']}"
    if not between["rows"]:
        return [f"Weights of {ends} are not averaged: no seed is in both, and each holds out other images."]
    seeds = ", ".join(map(str, between["seeds"]))
    statistics = (
        f"BatchNorm statistics measured anew on {between['batch_norm']} natural training images"
        if between["batch_norm"]
        else "no BatchNorm"
    )
    said = f"Weights of {ends} averaged (seed {seeds}; {statistics}): " + "; ".join(
        _say_point(f"alpha {row['alpha']}", row) for row in between["rows"]
    )
    first, last = rows[between["from"]], rows[between["to"]]
    gains = {row["alpha"]: _above_line(row, first, last) for row in between["rows"]}
    lost = [alpha for alpha, gain in gains.items() if max(gain) < -CHANCE * error]
    best = max(gains, key=lambda alpha: min(gains[alpha]))
    if lost:
        why = "the two lie in different basins of the loss, and averaging them is no way from one to the other"
        worst = min(gains, key=lambda alpha: max(gains[alpha]))
        clean, robust = map(points, gains[worst])
        return [f"{said}.", f"At alpha {worst} that is {clean} clean and {robust} robust from the line: {why}."]
    clean, robust = map(points, gains[best])
    return [f"{said}.", f"At alpha {best} that is {clean} clean and {robust} robust from the line between both."]


def _above_line(row: Data, first: Data, last: Data) -> tuple[float, float]:
    """Return by how much clean and robust accuracy exceed the mean of both ends, weighted by alpha."""
    alpha = row["alpha"]
    line = ((1 - alpha) * _mean(first, kind) + alpha * _mean(last, kind) for kind in ("clean", "robust"))
    clean, robust = (_mean(row, kind) - value for kind, value in zip(("clean", "robust"), line, strict=True))
    return clean, robust


def table(data: Data) -> list[list[str]]:
    """Make a row of each group and of each average of two."""
    heading = ["runs", "weight", "seeds", "clean, %", "robust, %", "on the front"]
    rows = [
        [
            label,
            "-" if row["weight"] is None else f"{row['weight']:g}",
            str(len(row["seeds"])),
            spread(row["clean"]),
            spread(row["robust"]),
            "yes" if label in data["front"] else "no",
        ]
        for label, row in data["rows"].items()
    ]
    between = data["between"]
    rows += [
        [f"alpha {row['alpha']}", "-", str(len(row["clean"])), spread(row["clean"]), spread(row["robust"]), "-"]
        for row in between["rows"]
    ]
    return [heading, *rows]


def draw(data: Data) -> Any:
    """Draw robust against clean accuracy: means with 95 % intervals, seeds small, the front and averages as lines."""
    figure, (axes,) = make_panels(4.2)
    rows, between = data["rows"], data["between"]
    front = [rows[label] for label in data["front"]]
    axes.plot(*_means(front), color="#999999", linewidth=1.2, label="front", zorder=1)
    styles = style_runs(data, [row["runs"][0] for row in rows.values()])
    for (label, row), line in zip(rows.items(), styles, strict=True):
        style = line | {"linestyle": "none"}
        _draw_interval(axes, row, row["n"], label=label, **style | {"markersize": mark_size(1.6)})
        axes.plot(row["clean"], row["robust"], **style | {"markersize": mark_size(0.6), "alpha": 0.6})
    if between["rows"]:
        path = [rows[between["from"]], *between["rows"], rows[between["to"]]]
        axes.plot(*_means(path), color="black", linestyle=":", marker=".", label="averaged weights", zorder=1)
        for row, beside in zip(
            between["rows"], ((3, 3), (3, -9), (-20, 3)), strict=False
        ):  # three may lie close together
            at = _mean(row, "clean"), _mean(row, "robust")
            _draw_interval(axes, row, next(iter(rows.values()))["n"], color="black", linestyle="none")
            axes.annotate(
                f"{row['alpha']:g}", at, xytext=beside, textcoords="offset points", fontsize=text_size("least")
            )
    axes.set_xlabel("held-out accuracy, clean (bars: 95 %)")
    axes.set_ylabel("held-out accuracy, robust")
    for along in ("x", "y"):
        format_percent(axes, along=along)
    draw_legend(figure, axes)
    return figure


def _draw_interval(axes: Any, row: Data, n: int, **style: Any) -> None:
    clean, robust = (span(row[kind], n) for kind in ("clean", "robust"))
    lengths = {"xerr": bars([clean]), "yerr": bars([robust]), "elinewidth": mark_size(0.15)}
    axes.errorbar(clean[0], robust[0], **lengths, **style)


def _means(rows: Sequence[Data]) -> tuple[list[float], list[float]]:
    return [_mean(row, "clean") for row in rows], [_mean(row, "robust") for row in rows]


STUDY = Study(
    name="tradeoff",
    about="clean against robust accuracy over the weight of a method, and over averaged weights of two runs",
    measure=measure,
    sentences=sentences,
    draw=draw,
    table=table,
)
