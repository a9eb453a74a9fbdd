"""The scales of images, other than [0, 1], that models are trained on: pixel values, and normalised images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from uiat.data import STATS

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Scale:
    """Another scale of images than [0, 1], that a model may expect.

    Args:
        mean: of each channel, which is taken off.
        std: of each channel, by which is divided.
        of: the data sets whose usual normalisation it is.

    Example:
        >>> Scale((0.5,), (0.5,)).how
        'normalised by mean 0.50 and standard deviation 0.50'
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    of: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """What is done to the images, in words."""
        if not any(self.mean):
            return f"multiplied by {1 / self.std[0]:g}"
        usual = f", as is usual for {' and '.join(self.of)}" if self.of else ""
        return f"normalised by mean {self.mean[0]:.2f} and standard deviation {self.std[0]:.2f}{usual}"

    @property
    def remedy(self) -> str:
        """How that is put into the model."""
        if not any(self.mean):
            return ""
        mean, std = (f"[{', '.join(f'{value:.4g}' for value in values)}]" for values in (self.mean, self.std))
        option = "with `uiat evaluate --model` add --normalize; " if self.of else ""
        return f"{option}in Python torch.nn.Sequential(uiat.models.Normalize({mean}, {std}), model)"

    def apply(self, x: Tensor) -> Tensor:
        """Bring images in [0, 1] to this scale."""
        shift, spread = (
            torch.tensor(v, device=x.device).view(1, -1, *[1] * (x.ndim - 2)) for v in (self.mean, self.std)
        )
        return (x - shift) / spread


def list_scales(x: Tensor) -> list[Scale]:
    """List the scales that a model of such images may expect; of data sets those whose images are as bright first.

    Example:
        >>> [scale.how for scale in list_scales(torch.rand(4, 8))]
        ['multiplied by 255']
    """
    scales = [Scale((0.0,), (1 / 255,))]
    if x.ndim != 4:
        return scales
    channels = x.transpose(0, 1).flatten(1)
    own = tuple(channels.mean(1).tolist())
    sets: dict[tuple[tuple[float, ...], tuple[float, ...]], list[str]] = {}
    for name, stats in sorted(STATS.items(), key=lambda item: abs(item[1][0][0] - own[0])):
        sets.setdefault(stats, []).append(name)
    scales += [Scale(mean, std, tuple(names)) for (mean, std), names in sets.items()]
    scales += [Scale(*stats) for stats in ((own, tuple(channels.std(1).tolist())), ((0.5,), (0.5,)), IMAGENET)]
    return [scale for scale in scales if len(scale.mean) in (1, x.shape[1])]
