"""Draw docs/pictures/method.png: an image, its adversarial and its inverse example, and where training pulls.

    uiat train digits-uiat --run-dir RUN          # a minute on two cores, no data to download
    python docs/pictures/draw_method.py RUN

Images, perturbations and probabilities are real: a test image of scikit-learn's digits, a UIAT model, and the universal
perturbations that its training left. The image is chosen, not typical: one that the model gets wrong as it is and right
with z, by the largest gain of the true class. The same run gives the same file.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import uiat

OUT = Path(__file__).with_name("method.png")
WHITE, INK, PALE = "#ffffff", "#1f2328", "#d0d7de"
TRUE, WRONG, USUAL, OURS = "#1a7f37", "#cf222e", "#57606a", "#0969da"
WIDTH, HEIGHT, DPI = 7.0, 4.6, 200  # inches and dots an inch: 1,400 pixels for 700 of the page
LEFT, STEP, COLUMN = 0.052, 0.322, 0.29  # of the three columns, in parts of the width
TITLES = ("natural  $x$", "adversarial  $x_{adv}$", "inverse adversarial  $x_{inv}$")
DIFFERENCES = ("", "$x_{adv} - x$", "$x_{inv} - x$")


def probabilities(model: torch.nn.Module, x: Tensor) -> Tensor:
    """The predictions, (B, K)."""
    with torch.no_grad():
        return model(x).softmax(dim=1)


def chosen(natural: Tensor, inverse: Tensor, y: Tensor) -> int:
    """The image that is wrong as it is and right with z, by what its class gains."""
    corrected = (natural.argmax(dim=1) != y) & (inverse.argmax(dim=1) == y)
    if not corrected.any():
        raise SystemExit("no image is wrong as it is and right with z: give another run, such as one with seed=1")
    gain = (inverse - natural).gather(1, y[:, None])[:, 0]
    return int(torch.where(corrected, gain, -2.0).argmax())


def show(figure: Figure, left: float, image: Tensor, *, text: str, difference: float | None = None) -> None:
    """One picture, with its name below; a difference in colours, red where it is brighter, up to `difference`."""
    size = 0.137
    axes = figure.add_axes((left, 0.71, size, size * WIDTH / HEIGHT))
    if difference is None:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(image[0], cmap="RdBu_r", vmin=-difference, vmax=difference)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(PALE)
    figure.text(left + size / 2, 0.695, text, ha="center", va="top", fontsize=8.5, color=USUAL)


def bars(axes: Axes, p: Tensor, true: int) -> None:
    """The probability of each class: the true one green, a wrong prediction red."""
    predicted = int(p.argmax())
    colours = [TRUE if c == true else WRONG if c == predicted else PALE for c in range(len(p))]
    axes.bar(range(len(p)), p, color=colours, width=0.78)
    for c in {true, predicted}:
        axes.text(c, float(p[c]) + 0.03, f"{100 * p[c]:.0f} %", ha="center", fontsize=8.5, color=colours[c])
    axes.set(ylim=(0, 1.15), yticks=[], xticks=range(len(p)))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.tick_params(length=0, labelsize=8.5, colors=INK)


def pull(figure: Figure, start: float, end: float, *, colour: str, text: str) -> None:
    """An arrow below the predictions from one column to another, and what it says."""
    style = {"arrowstyle": "-|>,head_width=0.4,head_length=0.7", "color": colour, "lw": 2.6, "shrinkA": 0, "shrinkB": 0}
    figure.axes[0].annotate("", (end, 0.2), (start, 0.2), xycoords="figure fraction", arrowprops=style)
    figure.text((start + end) / 2, 0.165, text, ha="center", va="top", fontsize=9, color=colour, linespacing=1.35)


def draw(images: list[Tensor], predictions: list[Tensor], true: int, epsilon: float) -> Figure:
    """Three columns: natural, adversarial, inverse; each an image, its perturbation and its prediction."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=WHITE)
    for column, (image, p) in enumerate(zip(images, predictions, strict=True)):
        left = LEFT + STEP * column
        centre, predicted = left + COLUMN / 2, int(p.argmax())
        figure.text(centre, 0.945, TITLES[column], ha="center", fontsize=10.5, color=INK, weight="bold")
        colour = TRUE if predicted == true else WRONG
        if column:
            show(figure, left, image, text="image")
            show(figure, left + 0.153, image - images[0], text=DIFFERENCES[column], difference=epsilon)
        else:
            show(figure, centre - 0.0685, image, text=f"image, true class {true}")
        figure.text(centre, 0.575, f"predicted: {predicted}", ha="center", fontsize=10, color=colour, weight="bold")
        bars(figure.add_axes((left, 0.29, COLUMN, 0.27)), p, true)
    figure.text(0.03, 0.425, "probability", rotation=90, va="center", fontsize=8.5, color=USUAL)
    middle = LEFT + STEP + COLUMN / 2
    pull(
        figure,
        middle - 0.02,
        LEFT + COLUMN / 2 - 0.06,
        colour=USUAL,
        text="TRADES and its relatives pull the\nadversarial prediction here: to the\nnatural one, which may be wrong",
    )
    pull(
        figure,
        middle + 0.02,
        LEFT + 2 * STEP + COLUMN / 2 + 0.06,
        colour=OURS,
        text="UIAT pulls it here: to the inverse one,\nin the high-likelihood region\nof the true class",
    )
    return figure


def main() -> None:
    """Find the image, attack it, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run of digits-uiat")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()

    model, z = uiat.load(options.run).eval(), uiat.load_inverse(options.run)
    x, y = uiat.data.tensors("digits", "test")
    i = chosen(probabilities(model, x), probabilities(model, z(x, y)), y)
    x, y = x[i : i + 1], y[i : i + 1]
    epsilon = float(model.threat.epsilon)
    attack = uiat.PGD(threat=model.threat, step_size=epsilon / 4, steps=20)
    images = [x, attack(model, x, y, generator=torch.Generator().manual_seed(0)), z(x, y)]
    figure = draw([image[0] for image in images], [probabilities(model, image)[0] for image in images], int(y), epsilon)
    figure.savefig(options.out, metadata={"Software": None})
    print(f"test image {i}, a {int(y)}: {options.out}")


if __name__ == "__main__":
    main()
