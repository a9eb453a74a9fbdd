"""Adversarial training with inverse adversaries (UIAT, CVPR 2023): train, attack and judge robust classifiers."""

from uiat import analyse, data, models, recipes
from uiat.attacks import (
    APGD,
    FAB,
    FGSM,
    FGSMRS,
    FMN,
    NFGSM,
    PGD,
    Noise,
    SparseAPGD,
    Square,
    Transfer,
    minimum_norm,
)
from uiat.config.schema import Compute, Data, Evaluation, Guards, Model, Optimisation, Run, Validation
from uiat.config.yaml_io import dump, override
from uiat.config.yaml_io import load as load_config
from uiat.data import Batch
from uiat.errors import NotFinite, UserError
from uiat.evaluation import EvaluationResult
from uiat.evaluation.evaluator import evaluate
from uiat.evaluation.radius_sweep import SweepResult, radius_sweep
from uiat.inverse import InstanceInverse, UniversalInverse, UniversalPerturbation, load_inverse
from uiat.objectives import PGDAT, UIAT, Examples, Mart, Objective, Standard, Trades, total
from uiat.runs.checkpoint import load
from uiat.system.environment import installed_version
from uiat.threat import L1, L2, Linf
from uiat.training.api import Trained, fit, resume, train
from uiat.training.loop import Interrupted
from uiat.training.step import Step, make_step

sweep = radius_sweep  # the old name
__version__ = installed_version("uiat") or "0"  # "0" in a source tree that is not installed

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "FGSMRS",
    "FMN",
    "NFGSM",
    "L1",
    "L2",
    "PGD",
    "PGDAT",
    "UIAT",
    "Batch",
    "Compute",
    "Data",
    "Evaluation",
    "EvaluationResult",
    "Examples",
    "Guards",
    "InstanceInverse",
    "Interrupted",
    "Linf",
    "Mart",
    "Model",
    "Noise",
    "NotFinite",
    "Objective",
    "Optimisation",
    "Run",
    "SparseAPGD",
    "Square",
    "Standard",
    "Step",
    "SweepResult",
    "Trades",
    "Trained",
    "Transfer",
    "UniversalInverse",
    "UniversalPerturbation",
    "UserError",
    "Validation",
    "analyse",
    "data",
    "dump",
    "evaluate",
    "fit",
    "load",
    "load_config",
    "load_inverse",
    "make_step",
    "minimum_norm",
    "models",
    "override",
    "radius_sweep",
    "recipes",
    "resume",
    "sweep",
    "total",
    "train",
]
