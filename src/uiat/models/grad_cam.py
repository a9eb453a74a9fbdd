"""Grad-CAM: where in an image the evidence of a convolutional network for a class lies."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.models.outputs import logits_of
from uiat.shapes import Float, Int


def grad_cam(model: nn.Module, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"]) -> Float[Tensor, "b 1 h w"]:
    """Compute relu(sum_k a_k A_k) / max, with a_k the mean gradient of the logit of y for channel k (Selvaraju 2017).

    "Grad-CAM: Visual Explanations from Deep Networks", eq. 1 and 2. A is the last output of the model that still has
    places, (B, K, H', W') with more than one of them; the map is scaled to [0, 1] image by image and interpolated to
    the image's size. No gradient of a parameter is computed. In the mode that the model is in.

    Args:
        model: maps images to logits.
        x: images.
        y: class whose evidence is located, for each image.

    Raises:
        UserError: no layer of the model has places.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
        >>> grad_cam(model, torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0])).shape
        torch.Size([3, 1, 8, 8])
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            maps[:] = [output]

    # Hooks on the parts alone: normalised images are no evidence, and the model's own output has no places.
    layers = [m for m in model.modules() if any(True for _ in m.parameters())]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.enable_grad():
            logits = logits_of(model(x.detach().requires_grad_()))
            if not maps:
                raise UserError("Grad-CAM needs a network with convolutional layers: none of its outputs has places")
            (gradient,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), maps)
    finally:
        for hook in hooks:
            hook.remove()
    evidence = (gradient.mean(dim=(2, 3), keepdim=True) * maps[0].detach()).sum(dim=1, keepdim=True).relu().float()
    low, high = evidence.amin(dim=(2, 3), keepdim=True), evidence.amax(dim=(2, 3), keepdim=True)
    scaled = (evidence - low) / (high - low).clamp_min(torch.finfo(evidence.dtype).tiny)
    return F.interpolate(scaled, size=x.shape[2:], mode="bilinear", align_corners=False).to(x.dtype)
