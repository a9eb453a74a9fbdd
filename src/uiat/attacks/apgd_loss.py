"""What searches share: the class an attempt aims at, images chosen point by point; Auto-PGD's losses and its look."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from uiat import losses
from uiat.attacks.gradient import expected_gradient
from uiat.attacks.search import Classifier, SearchState

# Cross entropy, difference of logits ratio, and the same towards one class an attempt.
LossName = Literal["ce", "dlr", "targeted-dlr"]
NAMES: dict[LossName, str] = {"ce": "apgd-ce", "dlr": "apgd-dlr", "targeted-dlr": "apgd-t"}


def count_attempts(loss: LossName, num_classes: int, *, restarts: int, targets: int) -> int:
    """Restarts, each of them once for every target; none where there is only one class to predict.

    Example:
        >>> count_attempts("targeted-dlr", 4, restarts=2, targets=9), count_attempts("ce", 1, restarts=2, targets=9)
        (6, 0)
    """
    wrong = max(num_classes - 1, 0)
    return restarts * min(targets if loss == "targeted-dlr" else 1, wrong)


def loss_values(loss: LossName, logits: Float[Tensor, "b k"], points: SearchState) -> Float[Tensor, "b"]:
    """The loss that is climbed, for the points' labels and, where there are any, targets.

    Example:
        >>> import torch
        >>> loss_values("dlr", torch.tensor([[4.0, 1.0, 3.0, 2.0]]), {"y": torch.tensor([0])}).item()
        -0.5
    """
    if loss == "targeted-dlr":
        return losses.dlr_targeted(logits, points["y"], points["target"])
    of = losses.cross_entropy if loss == "ce" else losses.dlr
    return of(logits, points["y"])


def evaluate_loss(
    model: Classifier,
    points: SearchState,
    at: Float[Tensor, "b ..."],
    *,
    loss: LossName,
    draws: int = 1,
    last: bool = False,
) -> SearchState:
    """Loss, whether the prediction is wrong, and (except at the `last` place) the gradient: one forward pass.

    Of a randomised model, with `draws` above one, all three are of the mean over so many passes.

    Example:
        >>> import torch
        >>> points = {"y": torch.tensor([0])}
        >>> found = evaluate_loss(lambda x: torch.cat([x, 1 - x], dim=1), points, torch.tensor([[0.25]]), loss="dlr")
        >>> found["loss"].item(), found["broken"].item(), found["gradient"].item()
        (0.5, True, -2.0)
    """

    def inner(x_adv: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x_adv)
        return loss_values(loss, logits, points), logits

    if last and draws == 1:
        value, logits = inner(at)
        return {"loss": value, "broken": logits.argmax(dim=1) != points["y"]}
    found = expected_gradient(inner, at, draws=draws)
    # A gradient that is not a number would move the point to where no prediction means anything.
    gradient = found.gradient.nan_to_num(nan=0.0)
    return {"loss": found.values, "broken": found.logits.argmax(dim=1) != points["y"], "gradient": gradient}
