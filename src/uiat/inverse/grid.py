"""How universal perturbations are kept: on a grid coarser than the images, and in a type narrower than float32.

Write U for upsampling by a whole number n: it gives each pixel of an n x n cell the value of its cell. U is linear, so

- the gradient by z of a loss L(x + U z) is U^T dL/dx, the sums over cells (`sum_cells`);
- each value of z counts n^2 times, so ||U z|| = scale(n) ||z|| in every norm, with scale(n) = 1 for Linf, n for L2 and
  n^2 for L1 (`norm_scale`). Seen from the grid, the ball of radius epsilon around an image is that of radius
  epsilon / scale(n), and a step of length a is one of length a / scale(n).

So projection and steepest descent on the grid are those on the images, among perturbations that are constant on cells.
Bilinear upsampling would be smoother, but it shortens z by amounts that depend on z: in L2 and L1 its ball has no
closed form. The paper (UIAT, CVPR 2023) has neither grid nor types.
"""

from typing import Literal

import torch
from torch import Tensor

from uiat.errors import UserError
from uiat.shapes import Float

Storage = Literal["float32", "bfloat16", "float16"]
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LEAST_STEP = 4  # roundings that a step is long, at least


def storage_type(storage: Storage) -> torch.dtype:
    """Return torch's type of a name.

    Example:
        >>> storage_type("bfloat16")
        torch.bfloat16
    """
    return _TYPES[storage]


def check_storage(storage: Storage, *, step_size: float, radius: float) -> None:
    """Refuse a step that rounding to the storage type could swallow.

    Rounding takes less than the type's eps of each entry, so less than eps * radius of z in its norm: 1/128 of the
    radius in bfloat16, 1/1024 in float16. A step of four times that keeps three quarters of its length at the worst.

    Raises:
        UserError: the step is shorter than that.

    Example:
        >>> check_storage("bfloat16", step_size=0.001, radius=0.1)
        Traceback (most recent call last):
        uiat.errors.UserError: inverse.step_size 0.001 could vanish in rounding: stored as bfloat16, it must be ...
    """
    least = LEAST_STEP * torch.finfo(storage_type(storage)).eps * radius
    if storage != "float32" and step_size < least:
        raise UserError(
            f"inverse.step_size {step_size:g} could vanish in rounding: stored as {storage}, it must be at least "
            f"{least:.3g} (1/{radius / least:.0f} of the radius); take longer steps or inverse.storage=float32"
        )


def cell_of(resolution: float) -> int:
    """Return n, the pixels along the side of a cell, of a resolution 1/n.

    Raises:
        UserError: the resolution is not one over a whole number.

    Example:
        >>> cell_of(0.5), cell_of(1 / 7)
        (2, 7)
        >>> cell_of(0.3)
        Traceback (most recent call last):
        uiat.errors.UserError: inverse.resolution must be 1 or a fraction 1/n of the image's, such as "1/3", not 0.3
    """
    cell = round(1 / resolution) if 1e-4 <= resolution <= 1 else 0
    if not cell or abs(cell * resolution - 1) > 1e-6:
        near = f"1/{cell}" if cell > 1 else "1/2"
        raise UserError(
            f'inverse.resolution must be 1 or a fraction 1/n of the image\'s, such as "{near}", not {resolution:g}'
        )
    return cell


def grid_shape(shape: tuple[int, ...], cell: int) -> tuple[int, ...]:
    """Return (C, h, w), the shape of one perturbation for images (C, H, W).

    Raises:
        UserError: the cells do not fit the image.

    Example:
        >>> grid_shape((3, 32, 32), 2)
        (3, 16, 16)
    """
    channels, height, width = shape
    if height % cell or width % cell:
        raise UserError(f"inverse.resolution 1/{cell} needs images whose sides {cell} divides, not {height} x {width}")
    return channels, height // cell, width // cell


def image_shape(z: Float[Tensor, "k c h w"], cell: int) -> tuple[int, int, int]:
    """Return (C, H, W), the shape of the images that perturbations on a grid are for: the opposite of `grid_shape`.

    Example:
        >>> image_shape(torch.zeros(100, 3, 16, 16), 2)
        (3, 32, 32)
    """
    _, channels, height, width = z.shape
    return channels, height * cell, width * cell


def upsample(z: Float[Tensor, "b c h w"], cell: int) -> Float[Tensor, "b c H W"]:
    """Give each pixel the value of its cell.

    Example:
        >>> upsample(torch.tensor([[[[1.0, 2.0]]]]), 2).tolist()
        [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
    """
    if cell == 1:
        return z
    b, c, h, w = z.shape
    return z[:, :, :, None, :, None].expand(b, c, h, cell, w, cell).reshape(b, c, h * cell, w * cell)


def sum_cells(gradient: Float[Tensor, "b c H W"], cell: int) -> Float[Tensor, "b c h w"]:
    """Sum a gradient over the pixels of each cell: the adjoint of `upsample`.

    Example:
        >>> sum_cells(torch.ones(1, 1, 2, 4), 2).tolist()
        [[[[4.0, 4.0]]]]
    """
    if cell == 1:
        return gradient
    b, c, h, w = gradient.shape
    return gradient.reshape(b, c, h // cell, cell, w // cell, cell).sum(dim=(3, 5))


def norm_scale(norm: str, cell: int) -> int:
    """Return ||upsample(z)|| / ||z||, which depends on the norm and the cell alone.

    Example:
        >>> [norm_scale(norm, 2) for norm in ("Linf", "L2", "L1")]
        [1, 2, 4]
    """
    return {"Linf": 1, "L2": cell, "L1": cell**2}[norm]


def round_inwards(z: Float[Tensor, "..."], dtype: torch.dtype) -> Float[Tensor, "..."]:
    """Round float32 values to a type, towards zero: no entry grows, so what is in a ball of any norm stays in it.

    Rounding to the nearest would take 4/255 to 0.01575 in bfloat16, out of its own ball.

    Example:
        >>> round_inwards(torch.tensor([4 / 255, -4 / 255]), torch.bfloat16).tolist()
        [0.015625, -0.015625]
    """
    if torch.finfo(dtype).bits >= 32:
        return z.to(dtype)
    nearest = z.to(dtype)
    grown = nearest.to(z.dtype).abs() > z.abs()
    # Floats are ordered by magnitude as the whole numbers of their bits are, so one less is the next one inwards.
    return (nearest.view(torch.int16) - grown.to(torch.int16)).view(dtype)
