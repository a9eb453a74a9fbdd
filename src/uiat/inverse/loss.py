"""L_inv, the loss that an inverse adversary lowers, and what such an adversary has in common with the others."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import InnerLoss
from uiat.checks import number
from uiat.errors import UserError
from uiat.models.modes import attack_mode
from uiat.shapes import Float

Regulariser = Literal["none", "feature", "feature-repulsion", "logit"]


class Inverse(NamedTuple):
    """Inverse examples, with their logits if a pass that was needed anyway has computed them."""

    x_inv: Tensor  # (B, C, H, W)
    logits: Tensor | None  # (B, K), detached


def set_number(adversary: object, name: str) -> float:
    """Put a number in place of a field of an inverse adversary's settings that may be a fraction, and return it.

    Raises:
        UserError: it is no number, or not above 0.

    Example:
        >>> from uiat import InstanceInverse
        >>> InstanceInverse(radius="51/255").radius  # by this function
        0.2
    """
    value = number(getattr(adversary, name), name=f"inverse.{name}")
    if value == 0:
        raise UserError(f"inverse.{name} must be positive")
    object.__setattr__(adversary, name, value)
    return float(value)


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


def check_features(model: nn.Module, x: Float[Tensor, "b c h w"]) -> None:
    """Refuse a model whose features and head are not the two halves of what it computes.

    Args:
        model: maps images to logits; tried in eval mode and left as it was.
        x: images, of which a few are passed.

    Raises:
        UserError: it lacks one of them, or `head(features(x))` are other logits than `model(x)`.

    Example:
        >>> from uiat import models
        >>> model = models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4)
        >>> check_features(model, torch.rand(3, 1, 8, 8))
    """
    features, head = _halves(model)
    with torch.no_grad(), attack_mode(model):
        logits, other = model(x[:4]), head(features(x[:4]))
    if logits.shape != other.shape or not torch.allclose(
        logits, other, rtol=1e-2, atol=1e-2 * float(logits.abs().max())
    ):
        raise UserError(
            'the "feature" regulariser computes logits by model.head(model.features(x)), which are not those of '
            "model(x): what forward does between the two belongs into one of them"
        )


def _halves(model: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return features and head of a model."""
    features, head = getattr(model, "features", None), getattr(model, "head", None)
    if not (callable(features) and callable(head)):
        raise UserError('the "feature" regulariser needs a model with features(x) and head(features)')
    return features, head


def _feature_regulariser(model: nn.Module, x: Tensor, x_adv: Tensor, *, repulsion: bool) -> InnerLoss:
    features, head = _halves(model)
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
