"""Numbers as a paragraph says them."""

from collections.abc import Sequence
from functools import partial

from uiat import formatting

CHANCE = 1.96  # standard errors; a difference beyond them is one time in twenty without a cause


percent = partial(formatting.percent, digits=1)


def points(difference: float) -> str:
    """A difference of two shares, in percentage points with its sign.

    Example:
        >>> points(0.0312), points(-0.0312)
        ('+3.1 points', '-3.1 points')
    """
    return f"{round(100 * difference, 1) + 0.0:+.1f} points"


def joined(words: Sequence[str]) -> str:
    """A list as prose.

    Example:
        >>> joined(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def share_error(share: float, n: int) -> float:
    """The standard error of a share of n images.

    Example:
        >>> share_error(0.5, 100)
        0.05
    """
    return (share * (1 - share) / max(n, 1)) ** 0.5


def against_chance(difference: float, error: float) -> str:
    """A difference of two shares with its standard error, and whether that allows for no difference at all.

    Example:
        >>> against_chance(0.05, 0.01), against_chance(0.01, 0.01)
        ('+5.0 ± 1.0 points', '+1.0 ± 1.0 points, which may be chance')
    """
    text = f"{points(difference).removesuffix(' points')} ± {100 * error:.1f} points"
    return f"{text}, which may be chance" if abs(difference) <= CHANCE * error and error > 0 else text
