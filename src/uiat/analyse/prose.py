"""Write numbers as a paragraph says them."""

from collections.abc import Sequence
from functools import partial

from uiat import formatting

CHANCE = 1.96  # standard errors; chance alone leads to a larger difference one time in twenty


percent = partial(formatting.percent, digits=1)


def points(difference: float) -> str:
    """Write a difference of two fractions in percentage points, with its sign.

    Example:
        >>> points(0.0312), points(-0.0312)
        ('+3.1 points', '-3.1 points')
    """
    return f"{round(100 * difference, 1) + 0.0:+.1f} points"


def join_words(words: Sequence[str]) -> str:
    """Write a list as prose.

    Example:
        >>> join_words(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def standard_error(fraction: float, n: int) -> float:
    """Return the standard error of a fraction of n images.

    Example:
        >>> standard_error(0.5, 100)
        0.05
    """
    return (fraction * (1 - fraction) / max(n, 1)) ** 0.5


def error_of_mean(fractions: Sequence[float], n: int) -> float:
    """Return the standard error of a mean over seeds: of its n images, which seeds do not make more of, and of seeds.

    Example:
        >>> round(error_of_mean([0.5, 0.5], 100), 4), round(error_of_mean([0.4, 0.6], 100), 4)
        (0.05, 0.1118)
    """
    mean, deviation = formatting.mean_and_deviation(fractions)
    seeds = 0.0 if deviation is None else deviation**2 / len(fractions)
    return float((standard_error(mean, n) ** 2 + seeds) ** 0.5)


def difference_with_error(difference: float, error: float) -> str:
    """Write a difference of two fractions with its standard error, and say so where chance may explain it.

    Example:
        >>> difference_with_error(0.05, 0.01), difference_with_error(0.01, 0.01)
        ('+5.0 ± 1.0 points', '+1.0 ± 1.0 points, which may be chance')
    """
    text = f"{points(difference).removesuffix(' points')} ± {100 * error:.1f} points"
    return f"{text}, which may be chance" if abs(difference) <= CHANCE * error and error > 0 else text


def accuracy_gap(one: float, other: float, n: int) -> str:
    """Write the difference of accuracies on two sets of n images each, with its standard error.

    Example:
        >>> accuracy_gap(0.5, 0.4, 1000)
        '+10.0 ± 2.2 points'
    """
    return difference_with_error(one - other, (standard_error(one, n) ** 2 + standard_error(other, n) ** 2) ** 0.5)
