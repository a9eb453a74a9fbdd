"""Percentages, radii as n/255 and mean +- std as text."""

from collections.abc import Sequence

from uiat.threat import Threat


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


def radius_text(threat: Threat) -> str:
    """A radius as RobustBench writes it: Linf in fractions of 255, the others as a number.

    Example:
        >>> from uiat.threat import L2, Linf
        >>> radius_text(Linf(8 / 255)), radius_text(L2(0.5))
        ('8/255', '0.5')
    """
    epsilon = float(threat.epsilon)
    pixels = round(255 * epsilon)
    whole = threat.norm == "Linf" and pixels > 0 and abs(255 * epsilon - pixels) < 1e-3
    return f"{pixels}/255" if whole else f"{epsilon:.7g}"


def percent(share: float | None) -> str:
    """A share of images as text.

    Example:
        >>> percent(0.4567)
        '45.67 %'
    """
    return "-" if share is None else f"{share:.2%}".replace("%", " %")


def threat_text(threat: str) -> str:
    """A threat model for people: a radius in Linf as a fraction of 255 where it is one.

    Example:
        >>> threat_text("Linf:0.03137255"), threat_text("L2:0.5"), threat_text("Linf:0.2")
        ('Linf 8/255', 'L2 0.5', 'Linf 0.2')
    """
    norm, _, radius = threat.partition(":")
    try:
        pixels, number = 255 * float(radius), f"{float(radius):.4g}"
    except ValueError:
        return threat
    if norm == "Linf" and round(pixels) > 0 and abs(pixels - round(pixels)) < 1e-3 and len(number) > 4:
        number = f"{round(pixels)}/255"
    return f"{norm} {number}"


DOUBT = "do not believe"  # the first words of the verdict of the self-checks where they speak against a number


def is_doubtful(verdict: str) -> bool:
    """True if the self-checks speak against a number: their verdict says so in its first words.

    Example:
        >>> is_doubtful("do not believe this number: gradients are zero"), is_doubtful("nothing speaks against it")
        (True, False)
    """
    return verdict.startswith(DOUBT)
