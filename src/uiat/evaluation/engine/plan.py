"""What an evaluation will do: its attacks as stages with their settings; what cannot be is refused before any work."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from uiat.attacks import PGD, Search
from uiat.checks import check_batch
from uiat.errors import UserError
from uiat.evaluation.registry import GRADIENT_FREE, attack, stages
from uiat.formatting import threat_record
from uiat.models import check_model
from uiat.models.inspect import classes_of, device_of, differentiable
from uiat.threat import Threat

# Name of an attack, and its settings; None for the images as they are.
Stage = tuple[str, PGD | Search | None]
Plan = Mapping[str, Sequence[Stage]]
TRANSFER = "transfer"


def make_plan(attacks: Sequence[str], threat: Threat, transfer: nn.Module | None = None) -> Plan:
    """Each attack once, "clean" first, as the stages it consists of; with a second model, "transfer" too.

    A stage of a name is one and the same wherever it stands: where an ensemble's has other settings than what stands
    elsewhere under that name, it is named after the ensemble as well.

    Raises:
        UserError: an unknown attack, a text instead of a list, or "transfer" without a second model.

    Example:
        >>> from uiat import Linf
        >>> [stage for stage, _ in make_plan(["autoattack-quick"], Linf(0.1))["autoattack-quick"]]
        ['apgd-ce', 'apgd-t']
        >>> [stage for stage, _ in make_plan(["apgd-ce", "autoattack-rand"], Linf(0.1))["autoattack-rand"]]
        ['apgd-ce (autoattack-rand)', 'apgd-dlr']
    """
    if isinstance(attacks, str):
        raise UserError(f"attacks must be a list of names, such as {attacks.split(',')}, not the text {attacks!r}")
    names = dict.fromkeys(["clean", *attacks, *([] if transfer is None else [TRANSFER])])
    plan = {name: stages(name, threat=threat, source=transfer) for name in names}
    settings: dict[str, PGD | Search | None] = {}
    double = {n for parts in plan.values() for n, how in parts if settings.setdefault(n, how) != how}
    usual = {stage: attack(stage, threat=threat) for stage in double}
    return {
        name: [(f"{n} ({name})" if n in double and how != usual[n] else n, how) for n, how in parts]
        for name, parts in plan.items()
    }


def drop_gradient_attacks(plan: Plan, model: nn.Module, x: Tensor) -> tuple[Plan, list[str]]:
    """What of a plan can be done to a model, and the names of what cannot: to one without a gradient, all that need it.

    An ensemble that cannot be run whole is not claimed: the stages that are left of it become attacks of their own.

    Example:
        >>> from uiat import Linf
        >>> import torch
        >>> class Detached(nn.Flatten):
        ...     def forward(self, x):
        ...         return super().forward(x.detach())
        >>> able, unable = drop_gradient_attacks(
        ...     make_plan(["fgsm", "autoattack"], Linf(0.1)), Detached(), torch.rand(1, 1, 2, 2)
        ... )
        >>> list(able), unable
        (['clean', 'square'], ['fgsm', 'autoattack'])
    """
    if differentiable(model, x):
        return plan, []
    able: dict[str, Sequence[Stage]] = {}
    for parts in plan.values():
        able |= {stage: [(stage, settings)] for stage, settings in parts if stage.startswith(GRADIENT_FREE)}
    whole = {name for name, parts in plan.items() if all(stage in able for stage, _ in parts)}
    return able, [name for name in plan if name not in whole]


def budgets(plan: Plan) -> dict[str, dict[str, Any]]:
    """The settings of each stage as plain values.

    Example:
        >>> from uiat import Linf
        >>> budgets(make_plan(["fgsm"], Linf(0.1)))["fgsm"]["steps"]
        1
    """
    return {stage: _plain(settings) for parts in plan.values() for stage, settings in parts}


def _plain(settings: PGD | Search | None) -> dict[str, Any]:
    if settings is None:
        return {}
    values = {"attack": type(settings).__name__}
    if dataclasses.is_dataclass(settings):
        values |= {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    plain = (str, int, float, bool, type(None))
    return {name: value if isinstance(value, plain) else _text(value) for name, value in values.items()}


def _text(value: object) -> str:
    if isinstance(value, nn.Module):
        return type(value).__name__
    return threat_record(value) if isinstance(value, Threat) else repr(value)


def count_steps(settings: PGD | Search | None, classes: int) -> int:
    """Steps of an attack over all its attempts: how long it takes, compared with another.

    Example:
        >>> count_steps(PGD(steps=10, restarts=2), 10)
        20
    """
    if settings is None:
        return 1
    if isinstance(settings, PGD):
        return settings.steps * settings.restarts
    return settings.iterations * settings.attempts(classes)


def check_inputs(model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int, transfer: nn.Module | None = None) -> int:
    """The number of classes, once everything is what it should be.

    Example:
        >>> import torch
        >>> check_inputs(
        ...     nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(1, 1, 2, 2), torch.tensor([0]), batch_size=1
        ... )
        2
    """
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, but is {batch_size}")
    check_batch(x, y)
    classes = classes_of(model, x)
    check_model(model, x[:4].to(device_of(model)), classes)
    if int(y.max()) >= classes:
        raise UserError(f"the model tells {classes} classes apart, but labels run up to {int(y.max())}")
    if transfer is not None:
        _check_source(transfer, x, classes)
    return classes


def _check_source(transfer: nn.Module, x: Tensor, classes: int) -> None:
    """Refuse a model that no examples can be made on."""
    try:
        others = classes_of(transfer, x)
    except UserError as error:
        raise UserError(str(error).replace("the model", "the model to transfer from", 1)) from None
    if others != classes:
        raise UserError(f"the model to transfer from tells {others} classes apart, and the model judged {classes}")
    if not differentiable(transfer, x):
        raise UserError("the model to transfer from has no gradient with respect to its input: no examples can be made")
