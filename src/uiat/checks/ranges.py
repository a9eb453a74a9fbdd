"""Ranges of numbers, written where the type of a field or an argument is: `steps: Count`, `gamma: BelowOne`."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

from uiat.errors import UserError

MOST = 1_000_000  # a count or a weight beyond it was not meant


@dataclass(frozen=True)
class Between:
    """The range of a number in an annotation, `Annotated[float, Between(0, 1)]`.

    Args:
        low: smallest value.
        high: largest value.
        above: True to leave `low` itself out.
        below: True to leave `high` itself out.

    Example:
        >>> Between(0, 1, below=True).check(1.0, "gamma")
        Traceback (most recent call last):
        uiat.errors.UserError: gamma must be below 1, but is 1
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def check(self, value: float, name: str) -> None:
        """Refuse a value outside the range, NaN among them.

        Raises:
            UserError: names the argument and the bound that does not hold.
        """
        if not (value > self.low if self.above else value >= self.low):  # so that NaN is refused too
            word = "above" if self.above else "at least"
            raise UserError(f"{name} must be {word} {_write(self.low)}, but is {_write(value)}")
        if not (value < self.high if self.below else value <= self.high):
            word = "below" if self.below else "at most"
            raise UserError(f"{name} must be {word} {_write(self.high)}, but is {_write(value)}")


@dataclass(frozen=True)
class Or:
    """Another type that an annotation allows, `Annotated[AnyObjective, Or(Objective)]`, for what is listed by name.

    Args:
        kind: the other type.
    """

    kind: Any


Count = Annotated[int, Between(1, MOST)]
Whole = Annotated[int, Between(0, MOST)]
Amount = Annotated[float, Between(0, MOST)]
Positive = Annotated[float, Between(0, MOST, above=True)]
AtMostOne = Annotated[float, Between(0, 1)]
BelowOne = Annotated[float, Between(0, 1, below=True)]
Classes = Annotated[int, Between(1, MOST)]
Side = Annotated[int, Between(1, 100_000)]  # of an image, in pixels, or its channels
Seed = Annotated[int, Between(0, 2**63 - 1)]


def _write(value: float) -> str:
    """Write a number as a person would; a count in full up to nine digits."""
    if isinstance(value, int) and abs(value) < 10**9:
        return str(value)
    if isinstance(value, int) and value.bit_length() > 1_000:  # more than a float holds
        return f"about 10^{round(value.bit_length() * math.log10(2))}"
    return f"{value:g}"


def check_step(step_size: float, *, radius: float, name: str = "step_size") -> None:
    """Refuse a step that was most likely given in pixel values: at least 1, and longer than the ball is wide.

    Args:
        step_size: length of the step, in units of [0, 1].
        radius: radius of the ball.
        name: name of the field, for the message.

    Raises:
        UserError: the step is too long.

    Example:
        >>> check_step(2.0, radius=8 / 255)
        Traceback (most recent call last):
        uiat.errors.UserError: step_size 2 is longer than a ball of radius 0.03137 is wide: images are in [0, 1]; ...
    """
    if step_size >= 1 and step_size > 2 * radius:
        raise UserError(
            f"{name} {step_size:g} is longer than a ball of radius {radius:.4g} is wide: images are in [0, 1]; "
            f'did you mean "{step_size:g}/255" ({step_size / 255:.4g})?'
        )
