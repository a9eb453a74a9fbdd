"""Fit universal perturbations once a stage, on images apart from those that they are measured on."""

import zlib
from collections.abc import Iterable
from itertools import chain
from typing import Any, TypeGuard

import torch
from torch import Tensor

from uiat.checks import check_batch
from uiat.errors import UserError
from uiat.evaluation.engine.attack_target import AttackTarget, exact_inference
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.plan import Plan
from uiat.evaluation.listener import EvaluationListener
from uiat.evaluation.registry import Settings
from uiat.inverse.universal_attack import NOT_FITTED, FitImages, UniversalAttack
from uiat.models.inspect import Target
from uiat.system.distributed import Rank


def unfitted(plan: Plan) -> dict[str, UniversalAttack]:
    """Return the stages of a plan that have to be fitted, by name.

    Example:
        >>> from uiat import Linf
        >>> from uiat.evaluation.engine.plan import make_plan
        >>> list(unfitted(make_plan(["fgsm", "uap-2"], Linf(0.1))))
        ['uap-2']
    """
    stages: Iterable[tuple[str, Any]] = chain.from_iterable(plan.values())
    return {stage: settings for stage, settings in stages if is_open(settings)}


def is_open(settings: object) -> TypeGuard[UniversalAttack]:
    """True if an attack has to be fitted before it can be tried.

    Example:
        >>> from uiat import Linf
        >>> is_open(UniversalAttack(threat=Linf(0.1))), is_open(None)
        (True, False)
    """
    return isinstance(settings, UniversalAttack) and settings.z is None


def check_fit_images(plan: Plan, target: Target, x: Tensor, images: FitImages | None) -> None:
    """Refuse a plan that has to be fitted without images for it, and such images as do not fit.

    Args:
        plan: the attacks.
        target: the model.
        x: images that are measured.
        images: those to fit on.

    Raises:
        UserError: there are none, they have another shape or labels beyond the model's classes, or are the measured.
    """
    if not (stages := unfitted(plan)):
        return
    if images is None:
        raise UserError(f"{next(iter(stages))} {NOT_FITTED}")
    check_batch(*images)
    if images.x.shape[1:] != x.shape[1:]:
        raise UserError(f"fit: images {tuple(images.x.shape[1:])} do not fit those measured, {tuple(x.shape[1:])}")
    if (top := int(images.y.max())) >= target.classes:
        raise UserError(f"fit: the model tells {target.classes} classes apart, but labels run up to {top}")
    if images.x.shape == x.shape and torch.equal(images.x.to(x), x):
        raise UserError("fit: these are the images that are measured; give others, such as training images")


def bind(settings: Settings, z: Tensor | None) -> Settings:
    """Return the settings of a stage with its fitted perturbations, if it has any.

    Example:
        >>> bind(None, None) is None
        True
    """
    return settings.fitted(z) if isinstance(settings, UniversalAttack) and z is not None else settings


def fit_stages(
    plan: Plan,
    target: AttackTarget,
    outcomes: Outcomes,
    images: FitImages | None,
    rank: Rank,
    listener: EvaluationListener,
) -> bool:
    """Fit each stage of a plan that has to be and is not yet, together with the other processes.

    The perturbations and their costs are added to the outcomes. A fit that a state file has is not made again, although
    only one of the processes has it; one that was stopped begins anew, and ends as it would have.

    Returns:
        True if there was something to do.
    """
    done = False
    for name, parts in plan.items():
        for stage, settings in parts:
            if is_open(settings) and target.classes > 1:
                done |= _fit_stage(name, stage, settings, target, outcomes, images, rank, listener)
    return done


def _fit_stage(
    name: str,
    stage: str,
    settings: UniversalAttack,
    target: AttackTarget,
    outcomes: Outcomes,
    images: FitImages | None,
    rank: Rank,
    listener: EvaluationListener,
) -> bool:
    holders = rank.gather(stage in outcomes.fits)
    if all(holders):
        return False
    if any(holders):
        first = holders.index(True)
        known = rank.gather(outcomes.fits[stage] if rank.rank == first else None)[first]
        assert known is not None
        outcomes.fits[stage] = known
        return True
    assert images is not None  # `check_fit_images` refuses that
    target.pop_costs()
    with exact_inference(target.module):
        fitted = settings.fit(
            target.guided,
            images,
            num_classes=target.classes,
            seed=target.seed + zlib.crc32(stage.encode()),
            device=target.device,
            in_parts=target.batch_size.batches,
            on_step=lambda done, total: listener.progress(f"{name}: fit", done, total),
        )
    assert fitted.z is not None
    outcomes.fits[stage] = fitted.z.cpu()
    outcomes.add_cost(name, stage, target.pop_costs())
    return True
