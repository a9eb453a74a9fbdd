"""Study: the gap in robust accuracy between confident and unconfident images."""

from typing import Any

from torch import Tensor

from uiat import losses
from uiat.analyse.figures import key, look, panels
from uiat.analyse.prose import percent, points
from uiat.analyse.studies.strength import _ball, _labelled, _strengths, _swept, _writer
from uiat.analyse.study import Context, Data, Study, compute_logits


def measure_gap(context: Context) -> Data:
    """Test images ranked by natural loss and cut in half; accuracy of each half against strength (UIAT, CVPR 2023).

    Below 0 the attack is an inverse one, which helps. Of an odd number of images the middle one is in the high half.
    """
    strengths = _strengths(context, [i / 4 for i in range(-4, 5)])
    found: dict[str, Any] = {}
    for subject in context.subjects:
        x, y = context.images(subject)
        halves = by_loss(losses.cross_entropy(compute_logits(context.model(subject), x), y))
        run: Data = {"n": len(x)}
        for name, (index, mean) in halves.items():
            accuracy = _swept(context, subject, x[index], y[index], strengths).accuracy
            run[name] = {"n": len(index), "mean_loss": mean, "accuracy": [round(share, 6) for share in accuracy]}
        found[subject.label] = run
        context.told(f"{subject.label}: both halves measured")
    return {"strengths": strengths, **_ball(context), "runs": found}


def by_loss(loss: Tensor) -> dict[str, tuple[Tensor, float]]:
    """The images of low and of high loss: their positions and their mean loss.

    Example:
        >>> import torch
        >>> {name: index.tolist() for name, (index, _) in by_loss(torch.tensor([3.0, 1.0, 2.0])).items()}
        {'low': [1], 'high': [2, 0]}
    """
    order = loss.argsort(stable=True)
    half = len(order) // 2
    return {name: (part, loss[part].mean().item()) for name, part in (("low", order[:half]), ("high", order[half:]))}


def say_gap(data: Data) -> list[str]:
    """The gap between the halves, natural and under attack, and what an inverse attack does to the high half."""
    found = []
    zero, last = (min(range(len(data["strengths"])), key=lambda i: abs(data["strengths"][i] - e)) for e in (0.0, 1e9))
    write = _writer(data)
    for name, run in data["runs"].items():
        low, high = run["low"]["accuracy"], run["high"]["accuracy"]
        gaps = [p - q for p, q in zip(low, high, strict=True)]
        widest = max(range(len(gaps)), key=gaps.__getitem__)
        peak = write(data["strengths"][widest])
        found.append(
            f"{name}: of the half with the lower loss {percent(low[zero])} are right as they are and "
            f"{percent(low[last])} at {write(data['strengths'][last])}; of the other half {percent(high[zero])} and "
            f"{percent(high[last])}. The gap is widest at {peak}, {points(gaps[widest])}; "
            f"an inverse attack of {write(-data['strengths'][0])} brings the harder half to {percent(high[0])}."
        )
    return found


def draw_gap(data: Data) -> Any:
    """Both halves of each run; filled markers for the low-loss half."""
    figure, (axes,) = panels(4.4)
    axes.axvline(0.0, color="#999999", linewidth=1.0)
    for i, (name, run) in enumerate(data["runs"].items()):
        style = look(i)
        axes.plot(data["strengths"], run["low"]["accuracy"], label=name, **style)
        hollow = style | {"markerfacecolor": "white"}
        axes.plot(data["strengths"], run["high"]["accuracy"], **hollow)
    _labelled(axes, data, "strength of the attack; below 0 it helps (inverse)")
    axes.set_title("filled: the half of low loss; hollow: of high loss", color="#444444", fontsize=10)
    key(figure, axes)
    return figure


CONFIDENCE_GAP = Study(
    name="confidence-gap",
    about="accuracy of easy and hard images against strength, from inverse attack to attack",
    measure=measure_gap,
    sentences=say_gap,
    draw=draw_gap,
)
