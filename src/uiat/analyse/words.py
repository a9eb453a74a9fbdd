"""Numbers as a paragraph says them."""

from collections.abc import Sequence


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


def strength(epsilon: float) -> str:
    """A radius, in 255ths where it is a whole number of them.

    Example:
        >>> strength(8 / 255), strength(-0.125)
        ('8/255', '-0.125')
    """
    pixels = epsilon * 255
    whole = abs(pixels - round(pixels)) < 1e-4 and 0 < abs(round(pixels)) <= 16
    return f"{round(pixels)}/255" if whole else f"{epsilon:.3g}"


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
