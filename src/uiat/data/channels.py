"""Mean and standard deviation of each channel, for the model's first layer."""

import torch

from uiat.data.folder import Folder
from uiat.data.imageset import ImageSet, as_float
from uiat.data.sampling import generator

Channels = tuple[float, ...]

# Of the training images in [0, 1], all pixels pooled; `statistics` finds these numbers again on the same sets.
STATS: dict[str, tuple[Channels, Channels]] = {
    "digits": ((0.3058,), (0.3763,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
}


def statistics(data: ImageSet | Folder, *, sample: int = 10_000) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel of images in [0, 1], over at most `sample` images.

    A channel that hardly varies is given a deviation of one grey level, so that dividing by it stays harmless.

    Args:
        data: the training set; its known figures, where it is one of the standard sets, are in `STATS`.
        sample: how many images to look at; the choice is the same each time.

    Example:
        >>> from uiat.data import load
        >>> mean, std = statistics(load("digits", "train"))
        >>> round(mean[0], 2)
        0.31
    """
    chosen = torch.randperm(len(data), generator=generator(0))[:sample]
    total = torch.zeros(2, data.image_shape[0], dtype=torch.float64)
    pixels = 0
    for part in chosen.split(256):  # in parts: the float64 copy of a large sample would not fit in memory
        x = as_float(data.subset(part).decode().images).double().cpu()
        total += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        pixels += x.numel() // x.shape[1]
    mean, square = total / pixels
    std = (square - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())
