"""The plan of an evaluation: its attacks as stages with their settings; refuse what cannot be before any work."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from uiat.attacks import PGD, External
from uiat.attacks.gradient import UNSAID
from uiat.checks import check_batch
from uiat.errors import UserError
from uiat.evaluation.attack_facts import needs_gradient
from uiat.evaluation.own_attacks import OwnAttack, make_attack, name_attack
from uiat.evaluation.registry import Settings, attack, find_row, stages
from uiat.formatting import threat_record
from uiat.models import check_model
from uiat.models.inspect import Target
from uiat.system.own_code import describe_code
from uiat.threat import Threat

# Name of an attack, and its settings; None for the images as they are.
Stage = tuple[str, Settings]
Plan = Mapping[str, Sequence[Stage]]
TRANSFER = "transfer"
_NEVER = object()
RESERVED = {"clean", "worst", ""}  # of the results


def make_plan(attacks: Sequence[str | OwnAttack], threat: Threat, transfer: nn.Module | None = None) -> Plan:
    """Split each attack into its stages, "clean" first; with a second model, "transfer" is one of the attacks.

    Stages of one name are one and the same in all attacks, and are run once: where a stage of an ensemble has other
    settings than the stage of that name elsewhere, it is named after the ensemble as well.

    Args:
        attacks: names; settings of an attack; functions of (model, x, y) that return images; (name, any of these).
        threat: the threat model.
        transfer: a second model, to make examples on.

    Raises:
        UserError: an unknown attack, a text instead of a list, or "transfer" without a second model.

    Example:
        >>> from uiat import Linf
        >>> list(make_plan(["fgsm", PGD(threat=Linf(0.1)), ("mine", lambda model, x, y: x)], Linf(0.1)))
        ['clean', 'fgsm', 'PGD', 'mine']
        >>> [stage for stage, _ in make_plan(["autoattack-quick"], Linf(0.1))["autoattack-quick"]]
        ['apgd-ce', 'apgd-t']
        >>> [stage for stage, _ in make_plan(["apgd-ce", "autoattack-rand"], Linf(0.1))["autoattack-rand"]]
        ['apgd-ce (autoattack-rand)', 'apgd-dlr']
    """
    if isinstance(attacks, str):
        raise UserError(f"attacks must be a list of names, such as {attacks.split(',')}, not the text {attacks!r}")
    plan: dict[str, list[Stage]] = {}
    for given in ["clean", *attacks, *([] if transfer is None else [TRANSFER])]:
        if isinstance(given, str):
            if given not in plan:
                plan[given] = stages(given, threat=threat, source=transfer)
        else:
            name = _name_own(given, plan)
            plan[name] = [(name, make_attack(_value(given), name=name, threat=threat))]
    first: dict[str, Settings] = {}
    ambiguous = {
        stage for parts in plan.values() for stage, settings in parts if first.setdefault(stage, settings) != settings
    }
    usual = {stage: attack(stage, threat=threat) for stage in ambiguous}

    def label(name: str, stage: str, settings: Settings) -> str:
        return f"{stage} ({name})" if stage in ambiguous and settings != usual[stage] else stage

    return {
        name: [(label(name, stage, settings), settings) for stage, settings in parts] for name, parts in plan.items()
    }


def _value(given: OwnAttack) -> Any:
    return given[1] if isinstance(given, tuple) and len(given) == 2 else given


def _name_own(given: OwnAttack, taken: Mapping[str, object]) -> str:
    """Return the name of an attack that was given as an object: its own, with a number where another has that."""
    if isinstance(given, tuple):
        if len(given) != 2 or not isinstance(given[0], str):
            raise UserError(f"an attack with a name of its own is written (name, attack), not {given!r}")
        name = given[0]
        if name in taken or name in RESERVED or find_row(name) is not None:
            raise UserError(f"the name {name!r} is that of another attack: choose another for yours")
        return name
    name = name_attack(given)
    if name in RESERVED or find_row(name) is not None:
        name = type(given).__name__
    numbered = (name if number == 1 else f"{name} {number}" for number in itertools.count(1))
    return next(name for name in numbered if name not in taken)


def drop_gradient_attacks(plan: Plan) -> tuple[Plan, list[str]]:
    """Return what of a plan can be done to a model without a gradient, and the names of the attacks that cannot.

    An ensemble that cannot be run whole is not claimed: the stages that are left of it become attacks of their own.

    Example:
        >>> from uiat import Linf
        >>> able, unable = drop_gradient_attacks(make_plan(["fgsm", "autoattack"], Linf(0.1)))
        >>> list(able), unable
        (['clean', 'square'], ['fgsm', 'autoattack'])
    """
    able: dict[str, Sequence[Stage]] = {}
    for parts in plan.values():
        able |= {stage: [(stage, settings)] for stage, settings in parts if not needs_gradient(stage, settings)}
    whole = {name for name, parts in plan.items() if all(stage in able for stage, _ in parts)}
    return able, [name for name in plan if name not in whole]


def budgets(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return the settings of each stage as plain values.

    Example:
        >>> from uiat import Linf
        >>> budgets(make_plan(["fgsm"], Linf(0.1)))["fgsm"]["steps"]
        1
    """
    return {stage: _to_plain(settings) for parts in plan.values() for stage, settings in parts}


def _to_plain(settings: Settings) -> dict[str, Any]:
    if settings is None:
        return {}
    values = {"attack": type(settings).__name__}
    if dataclasses.is_dataclass(settings):
        values |= {
            field.name: getattr(settings, field.name)
            for field in dataclasses.fields(settings)
            if field.metadata.get(UNSAID, _NEVER) != getattr(settings, field.name)
        }
    plain = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, plain) else _to_text(value) for name, value in values.items()}


def _to_text(value: object) -> str:
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, Threat):
        return threat_record(value)
    # A plain object's text has its address in memory: another one each time.
    return describe_code(value) if callable(value) or " at 0x" in repr(value) else repr(value)


def is_counted(settings: Settings) -> bool:
    """True if an attack is a part of the worst case over a ball, which patches and the like are not.

    Example:
        >>> from uiat import Linf
        >>> is_counted(attack("pgd-20", threat=Linf(0.1))), is_counted(attack("patch-2", threat=Linf(0.1)))
        (True, False)
    """
    return not getattr(settings, "outside_ball", False)


def count_steps(settings: Settings, classes: int) -> int:
    """Count the steps of an attack over all its attempts: how long it takes, compared with another.

    Example:
        >>> count_steps(PGD(steps=10, restarts=2), 10)
        20
    """
    if settings is None or isinstance(settings, External):
        return 1
    if isinstance(settings, PGD):
        return settings.steps * settings.restarts
    return settings.iterations * settings.attempts(classes)


def check_inputs(
    target: Target,
    x: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    transfer: nn.Module | None = None,
    plan: Plan = MappingProxyType({}),
) -> None:
    """Refuse images, labels, models and attacks that do not fit together.

    Raises:
        UserError: a batch size below 1, images or labels that are none, a model that does not return logits or has
            fewer classes than the labels, a second model with other classes or without a gradient, an attack that
            aims at a class that the model does not have.

    Example:
        >>> import torch
        >>> x, y = torch.rand(1, 1, 2, 2), torch.tensor([1])
        >>> check_inputs(Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x), x, y, batch_size=1)
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, but is {batch_size}")
    check_batch(x, y)
    classes = target.classes
    check_model(target.model, x[:4].to(target.device), classes)
    if int(y.max()) >= classes:
        raise UserError(f"the model tells {classes} classes apart, but labels run up to {int(y.max())}")
    if transfer is not None:
        _check_source(Target(transfer, x, name="the model to transfer from"), classes)
    for stage, settings in itertools.chain.from_iterable(plan.values()):
        _check_attack(stage, settings, classes, tuple(x.shape[1:]))


def _check_attack(stage: str, settings: Settings, classes: int, image_shape: tuple[int, ...]) -> None:
    """Refuse an attack that cannot be made on these classes and images; it says so in a method `check_fits`."""
    check: Callable[[int, tuple[int, ...]], None] | None = getattr(settings, "check_fits", None)
    if check is not None:
        try:
            check(classes, image_shape)
        except UserError as error:
            raise UserError(f"{stage}: {error}") from None


def _check_source(source: Target, classes: int) -> None:
    """Refuse a model that no examples can be made on."""
    if source.classes != classes:
        raise UserError(f"{source.name} tells {source.classes} classes apart, and the evaluated model {classes}")
    if not source.differentiable:
        raise UserError(f"{source.name} has no gradient with respect to its input: no examples can be made")
