"""RandAugment by torchvision's kernels: the images that get the same operation are changed together."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from uiat.errors import UserError
from uiat.shapes import Shaped
from uiat.system.extras import from_extra

MOST_MAGNITUDE = 30  # as in torchvision, whose scale of strengths it is
# Largest strengths (Cubuk et al. 2020), those of torchvision: shear, translation in widths, degrees, colour factor.
_SHEAR, _TRANSLATION, _DEGREES, _COLOUR, _BITS = 0.3, 150 / 331, 30.0, 0.9, 4
# Name -> images and a strength in [-1, 1] to images; strengths of UNSIGNED are in [0, 1].
_Operation = Callable[[Any, Tensor, float], Tensor]


def _affine(functional: Any, images: Tensor, *, translate: list[int], shear: list[float]) -> Tensor:
    return functional.affine(
        images, angle=0.0, translate=translate, scale=1.0, shear=shear, center=[0.0, 0.0], interpolation=_bilinear()
    )


def _bilinear() -> Any:
    from torchvision.transforms import InterpolationMode

    return InterpolationMode.BILINEAR


def _degrees(shear: float) -> float:
    return math.degrees(math.atan(_SHEAR * shear))


def _posterize(f: Any, images: Tensor, strength: float) -> Tensor:
    return f.posterize(images, bits=8 - round(_BITS * strength))


def _solarize(f: Any, images: Tensor, strength: float) -> Tensor:
    bound = 255 if images.dtype == torch.uint8 else 1.0
    return f.solarize(images, threshold=bound * (1 - strength))


OPERATIONS: dict[str, _Operation] = {
    "identity": lambda f, images, s: images,
    "shear-x": lambda f, images, s: _affine(f, images, translate=[0, 0], shear=[_degrees(s), 0.0]),
    "shear-y": lambda f, images, s: _affine(f, images, translate=[0, 0], shear=[0.0, _degrees(s)]),
    "translate-x": lambda f, images, s: _affine(
        f, images, translate=[int(_TRANSLATION * images.shape[3] * s), 0], shear=[0.0, 0.0]
    ),
    "translate-y": lambda f, images, s: _affine(
        f, images, translate=[0, int(_TRANSLATION * images.shape[2] * s)], shear=[0.0, 0.0]
    ),
    "rotate": lambda f, images, s: f.rotate(images, angle=_DEGREES * s, interpolation=_bilinear()),
    "brightness": lambda f, images, s: f.adjust_brightness(images, brightness_factor=1 + _COLOUR * s),
    "colour": lambda f, images, s: f.adjust_saturation(images, saturation_factor=1 + _COLOUR * s),
    "contrast": lambda f, images, s: f.adjust_contrast(images, contrast_factor=1 + _COLOUR * s),
    "sharpness": lambda f, images, s: f.adjust_sharpness(images, sharpness_factor=1 + _COLOUR * s),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": lambda f, images, s: f.autocontrast(images),
    "equalize": lambda f, images, s: f.equalize(images),
}
UNSIGNED = ("identity", "posterize", "solarize", "autocontrast", "equalize")


def rand_augment(
    images: Shaped[Tensor, "b c h w"],
    *,
    operations: int,
    magnitude: int,
    rows: slice,
    batch: int,
    random: torch.Generator,
) -> Shaped[Tensor, "b c h w"]:
    """Change each image by random operations of one strength and random sign (Cubuk et al. 2020, RandAugment).

    Args:
        images: uint8 or float in [0, 1], of 1 or 3 channels.
        operations: number of operations on each image, one after the other.
        magnitude: their strength, 0 to 30.
        rows: the rows of the whole batch that the images are.
        batch: number of images in the batch of all processes, for which the random numbers are drawn.
        random: where the random numbers come from.

    Raises:
        UserError: torchvision is not installed, or images of another number of channels.

    Example:
        >>> x = torch.zeros(4, 1, 8, 8)
        >>> how = {"operations": 2, "magnitude": 9, "rows": slice(0, 4), "batch": 4}
        >>> rand_augment(x, **how, random=torch.Generator().manual_seed(0)).shape
        torch.Size([4, 1, 8, 8])
    """
    functional = _kernels()
    if images.shape[1] not in (1, 3):
        raise UserError(f"RandAugment takes images of 1 or 3 channels, not {images.shape[1]}: set randaugment to 0")
    names, images = list(OPERATIONS), images.clone()
    for _ in range(operations):
        chosen = torch.randint(len(names), (batch,), generator=random)
        negative = torch.rand(batch, generator=random) < 0.5
        kinds = (2 * chosen + negative)[rows]
        for kind in kinds.unique().tolist():
            name = names[kind // 2]
            strength = magnitude / MOST_MAGNITUDE * (-1 if kind % 2 and name not in UNSIGNED else 1)
            where = (kinds == kind).nonzero().squeeze(1).to(images.device, non_blocking=True)
            images[where] = OPERATIONS[name](functional, images[where], strength)
    return images


def _kernels() -> Any:
    with from_extra("data", "RandAugment"):
        from torchvision.transforms.v2 import functional
    return functional
