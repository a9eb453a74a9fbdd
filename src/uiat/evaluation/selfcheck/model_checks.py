"""Check outputs, gradients and image scale of a model. Pure functions that return None where all is well."""

import torch
from torch import Tensor

from uiat.evaluation.selfcheck.finding import (
    CHANCE,
    WITHOUT_GRADIENT,
    Finding,
    Severity,
    sign_test,
    whole_percent,
    wilson_lower,
)
from uiat.shapes import Float, Int

# Outputs for the same images that differ by more than this fraction of the logits' spread: kernels that add up in
# another order stay below 1e-5 in float32; half precision, whose numbers have 8 bits, is left to the second bound.
UNSTEADY = 1e-3
# The same images in another batch may go through other kernels, in bf16 with errors of 2^-8 = 0.4 %.
NEIGHBOURS = 0.05
# A point without a gradient is not attacked at all, so each adds itself to the robust accuracy. A sound network's
# gradient is zero only where every unit is off.
DEAD = 0.05
# Over a hundredth of the radius a network is all but linear: attacks take steps of 1/40 to 1/4 of it and rely on that.
# Curvature does not halve or double the change that the gradient promises; kinks may, at a few points.
TWICE, DISAGREEING = 2.0, 0.10
# Another scale of the images must not help. Double normalisation costs accuracy, or a point in 100 either way.
BY_SCALE = 0.05
# Another order of the classes must not help either. It is chosen on one half of the images and tried on the other, and
# a model that mistakes some classes for others gains next to nothing by it.
BY_ORDER = 0.10
# What to do where the same images get other answers.
RANDOM = "run --attacks autoattack-rand,square-300-eot-10 --calls 20"


def check_probabilities(logits: Float[Tensor, "n k"]) -> Finding | None:
    """Check for outputs that are nowhere negative and sum to 1: taken for logits, they have next to no gradient.

    Example:
        >>> check_probabilities(torch.tensor([[0.25, 0.75]])).check
        'probabilities'
    """
    tolerance = 1e-3 if torch.finfo(logits.dtype).bits > 16 else 2e-2
    if (logits >= 0).all() and ((logits.double().sum(1) - 1).abs() < tolerance).all():
        reason = "the model returns probabilities where attacks expect logits"
        return Finding("probabilities", reason, next_step="return logits: leave out the softmax at the model's end")
    return None


def check_finite(logits: Float[Tensor, "n k"]) -> Finding | None:
    """Check for NaN or infinity among the outputs.

    Example:
        >>> check_finite(torch.tensor([[0.0, float("nan")]])).reason
        'the outputs of 1 of 1 images are NaN or infinite'
    """
    bad = int((~logits.isfinite()).any(dim=1).sum())
    if bad:
        return Finding("outputs", f"the outputs of {bad} of {len(logits)} images are NaN or infinite")
    return None


def check_randomness(answers: Float[Tensor, "calls n k"]) -> Finding | None:
    """Check for outputs that change from call to call: of a model that is randomised or has a state.

    Example:
        >>> check_randomness(torch.zeros(2, 5, 3)) is None
        True
    """
    if _difference(answers[0], answers[1:]) <= UNSTEADY:
        return None
    classes = answers.argmax(dim=2)
    changed = int((classes != classes[0]).any(dim=0).sum())
    reason = f"the outputs change from call to call (so do {changed} of {len(classes[0])} predictions)"
    return Finding("randomness", f"{reason}: attacks have to average over many calls", next_step=RANDOM)


def check_batch_dependence(together: Float[Tensor, "n k"], apart: Float[Tensor, "n k"]) -> Finding | None:
    """Check for outputs that depend on the other images of the batch.

    Example:
        >>> check_batch_dependence(torch.eye(2), torch.eye(2)) is None
        True
    """
    if _difference(together, apart) <= NEIGHBOURS:
        return None
    reason = "an image's output depends on the other images of its batch, and so do attack and number"
    return Finding("batch", reason, next_step="run with --batch-size 1")


def _difference(one: Tensor, other: Tensor) -> float:
    """Compute the largest difference, as a fraction of the spread of the outputs."""
    spread = one.double().std().clamp_min(1e-30)
    return float((other.double() - one.double()).abs().max() / spread)


def check_detached_output() -> Finding:
    """Return the finding that the output has no gradient with respect to the input at all.

    Example:
        >>> check_detached_output().check
        'no gradient'
    """
    reason = "the output has no gradient with respect to the input, which is detached, quantised or left torch"
    return Finding("no gradient", f"{reason}: attacks by gradient do nothing", next_step=WITHOUT_GRADIENT)


def check_zero_gradients(gradient: Float[Tensor, "n ..."]) -> Finding | None:
    """Check for images at which the gradient of the margin is zero or not finite.

    Example:
        >>> check_zero_gradients(torch.zeros(20, 1, 2, 2)).reason
        'the gradient is zero at 20 of 20 images (100 %): attacks by gradient do nothing there'
    """
    rows = gradient.flatten(1)
    broken = ~rows.isfinite().all(dim=1)
    count, zero = int((broken | (rows == 0).all(dim=1)).sum()), not bool(broken.any())
    if count == 0:
        return None
    what = "zero" if zero else "zero or NaN"
    reason = f"the gradient is {what} at {count} of {len(rows)} images ({whole_percent(count, len(rows))})"
    severity: Severity = "do not believe" if wilson_lower(count, len(rows)) > DEAD else "note"
    step = WITHOUT_GRADIENT if severity == "do not believe" else ""
    return Finding("gradient", f"{reason}: attacks by gradient do nothing there", severity, step)


def check_gradient_direction(
    promised: Float[Tensor, "n"], measured: Float[Tensor, "n"], *, resolution: Float[Tensor, "n"]
) -> Finding | None:
    """Check that the loss changes as its gradient says; not so if rounding is passed through or backward is false.

    Args:
        promised: change of the margin along a short step, by the gradient.
        measured: the same change by finite differences.
        resolution: smallest difference that float32 can tell apart; where the promised change is not a hundred times
            that, nothing can be said.

    Example:
        >>> ones, tiny = torch.ones(20), torch.full((20,), 1e-6)
        >>> check_gradient_direction(ones, ones, resolution=tiny) is None
        True
        >>> check_gradient_direction(ones, 0 * ones, resolution=tiny).check
        'finite differences'
    """
    resolved = promised.abs() > 100 * resolution  # False for NaN too
    n = int(resolved.sum())
    ratio = measured[resolved] / promised[resolved]
    count = int((~((ratio > 1 / TWICE) & (ratio < TWICE))).sum())
    if wilson_lower(count, n) <= DISAGREEING:
        return None
    return Finding(
        "finite differences",
        f"along the gradient the loss changes by less than half or more than twice of what it promises at {count} of "
        f"{n} images ({whole_percent(count, n)}): the gradient is not that of the model, or the model jumps",
        next_step=WITHOUT_GRADIENT,
    )


def check_chance(correct: int, n: int, classes: int) -> Finding | None:
    """Check for an accuracy that guessing could reach.

    Example:
        >>> check_chance(12, 100, 10).check, check_chance(50, 100, 10) is None
        ('clean accuracy', True)
    """
    if wilson_lower(correct, n) > 1 / classes:
        return None
    reason = f"{correct} of {n} images are classified correctly, which guessing among {classes} classes may reach too"
    return Finding("clean accuracy", f"{reason}: look at the labels and at the scale the model expects of its images")


def check_scale(how: str, gained: int, lost: int, n: int, *, remedy: str = "") -> Finding | None:
    """Check for a model that does better on images of another scale than [0, 1], which it seems to expect.

    Args:
        how: what was done to the images.
        gained: number of images that are correct only after that.
        lost: number of images that are correct only before that.
        n: number of images.
        remedy: how that is put into the model.

    Example:
        >>> check_scale("normalised", 40, 2, 100).check, check_scale("normalised", 2, 1, 100) is None
        ('normalisation', True)
    """
    if sign_test(gained, lost) >= CHANCE or gained - lost <= BY_SCALE * n:
        return None
    reason = f"the model gets {gained - lost} of {n} images more right when they are {how}"
    # "If": a network overfitted to a single-step attack may do better on other images than those it was trained on.
    advice = "if it was trained on such images, normalise in its first layer, so that it takes images in [0, 1]"
    return Finding("normalisation", f"{reason}: {advice}{f' ({remedy})' if remedy else ''}")


def check_class_order(predicted: Int[Tensor, "n"], y: Int[Tensor, "n"], *, classes: int) -> Finding | None:
    """Check for labels that number the classes in another order than the model does, as by their accuracy they may.

    Args:
        predicted: predicted classes of images in random order.
        y: their labels.
        classes: number of classes.

    Example:
        >>> y = torch.randperm(120) % 12
        >>> check_class_order(y, y, classes=12) is None
        True
        >>> words = torch.tensor(sorted(range(12), key=str))  # 0, 1, 10, 11, 2, ...
        >>> check_class_order(y, words[y], classes=12).check
        'class order'
    """
    half = torch.arange(len(y)) % 2 == 0
    mapped = torch.empty_like(predicted)
    for tried in (half, ~half):  # on the half that the order was not chosen on
        mapped[tried] = match_classes(predicted[~tried], y[~tried], classes=classes)[predicted[tried]]
    now, then = mapped == y, predicted == y
    gained, lost, n = int((now & ~then).sum()), int((then & ~now).sum()), len(y)
    most = int(torch.bincount(y, minlength=classes).max()) / max(n, 1)  # what naming one class alone would get
    sure = sign_test(gained, lost) < CHANCE and gained - lost > BY_ORDER * n
    if not sure or wilson_lower(int(now.sum()), n) <= most:
        return None
    order = match_classes(predicted, y, classes=classes)
    moved = [f"{p} for {order[p]}" for p in range(classes) if order[p] != p and bool((predicted == p).any())]
    shown = ", ".join(moved[:4]) + (", ..." if len(moved) > 4 else "")
    return Finding(
        "class order",
        f"{int(then.sum())} of {n} images are classified correctly, and {int(now.sum())} were the classes in another "
        f"order (it predicts {shown}): {_name_cause(order, predicted)}",
    )


def match_classes(predicted: Int[Tensor, "n"], y: Int[Tensor, "n"], *, classes: int) -> Int[Tensor, "k"]:
    """Return the label that goes with each predicted class, no label twice: the most frequent pairs first.

    Example:
        >>> match_classes(torch.tensor([0, 0, 1, 2]), torch.tensor([1, 1, 0, 2]), classes=3)
        tensor([1, 0, 2])
    """
    counts = torch.bincount(predicted * classes + y, minlength=classes * classes).view(classes, classes)
    pairs = [(-int(counts[p, c]), p != c, p, c) for p, c in counts.nonzero().tolist()]
    order, free = [-1] * classes, set(range(classes))
    for _, _, p, c in sorted(pairs):
        if order[p] < 0 and c in free:
            order[p] = c
            free.remove(c)
    for p in range(classes):  # classes that are never predicted, and those whose labels are all taken
        if order[p] < 0:
            order[p] = p if p in free else min(free)
            free.remove(order[p])
    return torch.tensor(order)


def _name_cause(order: Tensor, predicted: Tensor) -> str:
    """Say what has most likely put the classes into another order."""
    words = torch.tensor(sorted(range(len(order)), key=str))
    seen = predicted.unique()
    if any(bool((order[seen] == known[seen]).double().mean() > 0.8) for known in (words, words.argsort())):
        first = ", ".join(map(str, words[:4].tolist()))
        return (
            f"that of the numbers 0 to {len(order) - 1} sorted as words ({first}, ...), as some readers sort class "
            "folders; number the labels as in training"
        )
    return "the labels seem to be numbered otherwise than in training; compare the names of the classes and their order"
