"""What all processes have found out, as one result."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.plan import Plan, budgets
from uiat.evaluation.registry import ENSEMBLES
from uiat.evaluation.result import BINS, EvaluationResult, accuracy_by_class, add_by_name, calibration_error, wilson
from uiat.formatting import threat_record
from uiat.system.distributed import Rank
from uiat.threat import Threat


def aggregate(
    tally: Outcomes,
    share: Rank,
    y: Tensor,
    *,
    threat: Threat,
    seed: int,
    plan: Plan,
    classes: int,
    unable: Sequence[str] = (),
) -> EvaluationResult:
    """The result of an evaluation of which each process holds its tally; the same in all of them.

    Args:
        tally: this process's.
        share: this process among all.
        y: labels of all images.
        threat: the threat model.
        seed: of the random numbers.
        plan: what was run.
        classes: K.
        unable: attacks that could not be run, because the model has no gradient.

    Example:
        >>> import torch
        >>> from uiat import Linf
        >>> tally = Outcomes(torch.arange(2), confidence=torch.tensor([0.9, 0.6]))
        >>> tally.note("clean", "clean", torch.tensor([True, False]), torch.rand(2, 1))
        >>> tally.spend("clean", "clean", {"seconds": 0.1, "forward": 2, "backward": 0})
        >>> options = {"threat": Linf(0.1), "seed": 0, "plan": {"clean": [("clean", None)]}, "classes": 2}
        >>> aggregate(tally, Rank(), torch.tensor([0, 1]), **options).accuracy
        {'clean': 0.5, 'worst': 0.5}
    """
    tallies, n, y = share.gather(tally), len(y), y.cpu()
    right = {name: _whole([t.right[name] for t in tallies], tallies, n) for name in plan}
    right["worst"] = _whole([t.standing for t in tallies], tallies, n)
    stages = {name: {stage: _count(tallies, name, stage) / n for stage, _ in plan[name]} for name in plan}
    confidence = _whole([t.confidence for t in tallies if t.confidence is not None], tallies, n)
    kept = [t.examples for t in tallies if t.examples is not None]
    return EvaluationResult(
        threat=threat_record(threat),
        n=n,
        accuracy={name: int(those.sum()) / n for name, those in right.items()},
        seconds={name: max(_seconds(t.spent[name].values()) for t in tallies) for name in plan},
        broken_by=_broken_by(tallies, n),
        seed=seed,
        stages={name: shares for name, shares in stages.items() if name in ENSEMBLES},
        **_costs(tallies),
        intervals={name: wilson(int(those.sum()), n) for name, those in right.items()},
        per_class={name: accuracy_by_class(those, y, classes=classes) for name, those in right.items()},
        calibration={"ece": calibration_error(confidence, right["clean"]), "bins": BINS},
        budgets=budgets(plan),
        warnings=_warnings(tallies, unable),
        examples=_whole(kept, tallies, n) if kept else None,
    )


def _whole(parts: Sequence[Tensor], tallies: Sequence[Outcomes], n: int) -> Tensor:
    """The values of all images, from those of each process's."""
    whole = parts[0].new_zeros(n, *parts[0].shape[1:])
    for part, tally in zip(parts, tallies, strict=True):
        whole[tally.index] = part
    return whole


def _count(tallies: Sequence[Outcomes], name: str, stage: str) -> int:
    return sum(tally.after[name][stage][0] for tally in tallies)


def _seconds(costs: Any) -> float:
    return float(sum(cost["seconds"] for cost in costs))


def _broken_by(tallies: Sequence[Outcomes], n: int) -> list[str]:
    names = [""] * n
    for tally in tallies:
        for position, number in zip(tally.index.tolist(), tally.breaker.tolist(), strict=True):
            names[position] = tally.names[number] if number >= 0 else ""
    return names


def _costs(tallies: Sequence[Outcomes]) -> dict[str, Any]:
    """Passes of all processes together, and seconds of the slowest, by stage; a stage of two attacks has both."""
    alone: list[dict[str, Mapping[str, float]]] = []
    for tally in tallies:
        stages: dict[str, list[Mapping[str, float]]] = {}
        for costs in tally.spent.values():
            for stage, cost in costs.items():
                stages.setdefault(stage, []).append(cost)
        alone.append({stage: add_by_name(costs) for stage, costs in stages.items()})
    total = {stage: add_by_name([costs[stage] for costs in alone]) for stage in alone[0]}
    return {
        "passes": {stage: {kind: int(cost[kind]) for kind in ("forward", "backward")} for stage, cost in total.items()},
        "stage_seconds": {stage: max(costs[stage]["seconds"] for costs in alone) for stage in total},
    }


def _warnings(tallies: Sequence[Outcomes], unable: Sequence[str]) -> list[str]:
    found, limits = [], [tally.limit for tally in tallies if tally.limit is not None]
    if limits:
        found.append(f"memory ran out: no more than {min(limits)} images went through the model at once")
    if unable:
        words = "the model has none with respect to its input, so that nothing is claimed of them"
        found.append(f"not run: {', '.join(unable)}, which need a gradient; {words}")
    return found
