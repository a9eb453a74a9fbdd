"""Accuracy against the strength of the attack: of several runs, and of easy and hard images."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uiat.analyse.figures import in_percent, key, look, panels, radii
from uiat.analyse.prose import CHANCE, joined, percent
from uiat.analyse.study import Context, Data, Study, StudyRun
from uiat.evaluation.radius_sweep import SweepResult, epsilons, sweep
from uiat.evaluation.result import wilson
from uiat.formatting import in_255ths, strength_text

MOST = 6  # pairs of runs that a paragraph speaks of


def _strengths(context: Context, shares: Sequence[float]) -> list[float]:
    if context.asked.epsilons is not None:
        return epsilons(context.asked.epsilons)
    return [share * float(context.ball.epsilon) for share in shares]


def _ball(context: Context) -> Data:
    return {"norm": context.ball.norm, "epsilon": float(context.ball.epsilon)}


def _writer(data: Data) -> Callable[..., str]:
    """How radii are written beside the threat model's."""
    return partial(strength_text, pixels=in_255ths(data["norm"], data["epsilon"]))


def _swept(context: Context, subject: StudyRun, x: Tensor, y: Tensor, strengths: list[float]) -> SweepResult:
    asked = context.asked
    model = context.model(subject)
    return sweep(model, x, y, threat=context.ball, epsilons=strengths, attack=asked.attack, seed=asked.seed)


def _intervals(shares: Sequence[float], n: int) -> list[list[float]]:
    return [wilson(round(share * n), n) for share in shares]


def measure_strength(context: Context) -> Data:
    """Accuracy of each run at each radius from 0 to twice that of the threat model (UIAT, CVPR 2023).

    Differences of two runs on the same images are paired, image by image (McNemar 1947).
    """
    strengths = _strengths(context, [i / 4 for i in range(9)])
    found: dict[str, Any] = {}
    broken: dict[str, list[float | None]] = {}
    sets: dict[str, str] = {}
    for subject in context.subjects:
        x, y = context.images(subject)
        result = _swept(context, subject, x, y, strengths)
        accuracy = [round(share, 6) for share in result.accuracy]
        found[subject.label] = {"n": len(x), "accuracy": accuracy, "intervals": _intervals(accuracy, len(x))}
        broken[subject.label], sets[subject.label] = result.broken_at, subject.run.data.name
        context.told(f"{subject.label}: {percent(accuracy[0])} at first, {percent(accuracy[-1])} last")
    pairs = []
    for a, b in itertools.combinations(found, 2):
        where = crossings(strengths, found[a]["accuracy"], found[b]["accuracy"])
        paired = sets[a] == sets[b] and found[a]["n"] == found[b]["n"]
        ahead = _ahead(strengths, broken[a], broken[b]) if paired else None
        pairs.append({"runs": [a, b], "crossings": where, "ahead": ahead})
    return {"strengths": strengths, **_ball(context), "runs": found, "pairs": pairs}


def crossings(strengths: Sequence[float], a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Where the lead changes from one curve to the other, between measured strengths by straight lines.

    Example:
        >>> crossings([0.0, 1.0, 2.0], [0.9, 0.5, 0.1], [0.8, 0.5, 0.3])
        [1.0]
    """
    gaps = [(e, p - q) for e, p, q in zip(strengths, a, b, strict=True)]
    lead = [(e, gap) for e, gap in gaps if gap != 0]
    found = []
    for (e, gap), (later, next_gap) in itertools.pairwise(lead):
        if gap * next_gap < 0:
            level = [at for at, same in gaps if e < at < later and same == 0]
            found.append(level[len(level) // 2] if level else e + (later - e) * gap / (gap - next_gap))
    return found


def _ahead(strengths: list[float], a: list[float | None], b: list[float | None]) -> list[int]:
    """At each strength: 1 where the first run is ahead beyond chance, -1 where the second is, else 0."""

    def stands(broken: list[float | None], at: float) -> Tensor:
        return torch.tensor([first is None or first > at for first in broken])

    found = []
    for at in strengths:
        if at < 0:
            found.append(0)
            continue
        one, other = stands(a, at), stands(b, at)
        only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
        beyond = abs(only_one - only_other) > CHANCE * (only_one + only_other) ** 0.5
        found.append((1 if only_one > only_other else -1) if beyond else 0)
    return found


def say_strength(data: Data) -> list[str]:
    """The accuracy at the radius of the threat model, and where curves cross."""
    at = min(range(len(data["strengths"])), key=lambda i: abs(data["strengths"][i] - data["epsilon"]))
    order = sorted(data["runs"], key=lambda name: -data["runs"][name]["accuracy"][at])
    parts = [f"{name} {percent(data['runs'][name]['accuracy'][at])}" for name in order]
    found = [f"Accuracy at {_writer(data)(data['strengths'][at])}: {', '.join(parts)}."]
    crossing = [pair for pair in data["pairs"] if pair["crossings"]]
    if len(data["runs"]) > 1 and not crossing:
        found.append("No two curves cross.")
    crossing.sort(key=lambda pair: -len(set(pair["ahead"] or []) - {0}))
    found += [_say_crossing(pair, data["strengths"], _writer(data)) for pair in crossing[:MOST]]
    if len(crossing) > MOST:
        found.append(f"{len(crossing) - MOST} more pairs cross; the data file has them.")
    return found


def _say_crossing(pair: Data, strengths: list[float], write: Callable[..., str]) -> str:
    a, b = pair["runs"]
    where = joined([write(e, digits=2) for e in pair["crossings"]])
    text = f"The curves of {a} and {b} cross at {where}"
    if pair["ahead"] is None:
        return f"{text}, on different images."
    parts = []
    for name, sign in ((a, 1), (b, -1)):
        held = [write(e) for e, ahead in zip(strengths, pair["ahead"], strict=True) if ahead == sign]
        if held:
            parts.append(f"{name} is ahead beyond chance at {joined(held)}")
    return f"{text}: {'; '.join(parts)}." if parts else f"{text}, but nowhere are they apart beyond chance."


def draw_strength(data: Data) -> Any:
    """A line a run, with the radius of the threat model marked."""
    figure, (axes,) = panels(3.9)
    axes.axvline(data["epsilon"], color="#999999", linewidth=1.0)
    for i, (name, run) in enumerate(data["runs"].items()):
        axes.plot(data["strengths"], run["accuracy"], label=name, **look(i))
    _labelled(axes, data, "radius of the attack (line: threat model)")
    key(figure, axes)
    return figure


def _labelled(axes: Any, data: Data, below: str) -> None:
    """The accuracy axis from 0 to as high as the curves reach."""
    axes.set_xlabel(below)
    axes.set_ylabel("accuracy")
    high = max(value for line in axes.lines[1:] for value in line.get_ydata())  # the first marks a strength
    axes.set_ylim(-0.02 * high, min(1.02, 1.06 * high) if high else 1.0)
    in_percent(axes)
    if in_255ths(data["norm"], data["epsilon"]):
        radii(axes, data["strengths"])


STRENGTH = Study(
    name="strength",
    about="accuracy against the radius of the attack",
    measure=measure_strength,
    sentences=say_strength,
    draw=draw_strength,
    examples=False,
)
