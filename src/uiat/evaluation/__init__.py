"""The judge: accuracy under named attacks and in the worst case over them; it knows nothing of how a model was made."""

from uiat.evaluation.judge import evaluate
from uiat.evaluation.named import ATTACKS, ENSEMBLES, attack, stages
from uiat.evaluation.records import EvaluationResult
from uiat.evaluation.robustbench import entry, evaluate_zoo, zoo_model
from uiat.evaluation.selfcheck import Finding, examine, verdict
from uiat.evaluation.stage import correct_under
from uiat.evaluation.sweep import SweepResult, epsilons, sweep

__all__ = [
    "ATTACKS",
    "ENSEMBLES",
    "EvaluationResult",
    "Finding",
    "SweepResult",
    "attack",
    "correct_under",
    "entry",
    "epsilons",
    "evaluate",
    "evaluate_zoo",
    "examine",
    "stages",
    "sweep",
    "verdict",
    "zoo_model",
]
