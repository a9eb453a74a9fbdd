"""The public interface, which `import uiat` gives: `uiat.NAME` is `uiat.api.NAME`.

The names in `__all__` are grouped by meaning; everything else may change between versions.
"""

from uiat import analyse, data, experiments, models, recipes
from uiat.attacks import (
    APGD,
    FAB,
    FGSM,
    FGSMRS,
    FMN,
    NFGSM,
    PGD,
    Noise,
    Patch,
    PatchAttack,
    SparseAPGD,
    Square,
    TargetedPGD,
    Transfer,
    minimum_norm,
)
from uiat.certify import CertifiedResult, SmoothedResult, certify_bounds, certify_smoothing
from uiat.config.schema import Compute, Data, Evaluation, Guards, Model, Optimisation, Run, Validation
from uiat.config.yaml_io import dump, override
from uiat.config.yaml_io import load as load_config
from uiat.data import Batch
from uiat.errors import NotFinite, UserError
from uiat.evaluation import EvaluationResult
from uiat.evaluation.evaluator import evaluate
from uiat.evaluation.radius_sweep import SweepResult, radius_sweep
from uiat.inverse import (
    GeneratorInverse,
    InstanceInverse,
    InverseGenerator,
    UniversalAttack,
    UniversalInverse,
    UniversalPerturbation,
    load_generator,
    load_inverse,
)
from uiat.models.bpda import BPDA, CheckpointedSteps
from uiat.objectives import (
    ADR,
    ARD,
    DHAT,
    DKL,
    FAT,
    GAIRAT,
    HAT,
    LBGAT,
    MLCAT,
    PGDAT,
    RSLAD,
    UIAT,
    Examples,
    Mart,
    Objective,
    Score,
    SelfAdaptive,
    Squeeze,
    Standard,
    Trades,
    total,
)
from uiat.objectives.iat import IAT
from uiat.runs.checkpoint import load
from uiat.system.extras import installed_version
from uiat.threat import L1, L2, Linf
from uiat.training.api import fit, resume, train
from uiat.training.loop import Interrupted
from uiat.training.result import Trained
from uiat.training.step import Step, make_step

# As the papers write them.
MART, TRADES = Mart, Trades
sweep = radius_sweep  # the old name; `uiat.experiments.sweep` is a grid of runs
__version__ = installed_version("uiat") or "0"  # "0" in a source tree that is not installed

__all__ = [
    # Train: recipes, a model of one's own, or a loop of one's own.
    "recipes",
    "train",
    "resume",
    "fit",
    "Trained",
    "make_step",
    "Step",
    "load",
    "load_inverse",
    "load_generator",
    # Methods.
    "Objective",
    "Standard",
    "PGDAT",
    "Trades",
    "TRADES",
    "Mart",
    "MART",
    "IAT",
    "UIAT",
    "HAT",
    "Score",
    "DKL",
    "LBGAT",
    "FAT",
    "SelfAdaptive",
    "MLCAT",
    "Squeeze",
    "DHAT",
    "ARD",
    "RSLAD",
    "ADR",
    "GAIRAT",
    "Examples",
    "total",
    # Inverse adversaries.
    "InstanceInverse",
    "GeneratorInverse",
    "InverseGenerator",
    "UniversalInverse",
    "UniversalPerturbation",
    # Threat models.
    "Linf",
    "L2",
    "L1",
    "Patch",
    # Attacks.
    "PGD",
    "FGSM",
    "FGSMRS",
    "NFGSM",
    "APGD",
    "SparseAPGD",
    "TargetedPGD",
    "FAB",
    "FMN",
    "Square",
    "Noise",
    "Transfer",
    "UniversalAttack",
    "PatchAttack",
    "minimum_norm",
    # Gradients for defences without one.
    "BPDA",
    "CheckpointedSteps",
    # Evaluate.
    "evaluate",
    "EvaluationResult",
    "radius_sweep",
    "sweep",
    "SweepResult",
    "certify_bounds",
    "CertifiedResult",
    "certify_smoothing",
    "SmoothedResult",
    # Settings of a run.
    "Run",
    "Data",
    "Model",
    "Optimisation",
    "Validation",
    "Guards",
    "Compute",
    "Evaluation",
    "override",
    "dump",
    "load_config",
    # Data, models, studies, grids of runs.
    "Batch",
    "data",
    "models",
    "analyse",
    "experiments",
    # What can go wrong.
    "UserError",
    "NotFinite",
    "Interrupted",
]
