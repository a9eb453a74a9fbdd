"""Self-checks: look for what makes a robust accuracy look higher than it is, and sum it up in one verdict."""

from uiat.evaluation.selfcheck.examine import examine
from uiat.evaluation.selfcheck.finding import Finding, verdict

__all__ = ["Finding", "examine", "verdict"]
