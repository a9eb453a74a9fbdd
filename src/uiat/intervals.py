"""Intervals for fractions and means: what so many observations say of what they were drawn from."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev


def wilson(successes: float, n: float, *, confidence: float = 0.95) -> list[float]:
    """Compute the interval for a fraction of which `successes` of n were seen (Wilson 1927); [0, 1] where n is 0.

    Example:
        >>> [round(edge, 4) for edge in wilson(8, 10)]
        [0.4902, 0.9433]
    """
    if n == 0:
        return [0.0, 1.0]
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    # The edges are 0 and 1 exactly where nothing or everything was seen, which rounding would miss.
    return [0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half]


def binomial_tail(successes: int, n: int, p: float) -> float:
    """Compute the probability of at least so many successes in n trials.

    Example:
        >>> binomial_tail(2, 2, 0.5), binomial_tail(0, 2, 0.5)
        (0.25, 1.0)
    """
    return _incomplete_beta(successes, n - successes + 1, p) if successes else 1.0


@lru_cache(maxsize=100_000)  # the counts of many images are the same
def least_probability(successes: int, n: int, *, error: float = 0.05) -> float:
    """Compute the lower bound on a probability of which so many successes were seen (Clopper & Pearson 1934).

    Args:
        successes: number of successes.
        n: number of trials.
        error: probability that the bound is above the truth, at most.

    Example:
        >>> round(least_probability(20, 20), 3), least_probability(0, 20)  # the first is 0.05^(1/20)
        (0.861, 0.0)
    """
    return _solve(lambda p: binomial_tail(successes, n, p) - error, 0.0, 1.0) if successes else 0.0


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b): the continued fraction of Abramowitz & Stegun (1964), 26.5.8."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # The fraction from the front (Lentz 1976): numerator and denominator of each convergent by those of the last.
    numerator, denominator = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = denominator
    for m in range(1, 10_000):
        for term in (m * (b - m) * x / (a + 2 * m - 1), -(a + m) * (a + b + m) * x / (a + 2 * m + 1)):
            term /= a + 2 * m
            denominator, numerator = 1 / (1 + term * denominator), 1 + term / numerator
            value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-15:
            break
    return math.exp(front) / a * value


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> list[float]:
    """Compute the interval for the mean of fractions by Student's t: of accuracies of several calls on the same images.

    Example:
        >>> [round(edge, 3) for edge in mean_interval([0.5, 0.7])]  # 0.6 +- 12.706 * 0.1, cut to [0, 1]
        [0.0, 1.0]
        >>> [round(edge, 3) for edge in mean_interval([0.5, 0.5, 0.6, 0.6])]
        [0.458, 0.642]
    """
    n, mean = len(values), fmean(values)
    half = student_quantile((1 + confidence) / 2, n - 1) * stdev(values) / math.sqrt(n)
    return [max(mean - half, 0.0), min(mean + half, 1.0)]


def student_quantile(probability: float, degrees: int) -> float:
    """Compute the quantile of Student's t distribution above its middle, for a whole number of degrees of freedom.

    Example:
        >>> [round(student_quantile(0.975, degrees), 3) for degrees in (1, 2, 9, 30)]
        [12.706, 4.303, 2.262, 2.042]
    """
    return _solve(lambda t: _within(t, degrees) - (2 * probability - 1), 0.0, 1e6)


def _within(t: float, degrees: int) -> float:
    """Probability that |T| is at most t: the finite series of Abramowitz & Stegun (1964), 26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = total = math.cos(theta) if odd else 1.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= (k - 1) / k * math.cos(theta) ** 2
        total += term
    if not odd:
        return math.sin(theta) * total
    return 2 / math.pi * (theta + (math.sin(theta) * total if degrees > 1 else 0.0))


def _solve(function: Callable[[float], float], low: float, high: float) -> float:
    """Find where a rising function is zero, by halving an interval until nothing is left of it."""
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return low
