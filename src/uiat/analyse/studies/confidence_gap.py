"""Study: the gap in robust accuracy between confident and unconfident images."""

from typing import Any

from torch import Tensor

from uiat import losses
from uiat.analyse.figures import make_panels, text_size
from uiat.analyse.fitting import draw_legend
from uiat.analyse.marks import draw_line, group_styles, span_by_radius
from uiat.analyse.measurements import compute_logits
from uiat.analyse.prose import percent, points
from uiat.analyse.radii import choose_radii, describe_threat, label_axes, radius_writer, sweep_run
from uiat.analyse.study import Context, Data, Study


def measure(context: Context) -> Data:
    """Rank test images by natural loss, cut them in half, and measure each half against strength (UIAT, CVPR 2023).

    Below 0 the attack is an inverse one, which helps. Of an odd number of images the middle one is in the high half.
    """
    radii = choose_radii(context, [i / 4 for i in range(-4, 5)])
    results: Data = {}
    for run in context.runs:
        x, y = context.load_images(run)
        halves = by_loss(losses.cross_entropy(compute_logits(context.load_model(run), x), y))
        result: Data = {"n": len(x)}
        for name, (index, mean) in halves.items():
            accuracy = sweep_run(context, run, x[index], y[index], radii).accuracy
            result[name] = {"n": len(index), "mean_loss": mean, "accuracy": [round(value, 6) for value in accuracy]}
        results[run.label] = result
        context.on_progress(f"{run.label}: both halves measured")
    return {"strengths": radii, **describe_threat(context), "runs": results}


def by_loss(loss: Tensor) -> dict[str, tuple[Tensor, float]]:
    """Cut images in half by their loss: positions and mean loss of the low and of the high half.

    Example:
        >>> import torch
        >>> {name: index.tolist() for name, (index, _) in by_loss(torch.tensor([3.0, 1.0, 2.0])).items()}
        {'low': [1], 'high': [2, 0]}
    """
    order = loss.argsort(stable=True)
    half = len(order) // 2
    return {name: (part, loss[part].mean().item()) for name, part in (("low", order[:half]), ("high", order[half:]))}


def sentences(data: Data) -> list[str]:
    """Say how far the halves are apart, natural and under attack, and what an inverse attack does to the high half."""
    said = []
    zero, last = (min(range(len(data["strengths"])), key=lambda i: abs(data["strengths"][i] - e)) for e in (0.0, 1e9))
    write = radius_writer(data)
    for name, run in data["runs"].items():
        low, high = run["low"]["accuracy"], run["high"]["accuracy"]
        gaps = [p - q for p, q in zip(low, high, strict=True)]
        widest = max(range(len(gaps)), key=gaps.__getitem__)
        peak, weakest = write(data["strengths"][widest]), data["strengths"][zero]
        inverse = f"an inverse attack of {write(-data['strengths'][0])} brings the harder half to {percent(high[0])}"
        said.append(
            f"{name}: of the half with the lower loss {percent(low[zero])} are right "
            f"{f'at {write(weakest)}' if weakest else 'as they are'} and "
            f"{percent(low[last])} at {write(data['strengths'][last])}; of the other half {percent(high[zero])} and "
            f"{percent(high[last])}. The gap is widest at {peak}, {points(gaps[widest])}"
            f"{f'; {inverse}' if data['strengths'][0] < 0 else ''}."
        )
    return said


def draw(data: Data) -> Any:
    """Draw both halves of each method in bands of their 95 % intervals, with filled markers for the low-loss half."""
    figure, (axes,) = make_panels(4.4)
    axes.axvline(0.0, color="#999999", linewidth=1.0)
    for name, (runs, style) in group_styles(data, list(data["runs"])).items():
        for half, label, fill in (("low", name, {}), ("high", None, {"markerfacecolor": "white"})):
            spans = span_by_radius([data["runs"][run][half] for run in runs])
            draw_line(axes, data["strengths"], spans, label=label, **style | fill)
    label_axes(axes, data, "strength of the attack; below 0 it helps (inverse)")
    axes.set_title(
        "filled: the half of low loss; hollow: of high loss; bands: 95 %", color="#444444", fontsize=text_size()
    )
    draw_legend(figure, axes)
    return figure


STUDY = Study(
    name="confidence-gap",
    about="accuracy of easy and hard images against strength, from inverse attack to attack",
    measure=measure,
    sentences=sentences,
    draw=draw,
    reads=("n", "seed", "threat", "attack", "epsilons", "which"),
)
