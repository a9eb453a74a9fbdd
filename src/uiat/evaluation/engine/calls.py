"""Models that answer at random: how many wrong answers break an image, and what so many calls prove.

An example is given to the model again in fresh calls, which had no part in finding it. With one call, as for a model
that always answers alike, the rule is the usual one: a wrong answer breaks the image.
"""

from dataclasses import dataclass
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
