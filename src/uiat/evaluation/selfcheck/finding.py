"""Reasons not to believe a number, what they come to, and the two tests that all of them are put to.

A share is held against a bound by the lower end of its 95 % Wilson interval, so that few images cannot accuse a model
by chance. Two attacks are compared by the points that only one of them breaks, by a sign test: between equals each such
point is a coin toss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from uiat import formatting
from uiat.evaluation.result import wilson

Severity = Literal["do not believe", "note"]
CHANCE = 0.01  # of a sign test


@dataclass(frozen=True)
class Finding:
    """A reason not to believe a number, or a note beside it.

    Args:
        check: what looked, in a word or two.
        reason: what it saw, as the end of a sentence.
        severity: "do not believe" or "note".

    Example:
        >>> Finding("images", "it rests on 10 images", "note").severity
        'note'
    """

    check: str
    reason: str
    severity: Severity = "do not believe"


def wilson_lower(count: int, n: int) -> float:
    """The lower end of the 95 % interval of a share.

    Example:
        >>> round(wilson_lower(5, 100), 3)
        0.022
    """
    return wilson(count, n)[0]


def sign_test(ahead: int, behind: int) -> float:
    """How likely at least `ahead` heads are in `ahead + behind` tosses: the one-sided sign test.

    Example:
        >>> sign_test(3, 0)
        0.125
    """
    tosses = ahead + behind
    return sum(math.comb(tosses, k) for k in range(ahead, tosses + 1)) / 2**tosses


def percent(count: int, n: int) -> str:
    """A share in words, such as "12 %".

    Example:
        >>> percent(1, 8)
        '12 %'
    """
    return formatting.percent(count / max(n, 1), digits=0)


def verdict(findings: Sequence[Finding]) -> str:
    """What the findings come to, in one sentence.

    Example:
        >>> verdict([])
        'nothing speaks against the number'
        >>> verdict([Finding("images", "it rests on 10 images", "note")])
        'nothing speaks against the number, but note: it rests on 10 images'
        >>> verdict([Finding("gradient", "there is none")])
        'do not believe this number: there is none'
    """
    grave = [finding.reason for finding in findings if finding.severity == "do not believe"]
    notes = [finding.reason for finding in findings if finding.severity == "note"]
    if grave:
        return "do not believe this number: " + "; ".join(grave)
    return "nothing speaks against the number" + (", but note: " + "; ".join(notes) if notes else "")
