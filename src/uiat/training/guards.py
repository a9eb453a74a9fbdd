"""What goes wrong in adversarial training without anyone noticing, noticed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from uiat.errors import NotFinite


class Alarm(NamedTuple):
    """Something that the guards saw: what kind, and a sentence for the user."""

    kind: str
    message: str


def require_finite(means: Mapping[str, float], *, epoch: int, step: int, kept: str) -> None:
    """Stop when a loss term is infinite or not a number.

    Args:
        means: loss terms by name.
        epoch: where, counted from 0.
        step: where in the epoch.
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


def require_finite_weights(model: nn.Module, *, epoch: int, step: int, kept: str) -> None:
    """Stop when a parameter is not finite, as an update can be while its loss was. Waits for the device.

    Raises:
        NotFinite: names the first such parameter.

    Example:
        >>> require_finite_weights(nn.Linear(2, 2), epoch=0, step=1, kept="nowhere")
    """
    named = [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]
    if named and not torch.stack([p.isfinite().all() for _, p in named]).all():
        name = next(name for name, p in named if not p.isfinite().all())
        raise _not_finite(f"weight {name} is not finite", epoch=epoch, step=step, kept=kept)


def _not_finite(what: str, *, epoch: int, step: int, kept: str) -> NotFinite:
    return NotFinite(
        f"{what} in epoch {epoch + 1}, by step {step}: start again with a lower optimisation.learning_rate or with "
        f"optimisation.clip_norm; last good checkpoint: {kept}"
    )


def warn_at_chance(history: Sequence[Mapping[str, Any]], *, num_classes: int, epochs: int) -> Alarm | None:
    """Clean accuracy on held-out data that has not left chance by the first validation after some epochs; said once.

    Example:
        >>> warn_at_chance([{"epoch": 0, "clean": 0.1}], num_classes=10, epochs=1).kind
        'chance'
    """
    judged = [row for row in history if row.get("clean") is not None]
    if not judged or judged[-1] is not history[-1] or judged[-1]["epoch"] + 1 < epochs:
        return None
    if len(judged) > 1 and judged[-2]["epoch"] + 1 >= epochs:
        return None  # said already
    best, chance = max(row["clean"] for row in judged), 1 / num_classes
    if best > 1.2 * chance:
        return None
    done = judged[-1]["epoch"] + 1
    return Alarm(
        "chance",
        f"after {done} epochs clean validation accuracy is {best:.1%}, still at chance ({chance:.1%}): "
        "try a lower learning rate, a longer warm-up or a smaller epsilon",
    )


def warn_catastrophic_overfitting(history: Sequence[Mapping[str, Any]], *, num_classes: int) -> Alarm | None:
    """Training robust accuracy above where it was at the best epoch, held-out PGD accuracy under half of its best.

    Or, where it never had a best: half of the training batches stand, and not a tenth as many held-out images; said
    once. Looks at epochs that were validated, and needs the objective's "correct" measurement on training batches,
    which has to be under attack. Single-step training falls into this (Wong et al. 2020): the model learns to defeat
    the one-step attack alone.

    Example:
        >>> rows = [
        ...     {"epoch": 0, "robust": 0.4, "train_correct": 0.4},
        ...     {"epoch": 1, "robust": 0.0, "train_correct": 0.8},
        ... ]
        >>> warn_catastrophic_overfitting(rows, num_classes=10).kind
        'overfitting'
    """
    judged = [row for row in history if row.get("robust") is not None and "train_correct" in row]
    if len(judged) < 2 or judged[-1] is not history[-1]:
        return None
    now, best = judged[-1], max(judged[:-1], key=lambda row: float(row["robust"]))
    learnt = best["robust"] > 1.5 / num_classes
    jumped = now["train_correct"] > best["train_correct"] + 0.02
    if learnt and jumped and now["robust"] < 0.5 * best["robust"]:
        held_out = f"fell from {best['robust']:.1%} to {now['robust']:.1%}"
    elif not learnt and _apart(now) and (len(judged) == 2 or not _apart(judged[-2])):
        held_out = f"never left {max(best['robust'], now['robust']):.1%}"
    else:
        return None
    return Alarm(
        "overfitting",
        f"catastrophic overfitting in epoch {now['epoch'] + 1}: robust accuracy on training batches rose to "
        f"{now['train_correct']:.1%} while PGD accuracy on held-out images {held_out}: use more attack steps, a random "
        "start or a smaller step",
    )


def _apart(row: Mapping[str, Any]) -> bool:
    return bool(row["train_correct"] > 0.5 and row["robust"] < 0.1 * row["train_correct"])
