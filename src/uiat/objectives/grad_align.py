"""GradAlign (Andriushchenko & Flammarion 2020): input gradients that point the same way throughout the ball."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uiat import losses
from uiat.attacks.gradient import input_gradient
from uiat.attacks.random_numbers import KeyedNumbers, rekey
from uiat.models.modes import BatchNormMode, attack_mode, frozen
from uiat.system.distributed import current_rank
from uiat.threat import Threat, to_range

POINT = 2  # which random numbers of an image


def misalignment(
    model: nn.Module,
    x: Float[Tensor, "b ..."],
    y: Int[Tensor, "b"],
    threat: Threat,
    *,
    batchnorm: BatchNormMode = "eval",
) -> Float[Tensor, "b"]:
    """1 - cos(grad loss(x), grad loss(x + eta)), eta uniform in the ball, with its gradient for the weights.

    "Understanding and Improving Fast Adversarial Training", eq. 4: single-step training that keeps this small does not
    overfit catastrophically.

    Two passes whose input gradients are differentiated again: about 12 F. BatchNorm statistics are not moved.

    The gradients are those that the attack would take, with BatchNorm as it has it. The authors take those of train
    mode, which mix the images of a batch, and whose second derivative goes through the batch's statistics, too: twice
    the time on a CPU.

    Example:
        >>> from uiat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
        >>> found = misalignment(model, x, y, Linf(0.1))  # two classes, one linear layer: one direction
        >>> torch.allclose(found, torch.zeros(3), atol=1e-6)
        True
    """
    there = threat.project(x + current_rank().draw(x, threat.noise), x)
    gradients: list[Tensor] = []
    with attack_mode(model, batchnorm=batchnorm), torch.enable_grad():
        for at in (x, there):
            at = at.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(losses.cross_entropy(model(at), y).sum(), at, create_graph=True)
            gradients.append(gradient.float().flatten(1))
    return 1 - nn.functional.cosine_similarity(gradients[0], gradients[1], dim=1)


def alignment(
    model: nn.Module, x: Float[Tensor, "b ..."], y: Int[Tensor, "b"], threat: Threat, *, key: Int[Tensor, "b"]
) -> Float[Tensor, "b"]:
    """cos(grad loss(x), grad loss(x + eta)) of each image, on the CPU, to be looked at and not to be trained with.

    eta is uniform in the ball and clipped to [0, 1], from each image's key (`uiat.attacks.random_numbers.keys`) and
    from no generator. Two passes and their input gradients: 4 F. In eval mode.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.random_numbers import keys
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))  # its gradient has the same direction everywhere
        >>> x, y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
        >>> alignment(model, x, y, Linf(0.1), key=keys(0, torch.arange(2)))
        tensor([1.0000, 1.0000])
    """

    def loss(at: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(at)
        return losses.cross_entropy(logits, y), logits

    eta = threat.noise_from(x, KeyedNumbers(rekey(key, POINT)))
    with frozen(model):
        here, there = (input_gradient(loss, at).gradient.cpu().flatten(1).double() for at in (x, to_range(x + eta)))
    # Gradients of a sure model are tiny, and the usual floor of 1e-8 on their lengths would flatten the cosine.
    return nn.functional.cosine_similarity(here, there, dim=1, eps=1e-30).float()
