"""The fifteen kinds of corruption by name, and the strengths that they were published with."""

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from uiat.attacks.random_numbers import keys, rekey
from uiat.checks import check_batch
from uiat.errors import UserError, nearest
from uiat.evaluation.corruptions import blur, digital, noise, weather
from uiat.shapes import Float, Int
from uiat.threat import to_range

Corruption = Callable[[Tensor, tuple[float, ...], Tensor], Tensor]
SEVERITIES = (1, 2, 3, 4, 5)
# The shorter side from which ImageNet-C's strengths (224 pixels) are nearer in ratio than CIFAR-10-C's (32 pixels).
_LARGE_SIDE = 85
# The field of ImageNet-C's elastic transform is in shares of 244 pixels, the images having 224.
_ELASTIC = 244 / 224

_FUNCTIONS: dict[str, Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
KINDS = tuple(_FUNCTIONS)

# By severity, from 1 to 5.
Strengths = dict[str, tuple[tuple[float, ...], ...]]


def _single(*strengths: float) -> tuple[tuple[float, ...], ...]:
    return tuple((strength,) for strength in strengths)


CIFAR_10_C: Strengths = {
    "gaussian_noise": _single(0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": _single(500, 250, 100, 75, 50),
    "impulse_noise": _single(0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "brightness": _single(0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": _single(0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    "pixelate": _single(0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": _single(80, 65, 58, 50, 40),
}
IMAGENET_C: Strengths = {
    "gaussian_noise": _single(0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": _single(60, 25, 12, 5, 3),
    "impulse_noise": _single(0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": _single(0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": _single(0.4, 0.3, 0.2, 0.1, 0.05),
    "elastic_transform": tuple(
        (_ELASTIC * strength, _ELASTIC * smoothness, _ELASTIC * jitter)
        for strength, smoothness, jitter in (
            *((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02)),
            *((0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
        )
    ),
    "pixelate": _single(0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": _single(25, 18, 15, 10, 7),
}


def strengths(height: int, width: int) -> tuple[str, Strengths]:
    """Return the published set for images of this size, with its name: "CIFAR-10-C" (32 pixels) or "ImageNet-C" (224).

    The nearer of the two, in ratio, to the shorter side.

    Example:
        >>> strengths(28, 28)[0], strengths(224, 224)[0]
        ('CIFAR-10-C', 'ImageNet-C')
    """
    small = min(height, width) < _LARGE_SIDE
    return ("CIFAR-10-C", CIFAR_10_C) if small else ("ImageNet-C", IMAGENET_C)


def corrupt(
    x: Float[Tensor, "b c h w"],
    kind: str,
    severity: int,
    *,
    seed: int = 0,
    index: Int[Tensor, "b"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Corrupt images in one of the common ways (Hendrycks & Dietterich 2019); the result is in [0, 1].

    An image's random numbers depend on the seed, on its index and on the kind, not on the images beside it; they are
    the same for every severity.

    Args:
        x: images in [0, 1], of any size and any number of channels.
        kind: one of `KINDS`.
        severity: 1 (weak) to 5, as published for images of 32 or of 224 pixels, whichever is nearer.
        seed: seed of the random numbers.
        index: position of each image in its data set; 0, 1, ... by default.

    Raises:
        UserError: no such kind or severity, or images that are none.

    Example:
        >>> x = torch.rand(4, 3, 32, 32)
        >>> all_at_once = corrupt(x, "fog", 3)
        >>> bool(corrupt(x[2:], "fog", 3, index=torch.tensor([2, 3])).allclose(all_at_once[2:], atol=1e-5))
        True
    """
    check_kinds([kind], [severity])
    check_batch(x, torch.zeros(len(x), dtype=torch.int64))
    if x.ndim != 4:
        raise UserError(f"images must be of shape (B, C, H, W), not {tuple(x.shape)}")
    if index is None:
        index = torch.arange(len(x))
    if index.shape != (len(x),):
        raise UserError(f"index must have shape ({len(x)},), one for each image, not {tuple(index.shape)}")
    parameters = strengths(*x.shape[2:])[1][kind][severity - 1]
    key = rekey(keys(seed, index.to(x.device)), zlib.crc32(kind.encode()))
    with torch.no_grad():
        return to_range(_FUNCTIONS[kind](x.float(), parameters, key)).to(x.dtype)


def check_kinds(kinds: list[str], severities: list[int]) -> None:
    """Refuse names that are no kind of corruption and numbers that are no severity.

    Example:
        >>> check_kinds(["frost"], [1, 5])
    """
    for kind in kinds:
        if kind not in KINDS:
            raise nearest("kind of corruption", kind, KINDS)
    for severity in severities:
        if severity not in SEVERITIES:
            raise UserError(f"severity must be a whole number from 1 to 5, but is {severity!r}")
