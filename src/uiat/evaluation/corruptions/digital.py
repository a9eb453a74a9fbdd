"""Digital: contrast, elastic deformation, pixelation, JPEG compression."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uiat.attacks.random_numbers import rekey, uniform
from uiat.evaluation.corruptions.blur import smooth
from uiat.shapes import Float, Int
from uiat.system.extras import from_extra


def contrast(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Draw each channel towards its mean over the image; nothing random.

    Example:
        >>> x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
        >>> contrast(x, (0.5,), torch.zeros(1, dtype=torch.int64)).flatten().tolist()
        [0.25, 0.75]
    """
    (fraction,) = parameters
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (x - mean) * fraction + mean


def elastic_transform(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Apply a random affine map, then move every pixel by a smooth random field (Simard et al. 2003).

    The parameters (strength and smoothness of the field, most that a corner of the map moves) are shares of the side.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> elastic_transform(torch.rand(2, 3, 16, 16), (0.05, 0.2, 0.07), keys(0, torch.arange(2))).shape
        torch.Size([2, 3, 16, 16])
    """
    side = min(x.shape[2:])
    strength, smoothness, jitter = (side * parameter for parameter in parameters)
    rows, columns = (torch.arange(n, device=x.device, dtype=torch.float32) for n in x.shape[2:])
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2)  # (h, w, 2): x, y
    x = _sample(x, _affine(grid, jitter, key), edge="centre")
    if strength == 0:
        return x
    field = smooth(2 * uniform(rekey(key, 1), (2, *x.shape[2:])) - 1, smoothness, truncate=3, edge="reflect")
    return _sample(x, grid + strength * field.permute(0, 2, 3, 1), edge="border")


def pixelate(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Make smaller and as large again, with box filters; nothing random.

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 1, 4) / 4
        >>> pixelate(x, (0.5,), torch.zeros(1, dtype=torch.int64)).flatten().tolist()
        [0.125, 0.125, 0.625, 0.625]
    """
    (fraction,) = parameters
    small = [max(1, int(n * fraction)) for n in x.shape[2:]]
    tall, wide = ((boxes(m, n) @ boxes(n, m)).to(x) for m, n in zip(small, x.shape[2:], strict=True))
    return tall @ x @ wide.T


def jpeg_compression(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Compress to a JPEG file of this quality and decompress; nothing random.

    Images of one or three channels are compressed as they are, the channels of others one by one.

    Raises:
        UserError: Pillow is not installed.

    Example:
        >>> jpeg_compression(torch.rand(2, 3, 8, 8), (80,), torch.zeros(2, dtype=torch.int64)).shape
        torch.Size([2, 3, 8, 8])
    """
    with from_extra("data", "jpeg_compression"):
        from PIL import Image
    (quality,) = parameters
    channels = x.shape[1]
    pictures = (x * 255).round().to(torch.uint8).cpu().permute(0, 2, 3, 1)  # (b, h, w, c)
    if channels != 3:
        pictures = pictures.permute(0, 3, 1, 2).flatten(0, 1)  # (b c, h, w)
    coded = []
    for picture in pictures.numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=int(quality))
        with Image.open(file) as image:
            coded.append(torch.from_numpy(np.array(image)))
    result = torch.stack(coded)
    result = result.permute(0, 3, 1, 2) if channels == 3 else result.view(x.shape)
    return result.to(x) / 255


def boxes(n: int, m: int) -> Float[Tensor, "m n"]:
    """Return the matrix that resizes n pixels to m with a box filter as Pillow does: the mean of those in a window.

    A pixel is in a window if its centre is.

    Example:
        >>> boxes(4, 2)
        tensor([[0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    scale = n / m
    centre = (torch.arange(m, dtype=torch.float64) + 0.5) * scale
    place = (torch.arange(n, dtype=torch.float64) - centre[:, None] + 0.5) * (1 / max(scale, 1.0))
    window = ((place > -0.5) & (place <= 0.5)).double()
    return (window / window.sum(dim=1, keepdim=True)).float()


def _affine(grid: Tensor, jitter: float, key: Tensor) -> Tensor:
    """Return where each image's affine map takes every point of the grid from, (b, h, w, 2).

    The map is the one that moves three corners of a square around the centre by up to `jitter` in each direction.
    """
    height, width = grid.shape[:2]
    third = max(1, min(height, width) // 3)
    square = torch.tensor([[third, third], [third, -third], [-third, -third]], dtype=torch.float64)
    corners = (square + torch.tensor([width // 2, height // 2])).to(grid.device)
    moved = corners + jitter * (2 * uniform(key, (3, 2)).double() - 1)
    matrix = torch.linalg.solve(torch.cat([moved, torch.ones_like(moved[..., :1])], dim=2), corners)
    a, b, c = matrix.float()[:, :, None, None].unbind(dim=1)  # each (b, 1, 1, 2)
    return grid[..., :1] * a + grid[..., 1:] * b + c


def _sample(x: Tensor, position: Tensor, *, edge: str) -> Tensor:
    """Read images at (x, y) in pixels, linearly interpolated; mirrored in the outermost pixels' centres or borders."""
    size = torch.tensor([x.shape[3], x.shape[2]], device=x.device)
    if edge == "centre":
        place = 2 * position / (size - 1).clamp_min(1) - 1
    else:
        place = (2 * position + 1) / size - 1
    return F.grid_sample(x, place, mode="bilinear", padding_mode="reflection", align_corners=edge == "centre")
