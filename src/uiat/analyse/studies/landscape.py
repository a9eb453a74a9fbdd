"""Study: the loss surface around an image, along the gradient and a random direction."""

from typing import Any

import torch
from torch import Tensor

from uiat import losses
from uiat.analyse.figures import SEQUENTIAL, make_parts, style_runs
from uiat.analyse.measurements import compute_logits, craft
from uiat.analyse.study import Context, Data, Study
from uiat.attacks.random_numbers import KeyedNumbers, keys, rekey
from uiat.threat import Threat, to_range

STEPS = [i / 4 for i in range(-4, 9)]  # along one direction; 1 is the whole perturbation
GRID = [i / 5 for i in range(-5, 6)]  # along both directions
ON_GRID = 64  # images of the surface
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
    """Draw lines along both directions, each run with a scale of its own, and a surface for each of the first four."""
    runs = list(data["runs"].items())
    shown, columns = runs[:4], min(2, len(runs))
    rows, below_rows = -(-len(runs) // columns), -(-len(shown) // columns)
    figure, (above, below) = make_parts(1.7 * rows + 0.7, (2.3 if columns == 2 else 3.2) * below_rows)
    panes = above.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    styles = style_runs(data, data["runs"])
    for pane, (name, run), line in zip(panes, runs, styles, strict=False):
        style = line | {"linestyle": "-", "markersize": 4}
        pane.plot(data["steps"], run["adversarial"], **style)
        pane.plot(data["steps"], run["random"], **(style | {"linestyle": ":", "markerfacecolor": "white"}))
        pane.set_title(name, fontsize=10)
    about = "solid: adversarial direction; dotted: random; each its own scale"
    above.suptitle(about, fontsize=10, color="#444444", x=0.02, ha="left")
    above.supxlabel("way along the direction (1: the radius)", fontsize=10)
    above.supylabel("mean loss", fontsize=10)
    surfaces = below.subplots(below_rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for pane, (name, run) in zip(surfaces, shown, strict=False):
        values = [value for row in run["surface"] for value in row]
        pane.contourf(data["grid"], data["grid"], run["surface"], levels=12, cmap=SEQUENTIAL)
        pane.set_title(f"{name}\n{min(values):.2f} to {max(values):.2f}", fontsize=10)
        pane.grid(visible=False)
    for part, count in ((panes, len(runs)), (surfaces, len(shown))):
        for pane in part[max(0, count - columns) : count]:  # the last of each column, where the next pane is empty
            pane.tick_params(labelbottom=True)
        for pane in part[count:]:
            pane.axis("off")
    below.supxlabel("adversarial direction; mean loss from dark (low) to light (high)", fontsize=10)
    below.supylabel("random direction", fontsize=10)
    return figure


STUDY = Study(
    name="landscape",
    about="the loss along the adversarial and a random direction",
    measure=measure,
    sentences=sentences,
    draw=draw,
)
