"""The judge: accuracy under named attacks and in the worst case over them; it knows nothing of how a model was made."""

from uiat.evaluation.engine.stage import correct_under
from uiat.evaluation.evaluator import evaluate
from uiat.evaluation.radius_sweep import SweepResult, epsilons, sweep
from uiat.evaluation.registry import ATTACKS, ENSEMBLES, attack, stages
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.robustbench import entry, evaluate_zoo, zoo_model
from uiat.evaluation.selfcheck import Finding, examine, verdict

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
