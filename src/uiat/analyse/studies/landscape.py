"""Study: the loss surface around an image, along the gradient and a random direction."""

from typing import Any

import torch
from torch import Tensor

from uiat import losses
from uiat.analyse.figures import SEQUENTIAL, look, stacked
from uiat.analyse.study import Context, Data, Study, compute_logits, craft
from uiat.attacks.random_numbers import KeyedNumbers, keys, rekey
from uiat.threat import Threat, to_range

STEPS = [i / 4 for i in range(-4, 9)]  # along a direction, 1 being the whole perturbation
GRID = [i / 5 for i in range(-5, 6)]
ON_GRID = 64  # images of the surface
DIRECTION = 1  # which random numbers
LOW, FALL = 0.3, 0.2  # a cosine that says little of the ball; a fall from one epoch to the next that is worth a word


def measure_landscape(context: Context) -> Data:
    """Mean loss at x + t d along d = the adversarial perturbation and a random corner of the ball, and over both.

    Images are clipped to [0, 1]. The surface is that of the first 64 images.
    """
    found: dict[str, Any] = {}
    for subject in context.subjects:
        model = context.model(subject)
        x, y = context.images(subject)
        adversarial = craft(model, x, y, context.settings(), seed=context.asked.seed) - x
        random = corner(x, context.ball, seed=context.asked.seed)

        def at(a: float, b: float, n: int = len(x), parts: Any = (model, x, y, adversarial, random)) -> float:
            model, x, y, d, r = parts
            images = to_range(x[:n] + a * d[:n] + b * r[:n])
            return losses.cross_entropy(compute_logits(model, images), y[:n]).mean().item()

        few = min(ON_GRID, len(x))
        found[subject.label] = {
            "n": len(x),
            "adversarial": [at(t, 0.0) for t in STEPS],
            "random": [at(0.0, t) for t in STEPS],
            "surface": [[round(at(a, b, few), 6) for a in GRID] for b in GRID],
            "surface_n": few,
        }
        context.told(f"{subject.label}: landscape measured")
    return {"steps": STEPS, "grid": GRID, "runs": found}


def corner(x: Tensor, ball: Threat, *, seed: int) -> Tensor:
    """A perturbation of random signs, as long as the ball allows; of each image its own.

    Example:
        >>> from uiat import Linf
        >>> corner(torch.zeros(1, 1, 2, 2), Linf(0.1), seed=0).abs().flatten().tolist()
        [0.1, 0.1, 0.1, 0.1]
    """
    signs = KeyedNumbers(rekey(keys(seed, torch.arange(len(x))), DIRECTION)).normal(x.shape[1:]).to(x).sign()
    lengths = ball.length(signs).view(-1, *[1] * (x.ndim - 1))
    return signs * (float(ball.epsilon) / lengths)


def say_landscape(data: Data) -> list[str]:
    """How much the loss rises each way, and how much of the adversarial rise comes in the first half of the way."""
    found = []
    zero, half, one = (data["steps"].index(t) for t in (0.0, 0.5, 1.0))
    for name, run in data["runs"].items():
        adv, random = run["adversarial"], run["random"]
        rise = adv[one] - adv[zero]
        first = 100 * (adv[half] - adv[zero]) / rise if rise > 0 else 0.0
        bent = f", {first:.0f} % of that in the first half (50 % if straight)" if rise > 0 else ""
        found.append(
            f"{name}: the mean loss is {adv[zero]:.2f}, rises to {adv[one]:.2f} along the adversarial direction{bent} "
            f"and to {random[one]:.2f} along a random one of the same length."
        )
    return found


def draw_landscape(data: Data) -> Any:
    """Lines along both directions, each run with a scale of its own, and a surface for each of the first four."""
    runs = list(data["runs"].items())
    shown, columns = runs[:4], min(2, len(runs))
    rows, below_rows = -(-len(runs) // columns), -(-len(shown) // columns)
    figure, (above, below) = stacked(1.7 * rows + 0.7, (2.3 if columns == 2 else 3.2) * below_rows)
    panes = above.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    for i, (pane, (name, run)) in enumerate(zip(panes, runs, strict=False)):
        style = look(i) | {"linestyle": "-", "markersize": 4}
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


LANDSCAPE = Study(
    name="landscape",
    about="the loss along the adversarial and a random direction",
    measure=measure_landscape,
    sentences=say_landscape,
    draw=draw_landscape,
)
