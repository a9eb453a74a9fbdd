"""Reduce the outcomes of all ranks to one EvaluationResult."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from uiat.evaluation.engine.asked import CLEAN, WORST
from uiat.evaluation.engine.calls import EVEN, ONE_CALL, CallRule
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.plan import Plan, budgets, is_counted
from uiat.evaluation.registry import stage_names
from uiat.evaluation.result import (
    BINS,
    EvaluationResult,
    accuracy_by_class,
    add_by_name,
    calibration_error,
)
from uiat.formatting import class_spread, threat_record
from uiat.intervals import binomial_tail, least_probability, mean_interval, wilson
from uiat.system.distributed import Rank
from uiat.threat import Threat

LEVEL = 0.05  # of the bound on how often an image that is called broken is misclassified


def aggregate(
    outcomes: Outcomes,
    rank: Rank,
    y: Tensor,
    *,
    threat: Threat,
    seed: int,
    plan: Plan,
    classes: int,
    unable: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    rule: CallRule = ONE_CALL,
) -> EvaluationResult:
    """Reduce the outcomes that each process holds to the result of the evaluation, the same in all processes.

    Args:
        outcomes: those of this process.
        rank: this process.
        y: labels of all images.
        threat: the threat model.
        seed: seed of the random numbers.
        plan: the attacks that were run.
        classes: number of classes.
        unable: attacks that could not be run, because the model has no gradient.
        class_names: names of the classes, to warn of those without an image; by default no warning.
        rule: how many wrong calls break an image.

    Example:
        >>> import torch
        >>> from uiat import Linf
        >>> outcomes = Outcomes(torch.arange(2), confidence=torch.tensor([0.9, 0.6]))
        >>> outcomes.end_stage("clean", "clean", torch.tensor([True, False]), torch.rand(2, 1))
        >>> outcomes.add_cost("clean", "clean", {"seconds": 0.1, "forward": 2, "backward": 0})
        >>> options = {"threat": Linf(0.1), "seed": 0, "plan": {"clean": [("clean", None)]}, "classes": 2}
        >>> aggregate(outcomes, Rank(), torch.tensor([0, 1]), **options).accuracy
        {'clean': 0.5, 'worst': 0.5}
    """
    parts, n, y = rank.gather(outcomes), len(y), y.cpu()
    correct = {name: _scatter([part.correct[name] for part in parts], parts, n) for name in plan}
    correct["worst"] = _scatter([part.robust for part in parts], parts, n)
    after = {name: {stage: _count(parts, name, stage) / n for stage, _ in plan[name]} for name in plan}
    examples = [part.examples for part in parts if part.examples is not None]
    per_class = {name: accuracy_by_class(mask, y, classes=classes) for name, mask in correct.items()}
    return EvaluationResult(
        threat=threat_record(threat),
        n=n,
        accuracy={name: int(mask.sum()) / n for name, mask in correct.items()},
        seconds={name: max(_seconds(part.costs[name]) for part in parts) for name in plan},
        broken_by=_broken_by(parts, n),
        seed=seed,
        stages={name: accuracies for name, accuracies in after.items() if stage_names(name) != (name,)},
        **_costs(parts),
        intervals={name: wilson(int(mask.sum()), n) for name, mask in correct.items()},
        per_class=per_class,
        fairness={name: class_spread(values) for name, values in per_class.items()},
        calibration=_calibration(parts, n, correct),
        budgets=budgets(plan),
        warnings=_warnings(parts, unable) + _warn_of_own_attacks(parts) + _absent_classes(y, class_names or ()),
        examples=_scatter(examples, parts, n) if examples else None,
        calls=_describe_calls(parts, n, rule, plan),
    )


def _calibration(parts: Sequence[Outcomes], n: int, correct: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the calibration error of the images as they are, and of the examples that attacks end in."""
    clean = _scatter([part.confidence for part in parts if part.confidence is not None], parts, n)
    # Of a model that answers at random, "clean" counts fresh calls, and a confidence is that of one call.
    called = [part.correct_in_call for part in parts if part.correct_in_call is not None]
    right = _scatter(called, parts, n) if len(called) == len(parts) else correct[CLEAN]
    attacked = {}
    for name in correct:  # in the order of the attacks
        if name not in parts[0].confidence_under:
            continue
        confidence = _scatter([part.confidence_under[name] for part in parts], parts, n)
        if not confidence.isnan().any():
            attacked[name] = calibration_error(confidence, correct[name])
    return {"ece": calibration_error(clean, right), "bins": BINS, "attacked": attacked}


def _describe_calls(parts: Sequence[Outcomes], n: int, rule: CallRule, plan: Plan) -> dict[str, Any]:
    """Return the rule, what it proves of an image that it calls broken, and the accuracy as a mean over calls."""
    asked = [part.asked for part in parts if part.asked is not None]
    if not rule.repeats or len(asked) < len(parts):
        return {}
    totals = {
        name: torch.stack([each.correct_calls[name] for each in asked]).sum(dim=0) for name in asked[0].correct_calls
    }
    # Of each image the hardest example by some calls is not the hardest of all: one attack alone may do better.
    inside = {WORST, *(name for name, stages in plan.items() if all(is_counted(how) for _, how in stages))}
    totals[WORST] = min((totals[name] for name in inside), key=lambda total: int(total.sum()))
    tests = sum(map(len, plan.values()))
    wrong = [each.wrong_calls for each in asked if each.wrong_calls is not None]
    return {
        "calls": rule.calls,
        "wrong": rule.least,
        "tests": tests,
        "error_at_least": least_probability(rule.least, rule.calls, error=LEVEL / tests),
        "by_chance": min(1.0, tests * binomial_tail(rule.least, rule.calls, EVEN)),
        "accuracy": {name: int(total.sum()) / (n * rule.calls) for name, total in totals.items()},
        "intervals": {name: mean_interval((total.double() / n).tolist()) for name, total in totals.items()},
        "wrong_calls": _scatter(wrong, parts, n).tolist(),
    }


def _scatter(values: Sequence[Tensor], parts: Sequence[Outcomes], n: int) -> Tensor:
    """Put the values of each process's images where they are among all."""
    whole = values[0].new_zeros(n, *values[0].shape[1:])
    for value, part in zip(values, parts, strict=True):
        whole[part.index] = value
    return whole


def _count(parts: Sequence[Outcomes], name: str, stage: str) -> int:
    return sum(part.counts_after[name][stage][0] for part in parts)


def _seconds(costs: Mapping[str, Mapping[str, float]]) -> float:
    return float(sum(cost["seconds"] for cost in costs.values()))


def _broken_by(parts: Sequence[Outcomes], n: int) -> list[str]:
    names = [""] * n
    for part in parts:
        for position, number in zip(part.index.tolist(), part.breaker.tolist(), strict=True):
            names[position] = part.names[number] if number >= 0 else ""
    return names


def _costs_by_stage(part: Outcomes) -> dict[str, dict[str, float]]:
    """Sum the costs of each stage over the attacks that it was run for."""
    stages: dict[str, list[Mapping[str, float]]] = {}
    for costs in part.costs.values():
        for stage, cost in costs.items():
            stages.setdefault(stage, []).append(cost)
    return {stage: add_by_name(costs) for stage, costs in stages.items()}


def _total_costs(by_part: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    return {stage: add_by_name([costs[stage] for costs in by_part]) for stage in by_part[0]}


def _costs(parts: Sequence[Outcomes]) -> dict[str, Any]:
    """Sum the passes of all processes and take the seconds of the slowest; a stage of two attacks has both costs."""
    by_part = [_costs_by_stage(part) for part in parts]
    total = _total_costs(by_part)
    return {
        "projected": {stage: int(cost["projected"]) for stage, cost in total.items() if "projected" in cost},
        "passes": {stage: {kind: int(cost[kind]) for kind in ("forward", "backward")} for stage, cost in total.items()},
        "stage_seconds": {stage: max(costs[stage]["seconds"] for costs in by_part) for stage in total},
    }


def _warn_of_own_attacks(parts: Sequence[Outcomes]) -> list[str]:
    """Say of attacks from outside how many of their examples were no examples."""
    warnings = []
    for stage, cost in _total_costs([_costs_by_stage(part) for part in parts]).items():
        if cost.get("projected", 0):
            warnings.append(
                f"{stage}: {int(cost['projected'])} of its examples lay outside the ball or [0, 1] and were projected"
            )
        # Many attacks give an image back that they cannot break; one that changes none has done nothing.
        if 0 < cost.get("attacked", 0) == cost["unchanged"]:
            warnings.append(f"{stage}: it has changed none of the {int(cost['attacked'])} images that it was given")
    return warnings


def _warnings(parts: Sequence[Outcomes], unable: Sequence[str]) -> list[str]:
    warnings, limits = [], [part.memory_limit for part in parts if part.memory_limit is not None]
    if limits:
        warnings.append(f"memory ran out: no more than {min(limits)} images went through the model at once")
    if unable:
        words = "the model has none with respect to its input, so that nothing is claimed of them"
        warnings.append(f"not run: {', '.join(unable)}, which need a gradient; {words}")
    return warnings


def _absent_classes(y: Tensor, names: Sequence[str]) -> list[str]:
    """Warn of classes without an image, of which the accuracies say nothing."""
    present = set(y.tolist())
    absent = [name for label, name in enumerate(names) if label not in present]
    if not absent:
        return []
    which = "class" if len(absent) == 1 else "classes"
    named = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
    return [f"no image of {which} {named}, of {len(names)}: the accuracies say nothing of them"]
