"""When not to believe a number: checks that run beside an evaluation and end in one verdict with its reasons."""

from uiat.evaluation.selfcheck.examine import examine
from uiat.evaluation.selfcheck.finding import Finding, verdict

__all__ = ["Finding", "examine", "verdict"]
