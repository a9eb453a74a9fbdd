"""Checks of a result that there is already: its images, and attacks that should have broken more than others."""

import re
from collections.abc import Iterator

from uiat.evaluation.attack_facts import averages, find_own_row
from uiat.evaluation.record import outside_ball
from uiat.evaluation.registry import Attack, find_row, stage_names
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.selfcheck.attack_checks import (
    check_gradient_free_wins,
    check_more_steps,
    check_overstatement,
    check_own_attack_wins,
    check_sample_size,
    check_square_gains,
)
from uiat.evaluation.selfcheck.finding import Finding

PLAIN = ("fgsm", "pgd", "cw")  # stems of attacks whose steps are all of one length


def from_result(result: EvaluationResult) -> list[Finding]:
    """Return findings from a result alone: too few images, attacks beaten by others, steps that still helped.

    Example:
        >>> result = EvaluationResult("Linf:0.1", 2, {"clean": 1.0, "worst": 0.5}, {}, ["", "pgd-20"], 0)
        >>> [finding.check for finding in from_result(result)]
        ['images']
    """
    findings = [check_sample_size(result.n), *_check_gradient_free(result), _check_convergence(result)]
    findings.append(_check_overstatement(result))
    return [finding for finding in findings if finding is not None]


def attack_names(result: EvaluationResult) -> list[str]:
    """Return the named attacks of a result, in their order.

    Example:
        >>> attack_names(EvaluationResult("Linf:0.1", 1, {"clean": 1.0, "pgd-2": 1.0, "worst": 1.0}, {}, [""], 0))
        ['pgd-2']
    """
    apart = {"clean", "worst", *outside_ball(result.budgets)}
    return [name for name in result.accuracy if name not in apart]


def stage_order(result: EvaluationResult) -> list[str]:
    """Return the stages of a result as they ran.

    Example:
        >>> accuracy = {"clean": 1.0, "autoattack-quick": 1.0, "worst": 1.0}
        >>> stage_order(EvaluationResult("Linf:0.1", 1, accuracy, {}, [""], 0))
        ['apgd-ce', 'apgd-t']
    """
    by_attack = (result.stages.get(name, stage_names(name)) for name in attack_names(result))
    return [stage for stages in by_attack for stage in stages]


def is_scale_free(result: EvaluationResult) -> bool:
    """True if no number of a result is one of an attack that saturated logits stop; a stage's number counts too.

    Example:
        >>> is_scale_free(EvaluationResult("Linf:0.1", 1, {"clean": 1.0, "cw-20": 1.0, "worst": 1.0}, {}, [""], 0))
        True
        >>> is_scale_free(EvaluationResult("Linf:0.1", 1, {"clean": 1.0, "pgd-20": 1.0, "cw-20": 1.0}, {}, [""], 0))
        False
    """
    rows = [_row(stage, result) for stage in stage_order(result)]
    immune = [row is not None and (row.scale_free or not row.needs_gradient) for row in rows]
    return all(immune) and any(row is not None and row.scale_free for row in rows)


def is_averaged(result: EvaluationResult) -> bool:
    """True if all attacks of a result average over the answers of a randomised model.

    Example:
        >>> is_averaged(EvaluationResult("Linf:0.1", 1, {"clean": 1.0, "autoattack-rand": 1.0}, {}, [""], 0))
        True
    """
    names = attack_names(result)
    return bool(names) and all(averages(name) or result.budgets.get(name, {}).get("draws", 1) > 1 for name in names)


def plain_attacks(result: EvaluationResult) -> list[str]:
    """Return the attacks of a result by gradient steps of one length, FGSM, PGD and CW, in their order.

    Example:
        >>> accuracy = {"clean": 1.0, "pgd-20": 0.5, "autoattack": 0.4, "worst": 0.4}
        >>> plain_attacks(EvaluationResult("Linf:0.1", 1, accuracy, {}, [""], 0))
        ['pgd-20']
    """
    rows = {name: _row(name, result) for name in attack_names(result)}
    return [name for name, row in rows.items() if row is not None and row.stem in PLAIN]


def _row(name: str, result: EvaluationResult) -> Attack | None:
    """Return what is known of an attack or stage, by its name or, of one given as an object, by its settings."""
    budget = result.budgets.get(name, {})
    match = find_row(name)
    return find_own_row(str(budget.get("attack")), budget.get("loss")) if match is None else match[0]


def _check_gradient_free(result: EvaluationResult) -> Iterator[Finding | None]:
    """Check attacks without gradients, and the user's own, that ran after Auto-PGD.

    Plain PGD is no measure for an attack of 5,000 queries.
    """
    # What has been broken is not attacked again: the first time that a stage ran counts.
    stages = list(dict.fromkeys(stage_order(result)))
    attacked = result.n - result.broken_by.count("clean")
    auto_pgd = [place for place, stage in enumerate(stages) if stage.startswith("apgd")]
    for place, stage in enumerate(stages):
        row, count = _row(stage, result), result.broken_by.count(stage)
        if not auto_pgd or place < max(auto_pgd):
            continue
        if row is None:
            yield check_own_attack_wins(stage, count, attacked)
        elif not row.needs_gradient:
            wins = check_gradient_free_wins(row.stem, count, attacked)
            yield check_square_gains(count, result.n) if wins is None and row.stem == "square" else wins


def _check_convergence(result: EvaluationResult) -> Finding | None:
    """Compare PGD of ten steps or more with PGD of at least twice as many and the same restarts."""
    by_steps = {
        int(match[1]): accuracy
        for name, accuracy in result.accuracy.items()
        if (match := re.fullmatch(r"pgd-(\d+)", name)) and int(match[1]) >= 10
    }
    if len(by_steps) < 2 or max(by_steps) < 2 * min(by_steps):
        return None
    gained = round((by_steps[min(by_steps)] - by_steps[max(by_steps)]) * result.n)
    return check_more_steps(max(gained, 0), result.n, few=min(by_steps), many=max(by_steps))


def _check_overstatement(result: EvaluationResult) -> Finding | None:
    """Compare the plain attack that breaks the fewest images with the worst case, where another kind of attack ran."""
    plain = plain_attacks(result)
    others = [name for name in attack_names(result) if name not in plain]
    if not plain or not others:
        return None
    weakest = max(plain, key=lambda name: result.accuracy[name])
    count = round((result.accuracy[weakest] - result.accuracy["worst"]) * result.n)
    strongest = min((name for name in attack_names(result) if name != weakest), key=lambda name: result.accuracy[name])
    return check_overstatement(weakest, strongest, max(count, 0), result.n)
