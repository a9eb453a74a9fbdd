"""When not to believe a number: checks that run beside an evaluation and end in one verdict with its reasons."""

from uiat.evaluation.selfcheck.finding import Finding, verdict
from uiat.evaluation.selfcheck.measure import examine

__all__ = ["Finding", "examine", "verdict"]
