"""Training objectives: frozen dataclasses with `init`, `perturb` and `loss`."""

from typing import get_args

from uiat.objectives.adr import ADR
from uiat.objectives.base import Examples, Objective, check_objective, total
from uiat.objectives.baselines import PGDAT, Mart, Standard, Trades
from uiat.objectives.dhat import DHAT
from uiat.objectives.distillation import ARD, RSLAD
from uiat.objectives.dkl import DKL
from uiat.objectives.fat import FAT
from uiat.objectives.gairat import GAIRAT
from uiat.objectives.hat import HAT
from uiat.objectives.lbgat import LBGAT
from uiat.objectives.mlcat import MLCAT
from uiat.objectives.score import Score
from uiat.objectives.self_adaptive import SelfAdaptive
from uiat.objectives.squeeze import Squeeze
from uiat.objectives.uiat import UIAT

# The one list of the package's methods, which configurations choose from by name.
AnyObjective = (
    Standard
    | PGDAT
    | Trades
    | Mart
    | UIAT
    | HAT
    | Score
    | DKL
    | LBGAT
    | FAT
    | SelfAdaptive
    | MLCAT
    | Squeeze
    | DHAT
    | ARD
    | RSLAD
    | ADR
    | GAIRAT
)
METHOD_NAMES: tuple[str, ...] = tuple(method.name for method in get_args(AnyObjective))

__all__ = [
    "ADR",
    "ARD",
    "DHAT",
    "DKL",
    "FAT",
    "GAIRAT",
    "HAT",
    "LBGAT",
    "METHOD_NAMES",
    "MLCAT",
    "PGDAT",
    "RSLAD",
    "UIAT",
    "AnyObjective",
    "Examples",
    "Mart",
    "Objective",
    "Score",
    "SelfAdaptive",
    "Squeeze",
    "Standard",
    "Trades",
    "check_objective",
    "total",
]
