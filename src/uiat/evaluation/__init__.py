"""The judge: accuracy under named attacks and in the worst case over them; it knows nothing of how a model was made."""

from uiat.evaluation.judge import EvaluationResult, correct_under, evaluate
from uiat.evaluation.named import ATTACKS, ENSEMBLES, attack, stages

__all__ = ["ATTACKS", "ENSEMBLES", "EvaluationResult", "attack", "correct_under", "evaluate", "stages"]
