"""Weather: snow, frost, fog, brightness."""

import math

import torch
from torch import Tensor

from uiat.attacks.random_numbers import normal, rekey, uniform
from uiat.evaluation.corruptions.blur import magnify, streak
from uiat.shapes import Float, Int
from uiat.threat import to_range

# Mean colour, and standard deviation within a crop, of each of the five pictures of frost that the original draws from.
_FROST = (
    (0.305, 0.585, 0.650, 0.043),
    (0.787, 0.805, 0.841, 0.053),
    (0.787, 0.805, 0.841, 0.053),
    (0.540, 0.599, 0.648, 0.062),
    (0.441, 0.484, 0.528, 0.100),
)
_LUMINANCE = (0.299, 0.587, 0.114)


def snow(x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
    """Pale the image, and add two layers of flakes that fall in opposite directions.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> x = torch.zeros(2, 3, 32, 32)
        >>> bool(snow(x, (0.1, 0.2, 1, 0.6, 8, 3, 0.95), keys(0, torch.arange(2))).min() >= 0)
        True
    """
    mean, deviation, zoom, threshold, radius, blur, fraction = parameters
    layer = magnify(mean + deviation * normal(key, (1, *x.shape[2:])), zoom)
    layer = to_range(torch.where(layer < threshold, 0.0, layer))
    layer = streak(layer, -135 + 90 * uniform(rekey(key, 1), ()), radius=int(radius), deviation=blur)
    pale = torch.maximum(x, 1.5 * _grey(x) + 0.5)
    return fraction * x + (1 - fraction) * pale + layer + layer.flip(2, 3)


def frost(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Lay ice crystals over the image, here drawn by a procedure; the original takes crops of five pictures.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> frost(torch.zeros(1, 3, 32, 32), (1.0, 0.2), keys(0, torch.arange(1))).shape
        torch.Size([1, 3, 32, 32])
    """
    image, ice = parameters
    return image * x + ice * crystals(x.shape, key)


def crystals(shape: torch.Size, key: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
    """Draw pictures like frost on a window: patches of needles, each patch in a direction of its own.

    In colour and contrast they are like one of the pictures that the original uses, drawn for each image; grey where
    there are not three channels.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> crystals(torch.Size((2, 3, 32, 32)), keys(0, torch.arange(2))).shape
        torch.Size([2, 3, 32, 32])
    """
    size, side = (1, *shape[2:]), min(shape[2:])
    length, thickness = max(2.0, side / 16), max(1.0, side / 96)
    layers = []
    for i in range(3):
        needles = streak(
            magnify(normal(rekey(key, 3 * i), size), thickness),
            360 * uniform(rekey(key, 3 * i + 1), ()),
            radius=math.ceil(2 * length),
            deviation=length,
        )
        patches = plasma(size[1:], 1.6, rekey(key, 3 * i + 2))[:, None]
        layers.append(_standardise(needles) * patches**3 + 0.2 * patches)
    texture = _standardise(torch.stack(layers).sum(dim=0))
    which = (len(_FROST) * uniform(rekey(key, 9), ())).long()
    chosen = torch.tensor(_FROST, device=key.device)[which][:, :, None, None]
    colour = chosen[:, :3] if shape[1] == 3 else chosen[:, :3].mean(dim=1, keepdim=True)
    return to_range(colour + chosen[:, 3:] * texture).expand(shape)


def fog(x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
    """Add clouds, and scale the whole back to the brightest value that the image had.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> x = torch.rand(2, 3, 32, 32)
        >>> bool(fog(x, (1.5, 2), keys(0, torch.arange(2))).max() <= x.max())
        True
    """
    amount, decay = parameters
    most = x.flatten(1).amax(dim=1)[:, None, None, None]
    return (x + amount * plasma(x.shape[2:], decay, key)[:, None]) * most / (most + amount)


def brightness(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Raise the value of each pixel's colour (of hue, saturation, value), up to 1; nothing random.

    With hue and saturation fixed, the channels are proportional to the value, which is the largest of them.

    Example:
        >>> x = torch.tensor([0.2, 0.4]).view(1, 2, 1, 1)
        >>> brightness(x, (0.2,), torch.zeros(1, dtype=torch.int64)).flatten()
        tensor([0.3000, 0.6000])
    """
    (amount,) = parameters
    value = x.amax(dim=1, keepdim=True)
    brighter = to_range(value + amount)
    return torch.where(value > 0, x * (brighter / value.clamp_min(torch.finfo(x.dtype).tiny)), brighter)


def plasma(size: tuple[int, ...] | torch.Size, decay: float, key: Int[Tensor, "b"]) -> Float[Tensor, "b h w"]:
    """Draw clouds in [0, 1] by the diamond-square algorithm (Fournier, Fussell & Carpenter 1982), whose edges meet.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> clouds = plasma((8, 5), 2.0, keys(0, torch.arange(3)))
        >>> clouds.shape, bool(clouds.min() >= 0), bool(clouds.max() <= 1)
        (torch.Size([3, 8, 5]), True, True)
    """
    side = 2 ** math.ceil(math.log2(max(2, *size)))
    field, step, amplitude = torch.zeros(len(key), side, side, device=key.device), side, 1.0
    draws = iter(range(1_000))

    def around(corners: Tensor) -> Tensor:
        """Return a quarter of the sum of four neighbours, and something random."""
        return corners / 4 + amplitude * (2 * uniform(rekey(key, next(draws)), corners.shape[1:]) - 1)

    while step > 1:
        half = step // 2
        corners = field[:, ::step, ::step]
        sums = corners + corners.roll(-1, 1)
        field[:, half::step, half::step] = around(sums + sums.roll(-1, 2))
        centres = field[:, half::step, half::step]
        field[:, ::step, half::step] = around(centres + centres.roll(1, 1) + corners + corners.roll(-1, 2))
        field[:, half::step, ::step] = around(centres + centres.roll(1, 2) + corners + corners.roll(-1, 1))
        # The original draws from +-w and multiplies by w, and so its decay counts twice.
        step, amplitude = half, amplitude / decay**2
    field = field - field.amin(dim=(1, 2), keepdim=True)
    field = field / field.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(field.dtype).tiny)
    return field[:, : size[0], : size[1]]


def _grey(x: Tensor) -> Tensor:
    """Return the luminance of three channels, else their mean, (b, 1, h, w)."""
    if x.shape[1] != 3:
        return x.mean(dim=1, keepdim=True)
    return (x * torch.tensor(_LUMINANCE, device=x.device)[:, None, None]).sum(dim=1, keepdim=True)


def _standardise(x: Tensor) -> Tensor:
    """Scale each image to mean 0 and standard deviation 1."""
    x = x - x.mean(dim=(1, 2, 3), keepdim=True)
    return x / (x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 1e-6)
