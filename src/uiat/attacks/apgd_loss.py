"""Losses of Auto-PGD: their names, the number of attempts, and loss, prediction and gradient by one pass."""

from typing import Literal

from torch import Tensor

from uiat import losses
from uiat.attacks.gradient import expected_gradient
from uiat.attacks.search import Classifier, SearchState
from uiat.shapes import Float

# Cross entropy, difference of logits ratio, and both towards one class an attempt.
LossName = Literal["ce", "dlr", "targeted-ce", "targeted-dlr"]
NAMES: dict[LossName, str] = {
    "ce": "apgd-ce",
    "dlr": "apgd-dlr",
    "targeted-ce": "apgd-t-ce",
    "targeted-dlr": "apgd-t",
}


def is_targeted(loss: LossName) -> bool:
    """True if a loss aims at one class an attempt.

    Example:
        >>> is_targeted("targeted-ce"), is_targeted("ce")
        (True, False)
    """
    return loss in ("targeted-ce", "targeted-dlr")


def count_attempts(loss: LossName, num_classes: int, *, restarts: int, targets: int) -> int:
    """Return the number of restarts times targets, 0 if there is only one class to predict.

    Example:
        >>> count_attempts("targeted-dlr", 4, restarts=2, targets=9), count_attempts("ce", 1, restarts=2, targets=9)
        (6, 0)
    """
    wrong = max(num_classes - 1, 0)
    return restarts * min(targets if is_targeted(loss) else 1, wrong)


def loss_values(loss: LossName, logits: Float[Tensor, "b k"], points: SearchState) -> Float[Tensor, "b"]:
    """Compute the loss that is raised, for the labels of the images and, where there are any, their targets.

    Example:
        >>> import torch
        >>> loss_values("dlr", torch.tensor([[4.0, 1.0, 3.0, 2.0]]), {"y": torch.tensor([0])}).item()
        -0.5
    """
    if loss == "targeted-dlr":
        return losses.dlr_targeted(logits, points["y"], points["target"])
    if loss == "targeted-ce":
        return -losses.cross_entropy(logits, points["target"])
    loss_function = losses.cross_entropy if loss == "ce" else losses.dlr
    return loss_function(logits, points["y"])


def evaluate_loss(
    model: Classifier,
    points: SearchState,
    at: Float[Tensor, "b ..."],
    *,
    loss: LossName,
    draws: int = 1,
    last: bool = False,
) -> SearchState:
    """Compute the loss at some images, whether the prediction is wrong, and the gradient, by one forward pass.

    Args:
        model: maps images to logits.
        points: state of the search, for labels and targets.
        at: images to evaluate.
        loss: name of the loss.
        draws: number of passes of a randomised model whose mean is taken.
        last: leave the gradient out, because no step follows.

    Returns:
        "loss" (b,), "broken" (b,), and "gradient" like the images.

    Raises:
        UserError: the model's output has no gradient, or too few classes for the loss.

    Example:
        >>> import torch
        >>> points = {"y": torch.tensor([0])}
        >>> here = evaluate_loss(lambda x: torch.cat([x, 1 - x], dim=1), points, torch.tensor([[0.25]]), loss="dlr")
        >>> here["loss"].item(), here["broken"].item(), here["gradient"].item()
        (0.5, True, -2.0)
    """

    def inner(x_adv: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x_adv)
        return loss_values(loss, logits, points), logits

    if last and draws == 1:
        value, logits = inner(at)
        return {"loss": value, "broken": logits.argmax(dim=1) != points["y"]}
    mean = expected_gradient(inner, at, draws=draws)
    # A gradient that is not a number would move the image to where no prediction means anything.
    gradient = mean.gradient.nan_to_num(nan=0.0)
    return {"loss": mean.values, "broken": mean.logits.argmax(dim=1) != points["y"], "gradient": gradient}
