"""The decision boundary that is nearest to a point by its linearisation, among those to all other classes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uiat.attacks.climbing import choose
from uiat.attacks.gradient import Gradient, require_gradient
from uiat.attacks.points import Classifier
from uiat.errors import UserError

# The order of the dual norm, which a linear function's slope is measured in.
DUAL = {"Linf": 1.0, "L2": 2.0, "L1": float("inf")}


def nearest_boundary(model: Classifier, x: Float[Tensor, "b ..."], y: Int[Tensor, "b"], *, norm: str) -> Gradient:
    """logit_k - logit_y and its gradient, for the k with the least |logit_k - logit_y| / ||gradient||_dual.

    The step of FAB (Croce & Hein 2020, eq. 7) and of DeepFool (Moosavi-Dezfooli et al. 2016). One forward pass and a
    backward pass for each class; two images' worth of gradients are held at a time, however many classes there are.

    Raises:
        UserError: one class only, or an output without a gradient.

    Example:
        >>> w = torch.tensor([[1.0, 0.0], [0.0, 4.0], [2.0, 0.0]])
        >>> here = nearest_boundary(lambda x: x @ w.t(), torch.ones(1, 2) / 2, torch.tensor([0]), norm="L2")
        >>> here.values.tolist(), here.gradient.tolist()  # class 1: 1.5 / 17^0.5, class 2: 0.5 / 1
        ([1.5], [[-1.0, 4.0]])
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = model(x)
        require_gradient(logits)
        classes = logits.shape[1]
        if classes < 2:
            raise UserError("FAB needs a class other than y to aim at, but the model has only one class")
        above = logits - logits.gather(1, y[:, None])
        nearest, w, gap = torch.full_like(above[:, 0], float("inf")), torch.zeros_like(x), torch.zeros_like(above[:, 0])
        for k in range(classes):
            (slope,) = torch.autograd.grad(above[:, k].sum(), x, retain_graph=k + 1 < classes)
            steepness = torch.linalg.vector_norm(slope.flatten(1), ord=DUAL[norm], dim=1)
            distance = above[:, k].abs() / steepness.clamp_min(torch.finfo(x.dtype).tiny)
            closer = (distance < nearest) & (y != k)
            nearest, gap = torch.where(closer, distance, nearest), torch.where(closer, above[:, k], gap)
            w = choose(closer, slope, w)
    return Gradient(w.detach(), gap.detach(), logits.detach())
