"""The optimiser and the learning-rate schedule of a run, from torch's own."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)
from torch.optim.optimizer import Optimizer

from uiat.config.schema import Optimisation
from uiat.errors import UserError
from uiat.speed.activation_checkpointing import find_blocks


def make_optimizer(model: nn.Module, config: Optimisation, *, plain: bool = False) -> Optimizer:
    """Make SGD or AdamW over the parameters that require gradients.

    Args:
        model: the model to train, on its device.
        config: optimizer, learning rate, momentum, weight decay.
        plain: torch's default form, not the fused one.

    Raises:
        UserError: no parameter requires a gradient.

    Example:
        >>> make_optimizer(nn.Linear(2, 2), Optimisation(learning_rate=0.3)).param_groups[0]["lr"]
        0.3
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise UserError("the model has no parameter that requires a gradient: there is nothing to train")
    # The fused form reads each weight once; on a CPU the default one (foreach) is several times slower.
    fused = {p.device.type for p in parameters} <= {"cpu", "cuda"} and all(p.dtype == torch.float32 for p in parameters)
    fused = fused and not plain
    decay, groups = config.weight_decay, _group(model, config)
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.learning_rate, weight_decay=decay, fused=fused or None)
    nesterov = config.nesterov and config.momentum > 0
    rate, momentum = config.learning_rate, config.momentum
    return SGD(groups, lr=rate, momentum=momentum, nesterov=nesterov, weight_decay=decay, fused=fused or None)


def _group(model: nn.Module, config: Optimisation) -> list[dict[str, Any]]:
    """Return groups of parameters of one learning rate and one weight decay, those of the whole rate first."""
    depths = _depths(model) if config.layer_decay < 1 else {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            rate = config.learning_rate * config.layer_decay ** depths.get(name, 0)
            decay = config.weight_decay if config.decay_norms or p.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(p)
    ordered = sorted(groups.items(), key=lambda item: item[0], reverse=True)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in ordered]


def add_network(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
    """Add the parameters of a second network; its norms and biases decay as the model's do.

    Example:
        >>> optimizer = make_optimizer(nn.Linear(2, 2), Optimisation(decay_norms=False))
        >>> add_network(optimizer, list(nn.Linear(2, 2).parameters()))
        >>> [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
        [(1, 0.0005), (1, 0.0), (1, 0.0005), (1, 0.0)]
    """
    flat = [group for group in optimizer.param_groups if all(p.ndim <= 1 for p in group["params"])]
    if any(group.get("weight_decay") == 0 for group in flat):
        optimizer.add_param_group({"params": [p for p in parameters if p.ndim > 1]})
        optimizer.add_param_group({"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0})
    else:
        optimizer.add_param_group({"params": list(parameters)})


def _depths(model: nn.Module) -> dict[str, int]:
    """Return how many blocks from the last layer each parameter is, by its name.

    What comes before the first block is one more than that; what is between two blocks belongs to the former.
    """
    try:
        blocks = find_blocks(model)
    except UserError as error:
        raise UserError(str(error).replace("recompute", "optimisation.layer_decay")) from None
    own = {id(p): index for index, block in enumerate(blocks, start=1) for p in block.parameters()}
    last = max(i for i, p in enumerate(model.parameters()) if id(p) in own)
    depths, reached = {}, 0
    for i, (name, p) in enumerate(model.named_parameters()):
        reached = own.get(id(p), reached)
        depths[name] = 0 if i > last else len(blocks) + 1 - reached
    return depths


def check_optimizer(optimizer: Optimizer, model: nn.Module) -> None:
    """Refuse an optimiser that cannot make a step of this model.

    Raises:
        UserError: it holds none of the model's parameters, or its step asks for a closure, as that of LBFGS.

    Example:
        >>> check_optimizer(SGD(nn.Linear(2, 2).parameters(), lr=0.1), nn.Linear(2, 2))
        Traceback (most recent call last):
        uiat.errors.UserError: the optimiser holds none of the model's parameters: make it over model.parameters()
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held.isdisjoint(map(id, model.parameters())):
        raise UserError("the optimiser holds none of the model's parameters: make it over model.parameters()")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(f"{type(optimizer).__name__} asks for a closure in each step: use SGD, AdamW or the like")


def make_scheduler(optimizer: Optimizer, config: Optimisation, *, steps_per_epoch: int, done: int = 0) -> LRScheduler:
    """Make the learning-rate schedule of a run.

    A schedule holds nothing but its position, so resuming replays the steps and then takes the saved optimiser's rate.

    Args:
        optimizer: its learning rate is set from then on.
        config: schedule, warm-up and number of epochs.
        steps_per_epoch: number of steps an epoch.
        done: number of steps of the run that are done already.

    Raises:
        UserError: a warm-up as long as the run, or before a schedule that has its own.

    Example:
        >>> optimizer = make_optimizer(nn.Linear(2, 2), Optimisation())
        >>> scheduler = make_scheduler(optimizer, Optimisation(schedule="cosine", epochs=1), steps_per_epoch=2, done=1)
        >>> round(scheduler.get_last_lr()[0], 3)
        0.05
    """
    with warnings.catch_warnings():
        # torch warns when a scheduler steps before its optimiser, which is what a replay does.
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        warmup = round(config.warmup_epochs * steps_per_epoch)
        total = config.epochs * steps_per_epoch - warmup
        if total < 1:
            raise UserError("warmup_epochs must leave at least one step of the run")
        scheduler = _make_main(optimizer, config, total, steps_per_epoch, warmup)
        if warmup:
            ramp = LinearLR(optimizer, start_factor=1 / warmup, end_factor=1.0, total_iters=max(1, warmup - 1))
            scheduler = SequentialLR(optimizer, [ramp, scheduler], milestones=[warmup])
        for _ in range(done):
            scheduler.step()
    return scheduler


def _make_main(
    optimizer: Optimizer, config: Optimisation, total: int, steps_per_epoch: int, warmup: int
) -> LRScheduler:
    """Make the schedule after the warm-up, `total` steps long."""
    peak = max(1, round(config.peak_at * total))
    if warmup and config.schedule in ("onecycle", "cyclic"):
        raise UserError(f'schedule "{config.schedule}" warms up by itself: leave warmup_epochs at 0')
    match config.schedule:
        case "piecewise":
            at = [max(0, m * steps_per_epoch - warmup) for m in config.milestones]
            return MultiStepLR(optimizer, milestones=at, gamma=config.decay)
        case "cosine":
            return CosineAnnealingLR(optimizer, T_max=total)
        case "onecycle":
            # Of an optimiser that is resumed the peak is known, and its rate is that of its last step.
            rate = [group.get("max_lr", group["lr"]) for group in optimizer.param_groups]
            count = total + 1  # one more: a rate is also set after the last step
            rise = max(config.peak_at, 1.5 / count)  # torch divides by the number of steps up
            return OneCycleLR(optimizer, max_lr=rate, total_steps=count, pct_start=rise, cycle_momentum=False)
        case "cyclic":
            return LambdaLR(optimizer, lambda step: min(step / peak, max(0.0, (total - step) / max(1, total - peak))))
        case _:
            return LambdaLR(optimizer, lambda step: 1.0)
