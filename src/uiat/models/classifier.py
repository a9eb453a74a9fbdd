"""The structure of every built-in model: normalise, then a body that gives features, then a linear head."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uiat.checks import checked_fields
from uiat.errors import UserError
from uiat.shapes import Float


def _as_list(values: Sequence[float | int] | Tensor) -> list[float]:
    """Return the values of a channel each, from a list or a tensor of them."""
    if isinstance(values, Tensor):
        return [float(value) for value in values.flatten().tolist()]
    return [*values]


@checked_fields
class Normalize(nn.Module):
    """The first layer of a model, `(x - mean) / std` per channel, for images in [0, 1].

    The two vectors are buffers, so a saved model carries them and an attack always works in the units of the image.

    Args:
        mean: one value for each channel, in [0, 1].
        std: one value for each channel, above 0 and at most 1.

    Raises:
        UserError: for values outside these ranges (such as 0 to 255), or vectors of different lengths; in `forward`,
            for images that are not (B, C, H, W) with as many channels.

    Example:
        >>> import torch
        >>> Normalize(mean=[0.5], std=[0.25])(torch.ones(1, 1, 1, 1)).item()
        2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float | int] | Tensor, std: Sequence[float | int] | Tensor) -> None:
        super().__init__()
        # Checked as Python numbers, so that a model can also be laid out on the meta device.
        means, stds = (_as_list(values) for values in (mean, std))
        if not means or len(means) != len(stds):
            raise UserError(f"mean has {len(means)} values and std {len(stds)}; give one of each for every channel")
        if not all(0 <= m <= 1 for m in means):
            raise UserError(f"mean is {means}; images are in [0, 1], so give it in those units (divide by 255)")
        if not all(math.isfinite(s) and 0 < s <= 1 for s in stds):
            raise UserError(f"std is {stds}; give values above 0 and at most 1, for images in [0, 1]")
        self.register_buffer("mean", torch.tensor(means))
        self.register_buffer("std", torch.tensor(stds))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images (B, C, H, W) in [0, 1]."""
        # Without this check a grey image would silently broadcast to three channels.
        if x.ndim != 4 or x.shape[1] != self.mean.numel():
            raise UserError(
                f"the model takes images of shape (batch, {self.mean.numel()}, height, width), not {tuple(x.shape)}"
            )
        return (x - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        """Describe the layer for `print(model)`."""
        return f"channels={self.mean.numel()}"


@checked_fields
class Classifier(nn.Module):
    """A classifier `head(features(x))` with `features(x) = body(normalize(x))`.

    The keys of its state dict are `normalize.mean`, `normalize.std`, `body.*` and `head.*`.

    Args:
        normalize: the first layer.
        body: maps normalised images (B, C, H, W) to features (B, D).
        head: maps features (B, D) to logits (B, K).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = Classifier(Normalize([0.5], [0.5]), nn.Flatten(), nn.Linear(64, 10))
        >>> x = torch.rand(2, 1, 8, 8)
        >>> model(x).shape, model.features(x).shape
        (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(self, normalize: nn.Module, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.body = body
        self.head = head

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Map images in [0, 1] to logits."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def features(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Map images in [0, 1] to the penultimate representation, which the head reads."""
        z: Tensor = self.body(self.normalize(x))
        return z
