"""Findings, reasons not to believe a number; the verdict on them, and the two statistical tests they have to pass.

A fraction is held against a bound by the lower end of its 95 % Wilson interval, so that few images cannot accuse a
model by chance. Two attacks are compared by the points that only one of them breaks, by a sign test: between equals
each such point is a coin toss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from uiat.checks import checked, checked_fields
from uiat.formatting import DOUBT, percent
from uiat.intervals import wilson

Severity = Literal["do not believe", "note"]
CHANCE = 0.01  # level of a sign test
# What to do where the gradient says nothing, or not what the model does.
WITHOUT_GRADIENT = (
    "put the step that hides the gradient into uiat.BPDA and run --attacks autoattack; as it is, --attacks square-20000"
)


@checked_fields
@dataclass(frozen=True)
class Finding:
    """A reason not to believe a number, or a note beside it.

    Args:
        check: name of the check, a word or two.
        reason: what the check saw, as the end of a sentence.
        severity: "do not believe" or "note".
        next_step: what to do or to run next, as a command would have it; "" where nothing follows.

    Example:
        >>> Finding("images", "it rests on 10 images", "note").severity
        'note'
    """

    check: str
    reason: str
    severity: Severity = "do not believe"
    next_step: str = ""


def wilson_lower(count: int, n: int) -> float:
    """Return the lower end of the 95 % interval of a fraction (Wilson 1927).

    Example:
        >>> round(wilson_lower(5, 100), 3)
        0.022
    """
    return wilson(count, n)[0]


def sign_test(ahead: int, behind: int) -> float:
    """Return the p-value of the one-sided sign test: of at least `ahead` heads in `ahead + behind` tosses of a coin.

    Example:
        >>> sign_test(3, 0)
        0.125
    """
    tosses = ahead + behind
    return sum(math.comb(tosses, k) for k in range(ahead, tosses + 1)) / 2**tosses


def whole_percent(count: int, n: int, *, digits: int = 0) -> str:
    """Return a fraction as text, in whole percent or with some digits more.

    Example:
        >>> whole_percent(1, 8)
        '12 %'
    """
    return percent(count / max(n, 1), digits=digits)


@checked
def verdict(findings: Sequence[Finding]) -> str:
    """Sum findings up in one sentence.

    Example:
        >>> verdict([])
        'nothing speaks against the number'
        >>> verdict([Finding("images", "it rests on 10 images", "note")])
        'nothing speaks against the number, but note: it rests on 10 images'
        >>> verdict([Finding("gradient", "there is none")])
        'do not believe this number: there is none'
        >>> verdict([Finding("steps", "more steps break more", next_step="run --attacks autoattack")])
        'do not believe this number: more steps break more; next: run --attacks autoattack'
    """
    grave = [finding.reason for finding in findings if finding.severity == DOUBT]
    notes = [finding.reason for finding in findings if finding.severity == "note"]
    steps = [finding.next_step for finding in findings if finding.severity == DOUBT or not grave]
    then = [f"next: {step}" for step in dict.fromkeys(steps) if step]
    if grave:
        return f"{DOUBT} this number: " + "; ".join([*grave, *then])
    return "nothing speaks against the number" + (", but note: " + "; ".join([*notes, *then]) if notes else "")
