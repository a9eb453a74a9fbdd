"""Training objectives: frozen dataclasses with `init`, `perturb` and `loss`."""

from typing import get_args

from uiat.objectives.base import Examples, Objective, check_objective, total
from uiat.objectives.baselines import PGDAT, Mart, Standard, Trades
from uiat.objectives.uiat import UIAT

# The one list of the package's methods, which configurations choose from by name.
AnyObjective = Standard | PGDAT | Trades | Mart | UIAT
METHOD_NAMES: tuple[str, ...] = tuple(method.name for method in get_args(AnyObjective))

__all__ = [
    "METHOD_NAMES",
    "PGDAT",
    "UIAT",
    "AnyObjective",
    "Examples",
    "Mart",
    "Objective",
    "Standard",
    "Trades",
    "check_objective",
    "total",
]
