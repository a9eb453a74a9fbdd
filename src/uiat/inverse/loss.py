"""L_inv, the loss that an inverse adversary lowers."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import InnerLoss
from uiat.errors import UserError

Regulariser = Literal["none", "feature", "feature-repulsion", "logit"]


def inverse_loss(
    model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, regulariser: Regulariser, weight: float
) -> InnerLoss:
    """Return L_inv = CE(f(x_inv), y) + mu R as a function of x_inv, the loss that an inverse adversary lowers (UIAT).

    R is 0 for "none"; ||h(x_inv) - h(x)||^2 for "feature"; ||h(x_inv) - h(x)||^2 - ||h(x_inv) - h(x_adv)||^2 for
    "feature-repulsion"; KL(p(x) || p(x_inv)) - KL(p(x_adv) || p(x_inv)) for "logit". Terms that do not depend on x_inv
    are computed once.

    Args:
        model: maps images to logits; with `features` and `head` for the two "feature" regularisers.
        x: images.
        x_adv: their adversarial examples.
        y: labels.
        regulariser: name of R.
        weight: mu.

    Raises:
        UserError: the regulariser needs features that the model does not have.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
        >>> values, logits = inverse_loss(model, x, x, y, regulariser="none", weight=1.0)(x)
        >>> values.shape
        torch.Size([3])
    """
    regularised: Callable[[Tensor], tuple[Tensor, Tensor]]
    if regulariser == "none":

        def regularised(x_inv: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(x_inv)
            return torch.zeros((), device=x.device), logits
    elif regulariser == "logit":
        with torch.no_grad():
            log_p, log_p_adv = (losses.log_probabilities(model(v)) for v in (x, x_adv))

        def regularised(x_inv: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(x_inv)
            log_q = losses.log_probabilities(logits)
            return losses.kl(log_p, log_q) - losses.kl(log_p_adv, log_q), logits
    else:
        regularised = _feature_regulariser(model, x, x_adv, repulsion=regulariser == "feature-repulsion")

    def loss(x_inv: Tensor) -> tuple[Tensor, Tensor]:
        penalty, logits = regularised(x_inv)
        return losses.cross_entropy(logits, y) + weight * penalty, logits

    return loss


def _feature_regulariser(model: nn.Module, x: Tensor, x_adv: Tensor, *, repulsion: bool) -> InnerLoss:
    if not (callable(getattr(model, "features", None)) and callable(getattr(model, "head", None))):
        raise UserError('the "feature" regulariser needs a model with features(x) and head(features)')
    features: Callable[[Tensor], Tensor] = model.features  # type: ignore[assignment]
    head: Callable[[Tensor], Tensor] = model.head  # type: ignore[assignment]
    with torch.no_grad():
        h = features(x)
        h_adv = features(x_adv) if repulsion else None

    def regularised(x_inv: Tensor) -> tuple[Tensor, Tensor]:
        h_inv = features(x_inv)
        penalty = (h_inv - h).float().square().flatten(1).sum(dim=1)
        if h_adv is not None:
            penalty = penalty - (h_inv - h_adv).float().square().flatten(1).sum(dim=1)
        return penalty, head(h_inv)

    return regularised
