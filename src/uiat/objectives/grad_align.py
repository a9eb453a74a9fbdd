"""GradAlign (Andriushchenko & Flammarion 2020): input gradients that point the same way all over the threat's ball."""

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.attacks.gradient import input_gradient
from uiat.attacks.random_numbers import KeyedNumbers, rekey
from uiat.models.modes import attack_mode, frozen
from uiat.shapes import Float, Int
from uiat.system.distributed import current_rank
from uiat.threat import Threat, to_range

POINT = 2  # the stream of an image's random numbers that its second point is drawn from


def misalignment(
    model: nn.Module, x: Float[Tensor, "b ..."], y: Int[Tensor, "b"] | Float[Tensor, "b k"], attack: PGD
) -> Float[Tensor, "b"]:
    """Compute 1 - cos(grad loss(x), grad loss(x + eta)), eta uniform in the ball, with its gradient for the weights.

    "Understanding and Improving Fast Adversarial Training", eq. 4: single-step training that keeps this small does not
    overfit catastrophically.

    Two passes whose input gradients are differentiated again: about 12 F. BatchNorm statistics are not moved.

    The gradients are those that the attack would take, with BatchNorm as it has it. The authors take those of train
    mode, which mix the images of a batch, and whose second derivative goes through the batch's statistics, too: twice
    the time on a CPU.

    Args:
        model: maps images (B, C, H, W) in [0, 1] to logits (B, K).
        x: images.
        y: labels, or probabilities.
        attack: the attack that the model is trained on: its threat model gives the ball, and its `batchnorm` the mode.

    Example:
        >>> from uiat import FGSM, Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
        >>> value = misalignment(model, x, y, FGSM(threat=Linf(0.1)))  # two classes, one linear layer: one direction
        >>> torch.allclose(value, torch.zeros(3), atol=1e-6)
        True
    """
    x_eta = attack.threat.project(x + current_rank().draw(x, attack.threat.noise), x)
    gradients: list[Tensor] = []
    with attack_mode(model, batchnorm=attack.batchnorm), torch.enable_grad():
        for point in (x, x_eta):
            point = point.detach().requires_grad_()
            # create_graph: the cosine below is itself differentiated, for the weights.
            (gradient,) = torch.autograd.grad(losses.cross_entropy(model(point), y).sum(), point, create_graph=True)
            gradients.append(gradient.float().flatten(1))
    # Gradients of a confident model are tiny, and the usual floor of 1e-8 on their lengths would make a cosine of 0 of
    # them: each is brought to length 1 first, by its largest entry, whose square is no zero.
    # Where there is none at all, nothing can be out of line.
    largest = [g.detach().abs().amax(dim=1, keepdim=True) for g in gradients]
    tiny = torch.finfo(largest[0].dtype).tiny
    at_x, at_x_eta = (g / most.clamp_min(tiny) for g, most in zip(gradients, largest, strict=True))
    some = (largest[0] > 0).logical_and(largest[1] > 0).flatten()
    return some * (1 - nn.functional.cosine_similarity(at_x, at_x_eta, dim=1))


def alignment(
    model: nn.Module, x: Float[Tensor, "b ..."], y: Int[Tensor, "b"], threat: Threat, *, key: Int[Tensor, "b"]
) -> Float[Tensor, "b"]:
    """Compute cos(grad loss(x), grad loss(x + eta)) of each image, on the CPU: a measurement, not a loss.

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

    def loss(point: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(point)
        return losses.cross_entropy(logits, y), logits

    eta = threat.noise_from(x, KeyedNumbers(rekey(key, POINT)))
    with frozen(model):
        points = (x, to_range(x + eta))
        at_x, at_x_eta = (input_gradient(loss, point).gradient.cpu().flatten(1).double() for point in points)
    # Gradients of a confident model are tiny, and the usual floor of 1e-8 on their lengths would flatten the cosine.
    return nn.functional.cosine_similarity(at_x, at_x_eta, dim=1, eps=1e-30).float()
