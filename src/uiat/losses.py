"""Per-example losses of logits, each of shape (B,). Nothing here runs a model, takes a mean or touches a gradient.

Half-precision logits are raised to float32 first: the sums of exponentials are where bf16 loses most.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def _full(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def log_probabilities(logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """log softmax of the logits, in full precision.

    Example:
        >>> log_probabilities(torch.zeros(1, 2)).exp().tolist()
        [[0.5, 0.5]]
    """
    return F.log_softmax(_full(logits), dim=1)


def cross_entropy(
    logits: Float[Tensor, "b k"], y: Int[Tensor, "b"], *, label_smoothing: float = 0.0
) -> Float[Tensor, "b"]:
    """-log p_y, or against labels smoothed to (1 - s) one-hot + s / K.

    Example:
        >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item(), 4)  # log 4
        1.3863
    """
    return F.cross_entropy(_full(logits), y, reduction="none", label_smoothing=label_smoothing)


def kl(log_p: Float[Tensor, "b k"], log_q: Float[Tensor, "b k"]) -> Float[Tensor, "b"]:
    """Kullback-Leibler divergence KL(p || q) = sum_k p_k (log p_k - log q_k), from log-probabilities; p is the target.

    Gradients flow into both arguments.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> round(kl(p.log(), q.log()).item(), 4)  # 0.5 log 2 + 0.5 log(2/3)
        0.1438
    """
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def margin(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    """max_{k != y} logit_k - logit_y (Carlini & Wagner 2017, f_6): positive where the prediction is wrong.

    Example:
        >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0])).item()
        -1.0
    """
    logits = _full(logits)
    right = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.amax(dim=1) - right


def boosted_cross_entropy(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
    """-log p_y - log(1 - max_{k != y} p_k) (Wang et al. 2020, MART, eq. 7).

    The second term is the log of a sum over all classes but the strongest wrong one, taken in log space, so a sure
    and wrong prediction gives a large loss and no infinity.

    Example:
        >>> round(boosted_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item(), 4)  # 2 log 2
        1.3863
    """
    log_p = log_probabilities(logits)
    rival = log_p.scatter(1, y[:, None], float("-inf")).argmax(dim=1, keepdim=True)
    rest = log_p.scatter(1, rival, float("-inf")).logsumexp(dim=1)
    return -log_p.gather(1, y[:, None]).squeeze(1) - rest
