"""Radii and steps as users write them: numbers, or fractions such as "8/255"."""

import math
from fractions import Fraction

from uiat.errors import UserError

_LONGEST = 40  # characters of a number


def number(value: float | str, *, name: str = "epsilon") -> float:
    """Return a radius or a step as a float, from a number or a fraction such as "8/255", in units of the range [0, 1].

    Raises:
        UserError: not a number, not finite, or negative.

    Example:
        >>> number("8/255") == 8 / 255
        True
    """
    try:
        result = _read_number(value) if isinstance(value, str) else float(value)
    except OverflowError:
        result = math.inf
    except (ValueError, ZeroDivisionError, TypeError):
        shown = repr(value) if len(str(value)) <= _LONGEST else f"{str(value)[:_LONGEST]!r}..."
        raise UserError(f'{name} must be a number or a fraction like "8/255", not {shown}') from None
    if not math.isfinite(result):
        raise UserError(f"{name} must be finite, not {result}")
    if result < 0:
        raise UserError(f"{name} must not be negative, but is {result:g}")
    return result


def _read_number(text: str) -> float:
    """Read a number or a fraction; fractions of whole numbers alone are exact, so that no exponent takes for ever."""
    text = text.replace(" ", "")
    if len(text) > _LONGEST:
        raise ValueError(text)
    return float(Fraction(text) if "/" in text else text)


def radius(value: float | str, *, limit: float, norm: str, name: str = "epsilon") -> float:
    """Return a positive radius below `limit`; a larger one was most likely given in pixel values of 0 to 255.

    Args:
        value: a number or a fraction such as "8/255".
        limit: bound that the radius has to be below.
        norm: name of the norm, for the message.
        name: name of the field, for the message.

    Raises:
        UserError: not a positive number below the limit.

    Example:
        >>> radius("4/255", limit=1.0, norm="Linf") == 4 / 255
        True
    """
    result = number(value, name=name)
    if result == 0:
        raise UserError(f"{name} must be positive: a radius of 0 allows no perturbation")
    if result >= limit:
        raise UserError(
            f"{norm} {name} {result:g} is as large as the whole range: images are in [0, 1]"
            + (f'; did you mean "{result:g}/255" ({result / 255:.4g})?' if result / 255 < limit else "")
        )
    return result
