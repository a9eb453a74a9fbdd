"""Accuracy against the strength of an attack: what the studies of it have in common."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from uiat.analyse.figures import format_percent, label_radii
from uiat.analyse.study import Context, Data, StudyRun
from uiat.evaluation.radius_sweep import SweepResult, epsilons, radius_sweep
from uiat.formatting import in_255ths, strength_text


def choose_radii(context: Context, multiples: Sequence[float]) -> list[float]:
    """Return the radii of the options, or else these multiples of the threat model's radius."""
    if context.options.epsilons is not None:
        return epsilons(context.options.epsilons)
    return [multiple * float(context.threat.epsilon) for multiple in multiples]


def describe_threat(context: Context) -> Data:
    """Return the norm and radius of the threat model as plain data."""
    return {"norm": context.threat.norm, "epsilon": float(context.threat.epsilon)}


def radius_writer(data: Data) -> Callable[..., str]:
    """Return the function that writes a radius as that of the threat model is written: in 255ths or as it is."""
    return partial(strength_text, pixels=in_255ths(data["norm"], data["epsilon"]))


def sweep_run(context: Context, run: StudyRun, x: Tensor, y: Tensor, radii: list[float]) -> SweepResult:
    """Attack a run's model at each radius; below 0 with the inverse attack."""
    options, model = context.options, context.load_model(run)
    return radius_sweep(model, x, y, threat=context.threat, epsilons=radii, attack=options.attack, seed=options.seed)


def label_axes(axes: Any, data: Data, below: str) -> None:
    """Label the axes, accuracy from 0 to as high as curves and their bands reach; the first line marks a radius."""
    axes.set_xlabel(below)
    axes.set_ylabel("accuracy")
    bands = [path.get_extents().y1 for band in axes.collections for path in band.get_paths()]
    high = max([*bands, *(value for line in axes.lines[1:] for value in line.get_ydata())])
    axes.set_ylim(-0.02 * high, min(1.02, 1.06 * high) if high else 1.0)
    format_percent(axes)
    if in_255ths(data["norm"], data["epsilon"]):
        label_radii(axes, data["strengths"])
