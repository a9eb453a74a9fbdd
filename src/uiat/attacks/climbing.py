"""What searches share: the class an attempt aims at, images chosen point by point; Auto-PGD's losses and its look."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uiat import losses
from uiat.attacks.gradient import expected_gradient
from uiat.attacks.points import Classifier, Points
from uiat.errors import UserError

# Cross entropy, difference of logits ratio, and the same towards one class an attempt.
Climbed = Literal["ce", "dlr", "targeted-dlr"]
NAMES: dict[Climbed, str] = {"ce": "apgd-ce", "dlr": "apgd-dlr", "targeted-dlr": "apgd-t"}


def attempts(loss: Climbed, num_classes: int, *, restarts: int, targets: int) -> int:
    """Restarts, each of them once for every target; none where there is only one class to predict.

    Example:
        >>> attempts("targeted-dlr", 4, restarts=2, targets=9), attempts("ce", 1, restarts=2, targets=9)
        (6, 0)
    """
    wrong = max(num_classes - 1, 0)
    return restarts * min(targets if loss == "targeted-dlr" else 1, wrong)


def ranked(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"], attempt: int, *, targets: int) -> Int[Tensor, "b"]:
    """The class that an attempt aims at: of the wrong ones the likeliest, the second likeliest, ..., and again.

    Raises:
        UserError: there is no wrong class.

    Example:
        >>> ranked(torch.tensor([[1.0, 4.0, 3.0]]), torch.tensor([1]), 0, targets=9).tolist()
        [2]
    """
    wrong = logits.shape[1] - 1
    if wrong < 1:
        raise UserError("there is no class to aim at: a model with only one class tells only one apart")
    order = logits.scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)
    return order[:, attempt % min(targets, wrong)]


def values(loss: Climbed, logits: Float[Tensor, "b k"], points: Points) -> Float[Tensor, "b"]:
    """The loss that is climbed, for the points' labels and, where there are any, targets.

    Example:
        >>> values("dlr", torch.tensor([[4.0, 1.0, 3.0, 2.0]]), {"y": torch.tensor([0])}).item()
        -0.5
    """
    if loss == "targeted-dlr":
        return losses.dlr_targeted(logits, points["y"], points["target"])
    of = losses.cross_entropy if loss == "ce" else losses.dlr
    return of(logits, points["y"])


def look(
    model: Classifier, points: Points, at: Float[Tensor, "b ..."], *, loss: Climbed, draws: int = 1, last: bool = False
) -> Points:
    """Loss, whether the prediction is wrong, and (except at the `last` place) the gradient: one forward pass.

    Of a randomised model, with `draws` above one, all three are of the mean over so many passes.

    Example:
        >>> points = {"y": torch.tensor([0])}
        >>> found = look(lambda x: torch.cat([x, 1 - x], dim=1), points, torch.tensor([[0.25]]), loss="dlr")
        >>> found["loss"].item(), found["broken"].item(), found["gradient"].item()
        (0.5, True, -2.0)
    """

    def inner(x_adv: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x_adv)
        return values(loss, logits, points), logits

    if last and draws == 1:
        value, logits = inner(at)
        return {"loss": value, "broken": logits.argmax(dim=1) != points["y"]}
    found = expected_gradient(inner, at, draws=draws)
    # A gradient that is not a number would move the point to where no prediction means anything.
    gradient = found.gradient.nan_to_num(nan=0.0)
    return {"loss": found.values, "broken": found.logits.argmax(dim=1) != points["y"], "gradient": gradient}


def shaped(numbers: Tensor, x: Tensor) -> Tensor:
    """A number of each point, shaped to multiply its image.

    Example:
        >>> shaped(torch.ones(2), torch.zeros(2, 3, 4, 4)).shape
        torch.Size([2, 1, 1, 1])
    """
    return numbers.view(-1, *[1] * (x.ndim - 1))


def choose(which: Bool[Tensor, "b"], yes: Tensor, no: Tensor) -> Tensor:
    """Whole images, chosen by a condition of each point.

    Example:
        >>> choose(torch.tensor([True, False]), torch.ones(2, 1), torch.zeros(2, 1)).tolist()
        [[1.0], [0.0]]
    """
    return torch.where(shaped(which, yes), yes, no)
