"""Models that answer at random: how many wrong answers break an image, and what so many calls prove.

An example is given to the model again in fresh calls, which had no part in finding it. With one call, as for a model
that always answers alike, the rule is the usual one: a wrong answer breaks the image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated

from uiat.checks import Between, checked_fields
from uiat.errors import UserError

Calls = Annotated[int, Between(1, 1_000)]
EVEN = 0.5  # an answer that is wrong as often as right: what so many wrong calls have to be told from


@checked_fields
@dataclass(frozen=True, kw_only=True)
class CallRule:
    """An image is broken once its example is misclassified in at least `wrong` of `calls` fresh calls.

    Args:
        calls: number of fresh calls, M.
        wrong: number of those that have to be wrong, m; by default more than half.

    Raises:
        UserError: fewer calls than have to be wrong.

    Example:
        >>> CallRule(calls=20).least, CallRule(calls=20, wrong=18).least, CallRule().least
        (11, 18, 1)
        >>> CallRule(calls=10, wrong=11)
        Traceback (most recent call last):
        uiat.errors.UserError: 11 wrong calls cannot be among 10: give at least as many calls as have to be wrong
    """

    calls: Calls = 1
    wrong: Calls | None = None

    def __post_init__(self) -> None:
        if self.wrong is not None and self.wrong > self.calls:
            raise UserError(
                f"{self.wrong} wrong calls cannot be among {self.calls}: give at least as many calls as have to be "
                "wrong"
            )

    @property
    def least(self) -> int:
        """The number of wrong calls that break an image, m."""
        return self.calls // 2 + 1 if self.wrong is None else self.wrong

    @property
    def repeats(self) -> bool:
        """True if the rule asks more than once."""
        return self.calls > 1


ONE_CALL = CallRule()


def binomial_tail(successes: int, n: int, p: float) -> float:
    """Compute the probability of at least so many successes in n trials.

    Example:
        >>> binomial_tail(2, 2, 0.5), binomial_tail(0, 2, 0.5)
        (0.25, 1.0)
    """
    return math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(successes, n + 1))


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
