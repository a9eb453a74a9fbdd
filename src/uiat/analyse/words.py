"""Numbers as a paragraph says them."""

from collections.abc import Sequence

CHANCE = 1.96  # standard errors; a difference beyond them is one time in twenty without a cause


def percent(share: float) -> str:
    """A share with one decimal.

    Example:
        >>> percent(0.4567)
        '45.7 %'
    """
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares, in percentage points with its sign.

    Example:
        >>> points(0.0312), points(-0.0312)
        ('+3.1 points', '-3.1 points')
    """
    return f"{round(100 * difference, 1) + 0.0:+.1f} points"


def in_255ths(norm: str, epsilon: float) -> bool:
    """Whether people write such a radius in 255ths: a whole number of them, and few, in Linf.

    Example:
        >>> in_255ths("Linf", 8 / 255), in_255ths("Linf", 0.2), in_255ths("L2", 8 / 255)
        (True, False, False)
    """
    pixels = 255 * epsilon
    return norm == "Linf" and abs(pixels - round(pixels)) < 1e-4 and 1 <= round(pixels) <= 16


def strength(epsilon: float, *, pixels: bool, digits: int = 3) -> str:
    """A radius as it is, or in 255ths.

    Example:
        >>> strength(8 / 255, pixels=True), strength(0.0265, pixels=True, digits=2), strength(-0.125, pixels=False)
        ('8/255', '6.8/255', '-0.125')
    """
    return f"{255 * epsilon:.{digits}g}/255" if pixels and epsilon else f"{epsilon:.{digits}g}"


def joined(words: Sequence[str]) -> str:
    """A list as prose.

    Example:
        >>> joined(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def spread(values: Sequence[float], *, scale: float = 100.0, digits: int = 1) -> str:
    """Mean, and the standard deviation of the sample where there are several.

    Example:
        >>> spread([0.5, 0.7]), spread([0.5])
        ('60.0 ± 14.1', '50.0')
    """
    mean, deviation = mean_and_deviation(values)
    text = f"{scale * mean:.{digits}f}"
    return text if deviation is None else f"{text} ± {scale * deviation:.{digits}f}"


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


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Both; the standard deviation of one value is None.

    Example:
        >>> mean_and_deviation([1.0, 3.0])
        (2.0, 1.414)
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
