"""Evaluation: accuracy under named attacks and in the worst case over them, whatever a model was trained by."""

from uiat.evaluation.engine.stage import correct_under
from uiat.evaluation.evaluator import evaluate
from uiat.evaluation.radius_sweep import SweepResult, epsilons, radius_sweep
from uiat.evaluation.registry import ATTACKS, ENSEMBLES, attack, stages
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.robustbench import entry, evaluate_zoo, zoo_model
from uiat.evaluation.selfcheck import Finding, examine, verdict

sweep = radius_sweep  # the old name

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
    "radius_sweep",
    "stages",
    "sweep",
    "verdict",
    "zoo_model",
]
