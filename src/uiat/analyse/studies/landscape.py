"""Study: the loss surface around an image, along the gradient and a random direction."""

from typing import Any

import torch
from torch import Tensor

from uiat import losses
from uiat.analyse.figures import (
    SEQUENTIAL,
    figure_width,
    is_wide,
    make_parts,
    mark_size,
    scale,
    style_runs,
    text_size,
)
from uiat.analyse.fitting import LINE, fold_names
from uiat.analyse.measurements import compute_logits, craft
from uiat.analyse.study import Context, Data, Study
from uiat.attacks.random_numbers import KeyedNumbers, keys, rekey
from uiat.system.extras import from_extra
from uiat.threat import Threat, to_range

STEPS = [i / 4 for i in range(-4, 9)]  # along one direction; 1 is the whole perturbation
GRID = [i / 5 for i in range(-5, 6)]  # along both directions
ON_GRID = 64  # images of the surface
LEVELS, FACTOR = 24, 1e4  # colours of the surfaces, and how many times the lowest the highest loss is, at most
DIRECTION = 1  # number of the random numbers of a seed that make the random direction


def measure(context: Context) -> Data:
    """Measure the mean loss at x + t d, d the adversarial perturbation or a random corner of the ball, and over both.

    Images are clipped to [0, 1]. The surface is that of the first 64 images.
    """
    results: Data = {}
    for run in context.runs:
        model = context.load_model(run)
        x, y = context.load_images(run)
        adversarial = craft(model, x, y, context.make_attack(), seed=context.options.seed) - x
        random = random_corner(x, context.threat, seed=context.options.seed)

        def at(a: float, b: float, n: int = len(x), parts: Any = (model, x, y, adversarial, random)) -> float:
            model, x, y, d, r = parts
            images = to_range(x[:n] + a * d[:n] + b * r[:n])
            return losses.cross_entropy(compute_logits(model, images), y[:n]).mean().item()

        few = min(ON_GRID, len(x))
        results[run.label] = {
            "n": len(x),
            "adversarial": [at(t, 0.0) for t in STEPS],
            "random": [at(0.0, t) for t in STEPS],
            "surface": [[round(at(a, b, few), 6) for a in GRID] for b in GRID],
            "surface_n": few,
        }
        context.on_progress(f"{run.label}: landscape measured")
    return {"steps": STEPS, "grid": GRID, "runs": results}


def random_corner(x: Tensor, threat: Threat, *, seed: int) -> Tensor:
    """Draw a perturbation of random signs for each image, as long as the threat model allows.

    Example:
        >>> from uiat import Linf
        >>> random_corner(torch.zeros(1, 1, 2, 2), Linf(0.1), seed=0).abs().flatten().tolist()
        [0.1, 0.1, 0.1, 0.1]
    """
    signs = KeyedNumbers(rekey(keys(seed, torch.arange(len(x))), DIRECTION)).normal(x.shape[1:]).to(x).sign()
    lengths = threat.length(signs).view(-1, *[1] * (x.ndim - 1))
    return signs * (float(threat.epsilon) / lengths)


def sentences(data: Data) -> list[str]:
    """Say how much the loss rises each way, and how much of the adversarial rise comes in the first half of the way."""
    said = []
    zero, half, one = (data["steps"].index(t) for t in (0.0, 0.5, 1.0))
    for name, run in data["runs"].items():
        adv, random = run["adversarial"], run["random"]
        rise = adv[one] - adv[zero]
        first = 100 * (adv[half] - adv[zero]) / rise if rise > 0 else 0.0
        bent = f", {first:.0f} % of that in the first half (50 % if straight)" if rise > 0 else ""
        said.append(
            f"{name}: the mean loss is {adv[zero]:.2f}, rises to {adv[one]:.2f} along the adversarial direction{bent} "
            f"and to {random[one]:.2f} along a random one of the same length."
        )
    return said


def draw(data: Data) -> Any:
    """Draw lines along both directions, each run on a scale of its own, and surfaces of the first runs on one scale."""
    runs = list(data["runs"].items())
    columns = min(4 if is_wide() else 2, len(runs))
    shown = runs[: 2 * columns]
    names = fold_names(list(data["runs"]), figure_width() / columns - 0.4, size=text_size())
    words = max(name.count("\n") for name in names) * LINE * text_size() / 72 / scale()
    rows, below_rows = -(-len(runs) // columns), -(-len(shown) // columns)
    width = figure_width() / scale() / columns
    figure, (above, below) = make_parts(
        ((1.7 if rows < 3 else 1.3) + words) * rows + 0.7, (0.8 * min(width, 4.0) + words) * below_rows + 0.8
    )
    panes = above.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    for pane, (_, run), name, line in zip(panes, runs, names, style_runs(data, data["runs"]), strict=False):
        style = line | {"linestyle": "-", "markersize": mark_size(0.8)}
        pane.plot(data["steps"], run["adversarial"], **style)
        pane.plot(data["steps"], run["random"], **(style | {"linestyle": ":", "markerfacecolor": "white"}))
        pane.set_title(name, fontsize=text_size())
    about = "solid: adversarial direction; dotted: random; each its own scale"
    above.suptitle(about, color="#444444", x=0.02, ha="left")
    above.supxlabel("way along the direction (1: the radius)")
    above.supylabel("mean loss")
    surfaces = below.subplots(below_rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    _draw_surfaces(below, surfaces, data, [run for _, run in shown], names)
    for part, count in ((panes, len(runs)), (surfaces, len(shown))):
        for pane in part[max(0, count - columns) : count]:  # the last of each column, where the next pane is empty
            pane.tick_params(labelbottom=True)
        for pane in part[count:]:
            pane.axis("off")
    return figure


def _draw_surfaces(area: Any, panes: Any, data: Data, runs: list[Data], names: list[str]) -> None:
    """Draw surfaces on one scale of colours, a logarithmic one: on another a standard model flattens the rest."""
    with from_extra("report", "a figure"):
        from matplotlib.colors import LogNorm

    values = [value for run in runs for row in run["surface"] for value in row]
    high = max([*values, 1e-6])
    low = min(max(min(values), high / FACTOR), high / 1.01)
    levels = [low * (high / low) ** (i / LEVELS) for i in range(LEVELS + 1)]
    for pane, run, name in zip(panes, runs, names, strict=False):
        surface = [[min(max(value, low), high) for value in row] for row in run["surface"]]
        drawn = pane.contourf(
            data["grid"], data["grid"], surface, levels=levels, norm=LogNorm(low, high), cmap=SEQUENTIAL
        )
        pane.set_title(name, fontsize=text_size())
        pane.grid(visible=False)
    bar = area.colorbar(drawn, ax=list(panes), ticks=levels[::6], format=lambda loss, _: f"{loss:.2g}", aspect=30)
    bar.minorticks_off()
    bar.set_label("mean loss (logarithmic)", size=text_size())
    area.supxlabel("adversarial direction")
    area.supylabel("random direction")


STUDY = Study(
    name="landscape",
    about="the loss along the adversarial and a random direction",
    measure=measure,
    sentences=sentences,
    draw=draw,
)
