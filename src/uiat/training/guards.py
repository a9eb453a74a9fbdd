"""Guards of training: loss or weights not finite, accuracy at chance, catastrophic overfitting."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from uiat.config.schema import Run
from uiat.errors import NotFinite


class Alarm(NamedTuple):
    """A warning about a run.

    Args:
        kind: "chance" or "overfitting".
        message: a sentence for the user.
    """

    kind: str
    message: str


def require_finite(means: Mapping[str, float], *, epoch: int, step: int, kept: str) -> None:
    """Stop the run if a loss term is infinite or not a number.

    Args:
        means: mean of each loss term, by name.
        epoch: number of the present epoch, from 0.
        step: number of steps done in the epoch.
        kept: where the last good checkpoint is, for the message.

    Raises:
        NotFinite: names the terms.

    Example:
        >>> require_finite({"adv_ce": float("nan")}, epoch=1, step=7, kept="nowhere")
        Traceback (most recent call last):
        uiat.errors.NotFinite: loss term adv_ce is not finite (nan) in epoch 2, by step 7: start again ...
    """
    bad = {name: value for name, value in means.items() if not math.isfinite(value)}
    if bad:
        terms = ", ".join(f"{name} is not finite ({value})" for name, value in bad.items())
        raise _not_finite(f"loss term {terms}", epoch=epoch, step=step, kept=kept)


def require_finite_weights(model: nn.Module, state: nn.Module, *, epoch: int, step: int, kept: str) -> None:
    """Stop the run if a weight or a value of the state is not finite, as an update can be while its loss was.

    Waits for the device.

    Args:
        model: its trained parameters are checked.
        state: the objective's: so are its perturbations, remembered predictions and the networks that it trains.
        epoch: number of the present epoch, from 0.
        step: number of steps done in the epoch.
        kept: where the last good checkpoint is, for the message.

    Raises:
        NotFinite: names the first of them.

    Example:
        >>> require_finite_weights(nn.Linear(2, 2), nn.Module(), epoch=0, step=1, kept="nowhere")
    """
    named = [(f"weight {name}", p.detach()) for name, p in model.named_parameters() if p.requires_grad]
    named += [(f"weight {name} of the method's", p.detach()) for name, p in state.named_parameters() if p.requires_grad]
    named += [(f"the method's {name}", value) for name, value in state.named_buffers(recurse=False)]
    if named and not torch.stack([p.isfinite().all() for _, p in named]).all():
        name = next(name for name, p in named if not p.isfinite().all())
        raise _not_finite(f"{name} is not finite", epoch=epoch, step=step, kept=kept)


def _not_finite(what: str, *, epoch: int, step: int, kept: str) -> NotFinite:
    return NotFinite(
        f"{what} in epoch {epoch + 1}, by step {step}: start again with a lower optimisation.learning_rate or with "
        f"optimisation.clip_norm; last good checkpoint: {kept}"
    )


def find_alarms(history: Sequence[Mapping[str, Any]], run: Run, *, num_classes: int) -> list[Alarm]:
    """Return the warnings that the last epoch of a run gives rise to.

    Args:
        history: a row of measurements an epoch, the last of which has just ended.
        run: its guards, and whether it trains under attack, so that it can overfit to that.
        num_classes: K, of which chance is one.

    Example:
        >>> find_alarms([{"epoch": 0, "clean": 0.5}], Run(), num_classes=10)
        []
    """
    alarms = [find_chance(history, num_classes=num_classes, epochs=run.guards.chance_epochs)]
    if run.objective.threat is not None:
        weak = run.optimisation.radius_warmup_epochs // 2  # they have less than half of the radius
        alarms.append(find_catastrophic_overfitting(history, num_classes=num_classes, weak_epochs=weak))
    return [alarm for alarm in alarms if alarm is not None]


def find_chance(history: Sequence[Mapping[str, Any]], *, num_classes: int, epochs: int) -> Alarm | None:
    """Return an alarm if clean held-out accuracy is still at chance at the first validation after `epochs` epochs.

    Once a run.

    Args:
        history: a row of measurements an epoch.
        num_classes: K.
        epochs: number of epochs in which accuracy may be at chance.

    Example:
        >>> find_chance([{"epoch": 0, "clean": 0.1}], num_classes=10, epochs=1).kind
        'chance'
    """
    rows = [row for row in history if row.get("clean") is not None]
    if not rows or rows[-1] is not history[-1] or rows[-1]["epoch"] + 1 < epochs:
        return None
    if len(rows) > 1 and rows[-2]["epoch"] + 1 >= epochs:
        return None  # said already
    best, chance = max(row["clean"] for row in rows), 1 / num_classes
    if best > 1.2 * chance:
        return None
    done = rows[-1]["epoch"] + 1
    return Alarm(
        "chance",
        f"after {done} epochs clean validation accuracy is {best:.1%}, still at chance ({chance:.1%}): "
        "try a lower learning rate, a longer warm-up or a smaller epsilon",
    )


def find_catastrophic_overfitting(
    history: Sequence[Mapping[str, Any]], *, num_classes: int, weak_epochs: int = 0
) -> Alarm | None:
    """Return an alarm if training robust accuracy rises while held-out PGD accuracy falls under half of its best.

    If held-out accuracy never rose above chance: if more than half of the training images are robust, and not a tenth
    as many held-out ones. Once for each collapse. Single-step training falls into this (Wong et al. 2020): the model
    learns to defeat the one-step attack alone.

    Args:
        history: a row of measurements an epoch; rows without validation, or without the objective's "correct"
            measurement on training batches, which has to be under attack, are left out.
        num_classes: K.
        weak_epochs: number of first epochs whose attack is far weaker than that on held-out images, as while its radius
            grows: to be robust to it alone says nothing.

    Example:
        >>> rows = [
        ...     {"epoch": 0, "robust": 0.4, "train_correct": 0.4},
        ...     {"epoch": 1, "robust": 0.0, "train_correct": 0.8},
        ... ]
        >>> find_catastrophic_overfitting(rows, num_classes=10).kind
        'overfitting'
    """
    rows = [row for row in history if row.get("robust") is not None and "train_correct" in row]
    if len(rows) < 2 or rows[-1] is not history[-1]:
        return None
    (before, now), best = rows[-2:], max(rows[:-1], key=lambda row: float(row["robust"]))
    begins = _is_apart(now, weak_epochs) and (len(rows) == 2 or not _is_apart(before, weak_epochs))
    was_robust = best["robust"] > 1.5 / num_classes
    jumped = now["train_correct"] > best["train_correct"] + 0.02
    if was_robust and jumped and now["robust"] < 0.5 * best["robust"]:
        held_out = f"fell from {best['robust']:.1%} to {now['robust']:.1%}"
    elif not was_robust and begins:
        held_out = f"never left {max(best['robust'], now['robust']):.1%}"
    else:
        return None
    return Alarm(
        "overfitting",
        f"catastrophic overfitting in epoch {now['epoch'] + 1}: robust accuracy on training batches rose to "
        f"{now['train_correct']:.1%} while PGD accuracy on held-out images {held_out}: use more attack steps, a random "
        "start or a smaller step",
    )


def _is_apart(row: Mapping[str, Any], weak_epochs: int) -> bool:
    """True if training images are robust and held-out images are not, under attacks that can be compared."""
    return bool(
        row["epoch"] >= weak_epochs and row["train_correct"] > 0.5 and row["robust"] < 0.1 * row["train_correct"]
    )
