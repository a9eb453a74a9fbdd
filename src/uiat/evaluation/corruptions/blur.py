"""Blur: defocus, glass, motion, zoom; and the filters that other kinds of corruption are made of."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uiat.attacks.random_numbers import rekey, uniform
from uiat.shapes import Float, Int


def defocus_blur(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Turn every point into a disc, of a radius in pixels; nothing random.

    Example:
        >>> x = torch.full((1, 3, 8, 8), 0.5)
        >>> bool((defocus_blur(x, (3, 0.1), torch.zeros(1, dtype=torch.int64)) - x).abs().max() < 1e-6)
        True
    """
    radius, softness = parameters
    kernel = disc(radius, softness).to(x.device)
    half = len(kernel) // 2
    rows, columns = (_mirror(side, half, x.device) for side in x.shape[2:])
    padded = x.flatten(0, 1)[:, None, rows[:, None], columns]
    return F.conv2d(padded, kernel[None, None]).view_as(x)


def glass_blur(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Smooth, replace every pixel by one close to it, and smooth again.

    The original means to swap pixels, but as it assigns views of one array it copies them, in place, from the last
    pixel to the first. This is what its images show, so it is what happens here.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> x = torch.full((1, 3, 16, 16), 0.5)
        >>> bool((glass_blur(x, (0.7, 2, 2), keys(0, torch.arange(1))) - x).abs().max() < 1e-6)
        True
    """
    deviation, reach, times = parameters
    x = smooth(x, deviation)
    for i in range(int(times)):
        source = _copy_sources(x.shape[2], x.shape[3], int(reach), rekey(key, i))
        x = x.flatten(2).gather(2, source[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return smooth(x, deviation)


def motion_blur(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Smear along a line of up to 45 degrees to the horizontal, drawn for each image.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> motion_blur(torch.rand(2, 3, 8, 8), (6, 1), keys(0, torch.arange(2))).shape
        torch.Size([2, 3, 8, 8])
    """
    radius, deviation = parameters
    return streak(x, 90 * uniform(key, ()) - 45, radius=int(radius), deviation=deviation)


def zoom_blur(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Average the image and its centre magnified by factors from 1 up to a largest one; nothing random.

    Example:
        >>> x = torch.full((1, 3, 8, 8), 0.5)
        >>> zoom_blur(x, (1.06, 0.01), torch.zeros(1, dtype=torch.int64)).mean()
        tensor(0.5000)
    """
    stop, step = parameters
    # As numpy counts: rounding decides whether the last factor belongs to the range.
    factors = np.arange(1, stop, step)
    total = x.clone()
    for factor in factors:
        total = total + magnify(x, float(factor))
    return total / (len(factors) + 1)


def magnify(x: Float[Tensor, "b c h w"], factor: float) -> Float[Tensor, "b c h w"]:
    """Magnify the centre of an image, by linear interpolation, to the size of the whole.

    Example:
        >>> magnify(torch.eye(4)[None, None], 2.0).shape
        torch.Size([1, 1, 4, 4])
    """
    height, width = x.shape[2:]
    rows, columns = (math.ceil(side / factor) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    x = x[:, :, top : top + rows, left : left + columns]
    size = [round(rows * factor), round(columns * factor)]
    x = F.interpolate(x, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return x[:, :, top : top + height, left : left + width]


def streak(
    x: Float[Tensor, "b c h w"], degrees: Float[Tensor, "b"], *, radius: int, deviation: float
) -> Float[Tensor, "b c h w"]:
    """Smear to one side along a line at an angle of its own for each image: ImageMagick's motion blur.

    Half of a Gaussian of 2 radius + 1 pixels; beyond the edge, the outermost pixels are repeated.

    Example:
        >>> streak(torch.eye(3)[None, None, :1], torch.tensor([180.0]), radius=1, deviation=0.5).flatten().round(
        ...     decimals=4
        ... )
        tensor([1.0000, 0.1195, 0.0003])
    """
    weights = streak_weights(radius, deviation)
    height, width = x.shape[2:]
    angle, flat = torch.deg2rad(degrees.double()), x.flatten(2)
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    total = torch.zeros_like(x)
    for i, weight in enumerate(weights.tolist()):
        down = (i * angle.sin() - 0.5).ceil().long()
        right = (i * angle.cos() - 0.5).ceil().long()
        row = (rows + down[:, None]).clamp(0, height - 1)
        column = (columns + right[:, None]).clamp(0, width - 1)
        source = (row[:, :, None] * width + column[:, None, :]).flatten(1)
        total = total + weight * flat.gather(2, source[:, None].expand(-1, x.shape[1], -1)).view_as(x)
    return total


def streak_weights(radius: int, deviation: float) -> Float[Tensor, "n"]:
    """Return half of a Gaussian, of sum one.

    Example:
        >>> streak_weights(1, 0.5)
        tensor([0.8805, 0.1192, 0.0003])
    """
    weights = (-0.5 * (torch.arange(2 * radius + 1) / deviation) ** 2).exp()
    return weights / weights.sum()


def disc(radius: float, softness: float) -> Float[Tensor, "n n"]:
    """Return a disc of sum one, its edge softened by a Gaussian of 3 x 3 pixels, or 5 x 5 for a radius above 8.

    Example:
        >>> disc(1, 0.1).shape, round(disc(1, 0.1)[2, 2].item(), 4)
        (torch.Size([5, 5]), 0.2)
    """
    reach, edge = math.floor(radius), 1 if radius <= 8 else 2
    side = torch.arange(-reach - edge, reach + edge + 1, dtype=torch.float64)
    hard = (side[:, None] ** 2 + side**2 <= radius**2).double()
    taps = (-0.5 * (torch.arange(-edge, edge + 1, dtype=torch.float64) / softness) ** 2).exp()
    soft = torch.outer(taps, taps)
    kernel = F.conv2d(hard[None, None], soft[None, None], padding=edge)[0, 0]
    return (kernel / kernel.sum()).float()


def smooth(
    x: Float[Tensor, "b c h w"], deviation: float, *, truncate: float = 4.0, edge: str = "nearest"
) -> Float[Tensor, "b c h w"]:
    """Blur with a Gaussian of any width.

    Example:
        >>> smooth(torch.rand(1, 1, 4, 4), 100.0).std() < 0.1
        tensor(True)
    """
    tall, wide = (smoothing(n, deviation, truncate=truncate, edge=edge).to(x) for n in x.shape[2:])
    return tall @ x @ wide.T


def smoothing(n: int, deviation: float, *, truncate: float = 4.0, edge: str = "nearest") -> Float[Tensor, "n n"]:
    """Return the matrix of a Gaussian filter on n pixels, cut off after `truncate` standard deviations.

    Its rows sum to one. A matrix, as the filter may be wider than the image. Beyond its edge the outermost pixels are
    repeated ("nearest"), or the image is mirrored in the edge ("reflect").

    Example:
        >>> smoothing(3, 0.5).sum(1)
        tensor([1., 1., 1.])
    """
    radius = int(truncate * deviation + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = (-0.5 * (offsets / max(deviation, 1e-6)).double() ** 2).exp()
    position = torch.arange(n)[:, None] + offsets
    if edge == "reflect":
        position = position % (2 * n)
        position = torch.minimum(position, 2 * n - 1 - position)
    weights = (weights / weights.sum()).expand(n, -1)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    return matrix.scatter_add(1, position.clamp(0, n - 1), weights).float()


def _mirror(n: int, beyond: int, device: torch.device) -> Tensor:
    """Return the positions -beyond ... n - 1 + beyond, mirrored in the centres of the outermost pixels."""
    position = torch.arange(-beyond, n + beyond, device=device) % max(2 * n - 2, 1)
    return torch.minimum(position, (2 * n - 2 - position).abs())


def _copy_sources(height: int, width: int, reach: int, key: Tensor) -> Tensor:
    """Return (b, height * width): the pixel that each one shows after copying in place, from the last to the first."""
    count = height * width
    here = torch.arange(count, device=key.device).view(height, width)
    moves = (uniform(key, (2, height, width)) * 2 * reach).long() - reach
    row, column = torch.meshgrid(*(torch.arange(n, device=key.device) for n in (height, width)), indexing="ij")
    inside = (row > reach) & (row <= height - reach) & (column > reach) & (column <= width - reach)
    # Moves of -reach ... reach - 1 from where `inside` holds do not leave the image.
    source = torch.where(inside, here + moves[:, 0] * width + moves[:, 1], here).flatten(1)
    # A source that lies later has been overwritten before it is read: it shows what it was given, and so on.
    again = source > here.flatten()
    while bool(again.any()):
        source, again = torch.where(again, source.gather(1, source), source), again & again.gather(1, source)
    return source
