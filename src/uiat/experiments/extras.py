"""Extra measurements of an evaluation: radius sweep, unseen threat models, corruptions."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from uiat.evaluation.corruptions import KINDS, corruption_accuracy
from uiat.evaluation.corruptions.kinds import check_kinds
from uiat.evaluation.radius_sweep import sweep, sweep_plan
from uiat.evaluation.registry import ENSEMBLES, GRADIENT_FREE, stages
from uiat.evaluation.unseen import unseen, usual_threats
from uiat.models.inspect import differentiable
from uiat.threat import Threat, parse

USUAL, ALL = "usual", "all"


def plan_extras(
    *,
    ball: Threat,
    data: str,
    epsilons: str | None = None,
    sweep_attack: str = "pgd-20",
    norms: str | None = None,
    norms_attack: str = "autoattack-quick",
    corruptions: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The further measurements that options ask for, by name, with their arguments; what cannot be is refused here.

    Args:
        ball: the threat model of the evaluation.
        data: name of the data set.
        epsilons: as `sweep` takes them.
        sweep_attack: the attack of the sweep.
        norms: "usual", or threat models with commas.
        norms_attack: the attack under each of them.
        corruptions: "all", or kinds with commas.

    Raises:
        UserError: what `sweep`, `unseen` and `corruption_accuracy` refuse.

    Example:
        >>> plan_extras(ball=parse("Linf:8/255"), data="cifar10", norms="L2:0.5", corruptions="fog, snow")[
        ...     "corruptions"
        ... ]
        {'kinds': ['fog', 'snow']}
    """
    found: dict[str, dict[str, Any]] = {}
    if epsilons is not None:
        strengths = list(sweep_plan(epsilons, attack=sweep_attack, threat=ball))
        found["sweep"] = {"threat": ball, "epsilons": strengths, "attack": sweep_attack}
    if norms is not None:
        threats = list(usual_threats(data)) if norms == USUAL else _words(norms)
        for threat in threats:
            stages(norms_attack, threat=parse(threat))
        which = {"data": data} if norms == USUAL else {"threats": threats}
        found["unseen"] = {"trained": ball, "attack": norms_attack, **which}
    if corruptions is not None:
        kinds = list(KINDS) if corruptions == ALL else _words(corruptions)
        check_kinds(kinds, [1])
        found["corruptions"] = {"kinds": kinds}
    return found


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def run_extras(
    asked: Mapping[str, dict[str, Any]],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    seed: int,
    progress: Callable[[str, int, int], None],
    first: bool = True,
) -> dict[str, Any]:
    """The results of what `plan_extras` found, as plain values, by the names they have in evaluation.json.

    Args:
        asked: from `plan_extras`.
        model: the model.
        x: images.
        y: labels.
        batch_size: images at a time.
        seed: of the random numbers.
        progress: as `evaluate` takes it.
        first: whether this is the first of several processes; what cannot be shared out, it does alone.

    Example:
        >>> import torch
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.rand(4, 1, 8, 8)
        >>> asked = {"corruptions": {"kinds": ["fog"]}}
        >>> options = {"batch_size": 4, "seed": 0, "progress": lambda *_: None}
        >>> list(run_extras(asked, model, x, torch.tensor([0, 1, 0, 1]), **options)["corruptions"]["by_kind"])
        ['fog']
    """
    options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "progress": progress}
    able = drop_gradient_extras(asked, model, x)
    found: dict[str, Any] = {"not_measured": unable} if (unable := [name for name in asked if name not in able]) else {}
    asked = able
    if "unseen" in asked:  # splits the images over the processes
        found["unseen"] = unseen(model, x, y, **asked["unseen"], **options).to_json()
    if first and "sweep" in asked:
        found["sweep"] = sweep(model, x, y, **asked["sweep"], **options).to_json()
    if first and "corruptions" in asked:
        found["corruptions"] = corruption_accuracy(model, x, y, **asked["corruptions"], **options).to_json()
    return found


def drop_gradient_extras(asked: Mapping[str, dict[str, Any]], model: nn.Module, x: Tensor) -> dict[str, dict[str, Any]]:
    """What is asked for, without what needs a gradient where the model has none.

    Example:
        >>> import torch
        >>> asked = {"sweep": {"attack": "pgd-20"}, "corruptions": {"kinds": ["fog"]}}
        >>> list(drop_gradient_extras(asked, nn.Flatten(), torch.rand(1, 4)))
        ['sweep', 'corruptions']
    """
    if differentiable(model, x):
        return dict(asked)
    attacks = {name: how.get("attack", "clean") for name, how in asked.items()}
    stages = {name: ENSEMBLES.get(attack, (attack,)) for name, attack in attacks.items()}
    return {n: how for n, how in asked.items() if all(stage.startswith(GRADIENT_FREE) for stage in stages[n])}
