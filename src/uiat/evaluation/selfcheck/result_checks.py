"""What an evaluation that has been done already knows about itself."""

import re
from collections.abc import Iterator

from uiat.evaluation.registry import ENSEMBLES, GRADIENT_FREE
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.selfcheck.attack_checks import check_gradient_free_wins, check_more_steps, check_sample_size
from uiat.evaluation.selfcheck.finding import Finding

# Attacks whose loss does not change with the scale of the logits, so that saturated logits do not stop them.
SCALE_FREE = ("apgd-dlr", "apgd-t", "fab", "fmn", "cw")


def from_result(result: EvaluationResult) -> list[Finding]:
    """Findings from a result alone: too few images, gradients beaten by what has none, steps that still helped.

    Example:
        >>> result = EvaluationResult("Linf:0.1", 2, {"clean": 1.0, "worst": 0.5}, {}, ["", "pgd-20"], 0)
        >>> [finding.check for finding in from_result(result)]
        ['images']
    """
    found = [check_sample_size(result.n), *_beaten(result), _unconverged(result)]
    return [finding for finding in found if finding is not None]


def stage_order(result: EvaluationResult) -> list[str]:
    """The stages of a result as they ran.

    Example:
        >>> stage_order(
        ...     EvaluationResult("Linf:0.1", 1, {"clean": 1.0, "autoattack-quick": 1.0, "worst": 1.0}, {}, [""], 0)
        ... )
        ['apgd-ce', 'apgd-t']
    """
    names = [name for name in result.accuracy if name not in ("clean", "worst")]
    return [stage for name in names for stage in result.stages.get(name, ENSEMBLES.get(name, (name,)))]


def is_scale_free(result: EvaluationResult) -> bool:
    """Whether no number of a result is one of an attack that saturated logits stop; a stage's number counts too.

    Example:
        >>> is_scale_free(EvaluationResult("Linf:0.1", 1, {"clean": 1.0, "cw-20": 1.0, "worst": 1.0}, {}, [""], 0))
        True
        >>> is_scale_free(EvaluationResult("Linf:0.1", 1, {"clean": 1.0, "pgd-20": 1.0, "cw-20": 1.0}, {}, [""], 0))
        False
    """
    immune = [stage.startswith(SCALE_FREE) for stage in stage_order(result)]
    return any(immune) and all(stage.startswith(SCALE_FREE + GRADIENT_FREE) for stage in stage_order(result))


def is_averaged(result: EvaluationResult) -> bool:
    """Whether all attacks of a result average over the answers of a randomised model.

    Example:
        >>> is_averaged(EvaluationResult("Linf:0.1", 1, {"clean": 1.0, "autoattack-rand": 1.0}, {}, [""], 0))
        True
    """
    names = [name for name in result.accuracy if name not in ("clean", "worst")]
    return bool(names) and all(name == "autoattack-rand" or "-eot-" in name for name in names)


def _beaten(result: EvaluationResult) -> Iterator[Finding | None]:
    """What fell to an attack without gradients behind Auto-PGD; plain PGD is no measure for one of 5,000 queries."""
    stages = list(
        dict.fromkeys(stage_order(result))
    )  # what has been broken is not attacked again: the first time counts
    attacked = result.n - result.broken_by.count("clean")
    climbs = [place for place, stage in enumerate(stages) if stage.startswith("apgd")]
    for place, stage in enumerate(stages):
        if stage.startswith(GRADIENT_FREE) and climbs and max(climbs) < place:
            kind = next(name for name in GRADIENT_FREE if stage.startswith(name))
            yield check_gradient_free_wins(kind, result.broken_by.count(stage), attacked)


def _unconverged(result: EvaluationResult) -> Finding | None:
    """PGD with ten steps or more against PGD with at least twice as many, of the same restarts."""
    runs = {
        int(match[1]): share
        for name, share in result.accuracy.items()
        if (match := re.fullmatch(r"pgd-(\d+)", name)) and int(match[1]) >= 10
    }
    if len(runs) < 2 or max(runs) < 2 * min(runs):
        return None
    gained = round((runs[min(runs)] - runs[max(runs)]) * result.n)
    return check_more_steps(max(gained, 0), result.n, few=min(runs), many=max(runs))
