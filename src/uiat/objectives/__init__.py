"""Training objectives: frozen dataclasses with `init`, `perturb` and `loss`."""

from uiat.objectives.base import Examples, Objective, total
from uiat.objectives.baselines import PGDAT, Mart, Standard, Trades
from uiat.objectives.uiat import UIAT

AnyObjective = Standard | PGDAT | Trades | Mart | UIAT

__all__ = ["PGDAT", "UIAT", "AnyObjective", "Examples", "Mart", "Objective", "Standard", "Trades", "total"]
