"""Losses of logits, one value for each example. Nothing here runs a model, takes a mean or touches a gradient.

Half-precision logits are raised to float32 first: the sums of exponentials are where bf16 loses most.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from uiat.checks import AtMostOne, check_labels, checked
from uiat.errors import UserError
from uiat.shapes import Float, Int

# Equal logits make DLR's denominator zero; the numerator is then zero too, unless the prediction is already wrong.
_SMALLEST_SPREAD = 1e-12
_NO_LABEL = torch.iinfo(torch.int64).min  # torch would pass over -100, and call its loss 0
P = ParamSpec("P")


def _labelled(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Say in a sentence why a loss has failed, where labels are out of range or elsewhere; costs nothing where not."""

    @wraps(function)
    def labelled(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        try:
            return function(*args, **kwargs)
        except (RuntimeError, IndexError, NotImplementedError):
            logits, *labels = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
            for y in labels:
                if y.device != logits.device or y.is_meta:
                    where = f"logits are on {logits.device} and labels on {y.device}"
                    raise UserError(f"{where}: move one of them to the other") from None
                if y.dtype == torch.int64:
                    check_labels(y, num_classes=logits.shape[1])
            raise

    return labelled


def full_precision(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32, and others as they are.

    Example:
        >>> full_precision(torch.zeros(1, 2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def full_precision_passes(device: torch.device) -> AbstractContextManager[object]:
    """Inside, products are those of their arguments' own type, also in a step of bf16: for sums that are kept.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), full_precision_passes(torch.device("cpu")):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.float32
    """
    return torch.autocast(device.type, enabled=False)


@checked
@_labelled
def log_probabilities(logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Compute log softmax of the logits, in full precision.

    Example:
        >>> log_probabilities(torch.zeros(1, 2)).exp().tolist()
        [[0.5, 0.5]]
    """
    return F.log_softmax(full_precision(logits), dim=1)


def log_of(p: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Compute the logarithm of probabilities; of 0 that of the smallest normal number, in place of -inf.

    Example:
        >>> log_of(torch.tensor([[0.0, 1.0]])).isfinite().all().item()
        True
    """
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


@checked
@_labelled
def cross_entropy(
    logits: Float[Tensor, "b k"], y: Int[Tensor, "b"] | Float[Tensor, "b k"], *, label_smoothing: AtMostOne = 0.0
) -> Float[Tensor, "b"]:
    """Compute -log p_y, or the cross entropy against labels smoothed to (1 - s) one-hot + s / K.

    Args:
        logits: logits (B, K).
        y: labels (B,), or probabilities (B, K) in place of one-hot ones.
        label_smoothing: s, in [0, 1].

    Example:
        >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item(), 4)  # log 4
        1.3863
    """
    return F.cross_entropy(
        full_precision(logits), y, reduction="none", label_smoothing=label_smoothing, ignore_index=_NO_LABEL
    )


@checked
@_labelled
def kl(log_p: Float[Tensor, "b k"], log_q: Float[Tensor, "b k"]) -> Float[Tensor, "b"]:
    """Compute the Kullback-Leibler divergence KL(p || q) = sum_k p_k (log p_k - log q_k) from log-probabilities.

    p is the target. Gradients flow into both arguments.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> round(kl(p.log(), q.log()).item(), 4)  # 0.5 log 2 + 0.5 log(2/3)
        0.1438
    """
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def squared_distance(log_p: Float[Tensor, "b k"], log_q: Float[Tensor, "b k"]) -> Float[Tensor, "b"]:
    """Compute sum_k (p_k - q_k)^2 from log-probabilities (Pang et al. 2022, SCORE, the squared error).

    Gradients flow into both arguments.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> round(squared_distance(p.log(), q.log()).item(), 4)
        0.125
    """
    return (log_p.exp() - log_q.exp()).square().sum(dim=1)


def soft_cross_entropy(logits: Float[Tensor, "b k"], target: Float[Tensor, "b k"]) -> Float[Tensor, "b"]:
    """Compute -sum_k t_k log p_k, the cross entropy against probabilities t.

    Example:
        >>> round(soft_cross_entropy(torch.zeros(1, 4), torch.tensor([[0.5, 0.5, 0.0, 0.0]])).item(), 4)  # log 4
        1.3863
    """
    return -(target * log_probabilities(logits)).sum(dim=1)


def smooth_labels(y: Int[Tensor, "b"], num_classes: int, *, label_smoothing: float) -> Float[Tensor, "b k"]:
    """Return the labels as probabilities, (1 - s) one-hot + s / K.

    Example:
        >>> smooth_labels(torch.tensor([1]), 2, label_smoothing=0.5).tolist()
        [[0.25, 0.75]]
    """
    return (1 - label_smoothing) * F.one_hot(y, num_classes).float() + label_smoothing / num_classes


@checked
@_labelled
def margin(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Compute max_{k != y} logit_k - logit_y (Carlini & Wagner 2017, f_6), positive where the prediction is wrong.

    Example:
        >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0])).item()
        -1.0
    """
    logits = full_precision(logits)
    own = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.amax(dim=1) - own


@checked
@_labelled
def boosted_cross_entropy(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Compute -log p_y - log(1 - max_{k != y} p_k) (Wang et al. 2020, MART, eq. 7).

    The second term is the log of a sum over all classes but the strongest wrong one, taken in log space, so a confident
    wrong prediction gives a large loss and no infinity.

    Example:
        >>> round(boosted_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item(), 4)  # 2 log 2
        1.3863
    """
    log_p = log_probabilities(logits)
    rival = log_p.scatter(1, y[:, None], float("-inf")).argmax(dim=1, keepdim=True)
    rest = log_p.scatter(1, rival, float("-inf")).logsumexp(dim=1)
    return -log_p.gather(1, y[:, None]).squeeze(1) - rest


@checked
@_labelled
def dlr(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Compute the difference of logits ratio (max_{k != y} z_k - z_y) / (z_(1) - z_(3)) (Croce & Hein 2020, section 4).

    z_(1) >= z_(2) >= ... are the logits in order. Unlike cross entropy it does not change when the logits are scaled or
    shifted, so its gradient does not vanish on a confident model. With two classes there is no third logit, and the
    ratio to the first two would be constant: the denominator is then one, and the loss is `margin`.

    Raises:
        UserError: fewer than two classes.

    Example:
        >>> dlr(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), torch.tensor([0])).item()  # (3 - 4) / (4 - 2)
        -0.5
    """
    logits = full_precision(logits)
    _require_two_classes(logits)
    gap = margin(logits, y)
    if logits.shape[1] == 2:
        return gap
    top = logits.topk(3, dim=1).values
    return gap / (top[:, 0] - top[:, 2]).clamp_min(_SMALLEST_SPREAD)


@checked
@_labelled
def dlr_targeted(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"], target: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Compute the ratio towards class t, (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce & Hein 2020, section 4).

    The mean of two logits keeps the ratio from being constant where y is the strongest class and t the fourth. With
    three classes the second and third logits take their place, for the same reason; with two the denominator is one,
    and the loss is `margin`.

    Raises:
        UserError: fewer than two classes.

    Example:
        >>> y, target = torch.tensor([0]), torch.tensor([2])
        >>> dlr_targeted(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), y, target).item()  # (3 - 4) / (4 - (2 + 1) / 2)
        -0.4000000059604645
    """
    logits = full_precision(logits)
    _require_two_classes(logits)
    gap = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
    if logits.shape[1] == 2:
        return gap
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    return gap / (top[:, 0] - top[:, -2:].mean(dim=1)).clamp_min(_SMALLEST_SPREAD)


def _require_two_classes(logits: Tensor) -> None:
    if logits.shape[1] < 2:
        raise UserError(f"the DLR loss compares two classes, but the logits have {logits.shape[1]}")
