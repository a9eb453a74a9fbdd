"""What counts as misclassified, in one call of the model or in several, and which examples are allowed."""

import torch
from torch import Tensor

from uiat.attacks.search import Classifier, Search
from uiat.shapes import Bool, Float, Int


def is_misclassified(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"]) -> Bool[Tensor, "b"]:
    """Mask of the images whose largest logit is not that of y, or with a NaN logit, which would win every comparison.

    Example:
        >>> is_misclassified(torch.tensor([[1.0, 2.0], [1.0, float("nan")]]), torch.tensor([1, 1])).tolist()
        [False, True]
    """
    return (logits.argmax(dim=1) != y) | logits.isnan().any(dim=1)


def count_misclassified(
    model: Classifier, x: Float[Tensor, "b ..."], y: Int[Tensor, "b"], calls: int
) -> Int[Tensor, "b"]:
    """Count the calls of a model, of so many, that misclassify each image.

    Example:
        >>> count_misclassified(lambda x: x, torch.eye(2), torch.tensor([0, 0]), 3).tolist()
        [0, 3]
    """
    with torch.no_grad():
        return torch.stack([is_misclassified(model(x), y) for _ in range(calls)]).sum(dim=0)


def is_allowed(attack: Search, x_adv: Float[Tensor, "b ..."], x: Float[Tensor, "b ..."]) -> Bool[Tensor, "b"]:
    """Mask of the examples in [0, 1] that the attack's threat model allows; without one, of all in [0, 1].

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks import Noise
        >>> is_allowed(Noise(threat=Linf(0.1)), torch.tensor([[0.6], [0.7]]), torch.full((2, 1), 0.5)).tolist()
        [True, False]
    """
    threat = getattr(attack, "threat", None)
    flat = x_adv.flatten(1)
    inside = (flat >= 0).all(dim=1) & (flat <= 1).all(dim=1)
    return inside if threat is None else inside & threat.allows(x_adv, x)
