"""Study: accuracy of several runs against the radius of the attack."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from uiat.analyse.figures import make_panels
from uiat.analyse.fitting import draw_legend
from uiat.analyse.marks import draw_line, group_styles, span_by_radius
from uiat.analyse.prose import CHANCE, join_words, percent
from uiat.analyse.radii import choose_radii, describe_threat, label_axes, radius_writer, sweep_run
from uiat.analyse.study import Context, Data, Study
from uiat.intervals import wilson

MOST = 6  # pairs of runs that a paragraph mentions


def _intervals(accuracies: Sequence[float], n: int) -> list[list[float]]:
    return [wilson(round(accuracy * n), n) for accuracy in accuracies]


def measure(context: Context) -> Data:
    """Measure the accuracy of each run at radii from 0 to twice that of the threat model (UIAT, CVPR 2023).

    Differences of two runs on the same images are paired, image by image (McNemar 1947).
    """
    radii = choose_radii(context, [i / 4 for i in range(9)])
    results: Data = {}
    broken: dict[str, list[float | None]] = {}
    sets: dict[str, str] = {}
    for run in context.runs:
        x, y = context.load_images(run)
        result = sweep_run(context, run, x, y, radii)
        accuracy = [round(value, 6) for value in result.accuracy]
        results[run.label] = {"n": len(x), "accuracy": accuracy, "intervals": _intervals(accuracy, len(x))}
        broken[run.label], sets[run.label] = result.broken_at, run.config.data.name
        context.on_progress(f"{run.label}: {percent(accuracy[0])} at first, {percent(accuracy[-1])} last")
    pairs = []
    for a, b in itertools.combinations(results, 2):
        where = crossings(radii, results[a]["accuracy"], results[b]["accuracy"])
        paired = sets[a] == sets[b] and results[a]["n"] == results[b]["n"]
        ahead = _who_is_ahead(radii, broken[a], broken[b]) if paired else None
        pairs.append({"runs": [a, b], "crossings": where, "ahead": ahead})
    return {"strengths": radii, **describe_threat(context), "runs": results, "pairs": pairs}


def crossings(radii: Sequence[float], a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Find where the lead changes from one curve to the other, by straight lines between measured radii.

    Example:
        >>> crossings([0.0, 1.0, 2.0], [0.9, 0.5, 0.1], [0.8, 0.5, 0.3])
        [1.0]
    """
    gaps = [(e, p - q) for e, p, q in zip(radii, a, b, strict=True)]
    lead = [(e, gap) for e, gap in gaps if gap != 0]
    places = []
    for (e, gap), (later, next_gap) in itertools.pairwise(lead):
        if gap * next_gap < 0:
            level = [at for at, same in gaps if e < at < later and same == 0]
            places.append(level[len(level) // 2] if level else e + (later - e) * gap / (gap - next_gap))
    return places


def _who_is_ahead(radii: list[float], a: list[float | None], b: list[float | None]) -> list[int]:
    """Return for each radius 1 if the first run is ahead beyond chance, -1 if the second is, else 0.

    Args:
        radii: the radii.
        a: radius at which each image is broken on the first run, None for one that never is.
        b: the same on the second run.
    """

    def is_robust(broken: list[float | None], at: float) -> Tensor:
        return torch.tensor([first is None or first > at for first in broken])

    ahead = []
    for at in radii:
        if at < 0:
            ahead.append(0)
            continue
        one, other = is_robust(a, at), is_robust(b, at)
        only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
        beyond = abs(only_one - only_other) > CHANCE * (only_one + only_other) ** 0.5
        ahead.append((1 if only_one > only_other else -1) if beyond else 0)
    return ahead


def sentences(data: Data) -> list[str]:
    """Say how accurate the runs are at the radius of the threat model, and where curves cross."""
    at = min(range(len(data["strengths"])), key=lambda i: abs(data["strengths"][i] - data["epsilon"]))
    order = sorted(data["runs"], key=lambda name: -data["runs"][name]["accuracy"][at])
    parts = [f"{name} {percent(data['runs'][name]['accuracy'][at])}" for name in order]
    write = radius_writer(data)
    said = [f"Accuracy at {write(data['strengths'][at])}: {', '.join(parts)}."]
    crossing = [pair for pair in data["pairs"] if pair["crossings"]]
    if len(data["runs"]) > 1 and not crossing:
        said.append("No two curves cross.")
    crossing.sort(key=lambda pair: -len(set(pair["ahead"] or []) - {0}))
    said += [_say_crossing(pair, data["strengths"], write) for pair in crossing[:MOST]]
    if len(crossing) > MOST:
        said.append(f"{len(crossing) - MOST} more pairs cross; the data file has them.")
    return said


def _say_crossing(pair: Data, radii: list[float], write: Callable[..., str]) -> str:
    a, b = pair["runs"]
    where = join_words([write(e, digits=2) for e in pair["crossings"]])
    text = f"The curves of {a} and {b} cross at {where}"
    if pair["ahead"] is None:
        return f"{text}, on different images."
    parts = []
    for name, sign in ((a, 1), (b, -1)):
        leads = [write(e) for e, ahead in zip(radii, pair["ahead"], strict=True) if ahead == sign]
        if leads:
            parts.append(f"{name} is ahead beyond chance at {join_words(leads)}")
    return f"{text}: {'; '.join(parts)}." if parts else f"{text}, but nowhere are they apart beyond chance."


def draw(data: Data) -> Any:
    """Draw a line a method in a band of its 95 % interval; the radius of the threat model is marked."""
    figure, (axes,) = make_panels(3.9)
    axes.axvline(data["epsilon"], color="#999999", linewidth=1.0)
    for name, (runs, style) in group_styles(data, list(data["runs"])).items():
        draw_line(axes, data["strengths"], span_by_radius([data["runs"][run] for run in runs]), label=name, **style)
    label_axes(axes, data, "radius of the attack (line: threat model; bands: 95 %)")
    draw_legend(figure, axes)
    return figure


STUDY = Study(
    name="strength",
    about="accuracy against the radius of the attack",
    measure=measure,
    sentences=sentences,
    draw=draw,
    needs_pgd=False,
    reads=("n", "seed", "threat", "attack", "epsilons", "which"),
)
