"""Noise: Gaussian, shot, impulse."""

import torch
from torch import Tensor

from uiat.attacks.random_numbers import normal, uniform
from uiat.shapes import Float, Float64, Int

# Half of the distance between two numbers that `uniform` can draw: none is then 0, whose quantile is infinite.
_HALF = 2.0**-25


def gaussian_noise(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Add Gaussian noise of one standard deviation to every value.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> x = torch.full((4, 3, 32, 32), 0.5)
        >>> bool(((gaussian_noise(x, (0.1,), keys(0, torch.arange(4))) - x).std() - 0.1).abs() < 0.01)
        True
    """
    (deviation,) = parameters
    return x + deviation * normal(key, x.shape[1:])


def shot_noise(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Count photons: a Poisson number for every value, whose mean is that of a white pixel times the value.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> shot_noise(torch.zeros(1, 1, 2, 2), (60,), keys(0, torch.arange(1))).sum()
        tensor(0.)
    """
    (photons,) = parameters
    return poisson((x * photons).double(), uniform(key, x.shape[1:]).double() + _HALF).to(x) / photons


def impulse_noise(
    x: Float[Tensor, "b c h w"], parameters: tuple[float, ...], key: Int[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Replace a fraction of the values, half of them by 0 and half of them by 1.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> impulse_noise(torch.full((1, 1, 64, 64), 0.5), (0.1,), keys(0, torch.arange(1))).unique().tolist()
        [0.0, 0.5, 1.0]
    """
    (fraction,) = parameters
    draw = uniform(key, x.shape[1:])
    return torch.where(draw < fraction, (draw < fraction / 2).to(x), x)


def poisson(rate: Float64[Tensor, "..."], u: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Return the Poisson number of this mean at quantile u in (0, 1): the smallest k with P(K <= k) >= u.

    The expansion of Cornish & Fisher (1938) comes close: below it by one at most where the mean is 20 or more. From
    there on the distribution function itself is asked, P(K <= k) = Q(k + 1, rate), the regularised upper incomplete
    gamma function. In single precision that would be off by more than the least probable numbers are.

    Example:
        >>> poisson(torch.tensor([3.0, 3.0]).double(), torch.tensor([0.5, 0.99]).double())
        tensor([3., 8.], dtype=torch.float64)
    """
    z, root, few = torch.special.ndtri(u), rate.sqrt(), rate < 20
    guess = rate + z * root + (z * z - 1) / 6
    k = torch.where(few, guess.floor() - 4, (guess + (z - z**3) / (72 * root)).floor()).clamp_min(0)
    k += torch.special.gammaincc(k + 1, rate) < u
    k_few, rate_few, u_few = k[few], rate[few], u[few]
    for _ in range(5):
        k_few += torch.special.gammaincc(k_few + 1, rate_few) < u_few
    k[few] = k_few
    return k
