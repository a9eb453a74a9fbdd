"""One stage of an evaluation: an attack on the images that are still robust, its costs, and how it is resumed."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uiat.attacks import PGD, External, Search
from uiat.checks import Count, checked
from uiat.evaluation.engine.attack_target import AttackTarget, confidence_of, exact_inference
from uiat.evaluation.engine.restarts import Restarts
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize, Saver, State, search
from uiat.evaluation.listener import OnProgress, ignore_progress
from uiat.models.inspect import Target
from uiat.models.misfit import explained
from uiat.shapes import Bool, Float, Int
from uiat.speed.fast_copy import fastest_batch, make_fast_copy


class Outcome(NamedTuple):
    """What came of an attack.

    Args:
        correct: mask of the images that are correct afterwards.
        x_adv: for each that is not any more the example that broke it.
        confidence: probability of the class predicted for the last example of each attacked image, whether it breaks
            the image or not; None of a search, which ends in an example for broken images alone.

    Example:
        >>> Outcome(torch.tensor([True]), torch.zeros(1, 1)).confidence is None
        True
    """

    correct: Bool[Tensor, "n"]
    x_adv: Float[Tensor, "n ..."]
    confidence: Float[Tensor, "n"] | None = None


def evaluate_clean(
    target: AttackTarget, *, on_progress: OnProgress = ignore_progress
) -> tuple[Bool[Tensor, "n"], Float[Tensor, "n"]]:
    """Classify the images as they are.

    Returns:
        A mask of the correct ones, and the probability that the model gives to each prediction.

    Example:
        >>> x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
        >>> model = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x)
        >>> evaluate_clean(AttackTarget(model, x, y, torch.arange(2), AdaptiveBatchSize(2)))[0].shape
        torch.Size([2])
    """
    n = len(target.x)
    correct, confidence = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.float64)

    def classify(rows: Tensor) -> None:
        logits, wrong = target.classify(target.x[rows], rows)
        correct[rows] = ~wrong
        confidence[rows] = confidence_of(logits)

    with exact_inference(target.module):
        for done in target.batch_size.batches(torch.arange(n), classify):
            on_progress(done, n, n - done + int(correct.sum()))
    return correct, confidence


def attack_images(
    target: AttackTarget,
    stage: str,
    settings: PGD | Search | External,
    mask: Bool[Tensor, "n"],
    *,
    on_progress: OnProgress = ignore_progress,
    saver: Saver | None = None,
    saved: State | None = None,
) -> Outcome:
    """Attack some of the images.

    Args:
        target: the model, its images, and what guides the attack.
        stage: name of the attack, which decides its random numbers.
        settings: the attack.
        mask: the images to attack, all of them classified correctly.
        on_progress: called after every batch or round.
        saver: called wherever the attack could be resumed from, see `Saver`.
        saved: a state that a saver was given, to resume from.

    Returns:
        A mask of the images of `mask` that are still correct, and for the others the example that broke each. Where the
        target's rule asks more than once, these are the images that not every call misclassifies, and each has an
        example, the best that was found.

    Example:
        >>> from uiat import Linf
        >>> x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
        >>> model = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x)
        >>> target = AttackTarget(model, x, y, torch.arange(2), AdaptiveBatchSize(2))
        >>> attack_images(target, "pgd", PGD(threat=Linf(0.1)), torch.tensor([True, False]))[0].shape
        torch.Size([2])
    """
    if target.classes < 2 or not bool(mask.any()):  # nothing else to predict, or nothing to attack
        on_progress(0, 0, int(mask.sum()))
        return Outcome(mask.clone(), target.x)
    if isinstance(settings, PGD | External):
        run = Restarts(target, stage, settings, mask)
        if saved is not None:
            run.restore(saved)
        return Outcome(*run.finish(on_progress=on_progress, saver=saver), run.confidence)
    return _search_images(target, settings, mask, on_progress=on_progress, saver=saver, saved=saved)


def _search_images(
    target: AttackTarget,
    settings: Search,
    mask: Tensor,
    *,
    on_progress: OnProgress,
    saver: Saver | None,
    saved: State | None,
) -> Outcome:
    rows, classes = mask.nonzero().flatten(), target.classes
    with exact_inference(target.module):
        broken, examples = search(
            settings,
            target.model,
            target.x[rows],
            target.y[rows],
            target.index[rows],
            num_classes=classes,
            device=target.device,
            seed=target.seed,
            batch_size=target.batch_size,
            on_progress=on_progress,
            fast=target.guided,
            calls=target.rule.calls,
            saver=saver,
            saved=saved,
        )
    correct, x_adv = mask.clone(), target.x.clone()
    correct[rows[broken]] = False
    kept = torch.ones_like(broken) if target.rule.repeats else broken
    x_adv[rows[kept]] = examples[kept]
    total = settings.iterations * settings.attempts(classes)
    on_progress(total, total, int(correct.sum()))  # also where it ended early, with nothing left
    return Outcome(correct, x_adv)


@checked
@explained
def correct_under(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    settings: PGD | Search | External | None,
    *,
    mask: Bool[Tensor, "n"] | None = None,
    batch_size: Count = 500,
    seed: int = 0,
    index: Int[Tensor, "n"] | None = None,
    classes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Bool[Tensor, "n"]:
    """Return a mask, on the CPU, of the images that are still classified correctly under one attack.

    Each image has random numbers of its own, by its position in `index`, so that the answer does not depend on what it
    shares a batch or a process with.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1].
        y: labels, int64.
        settings: the attack; None for the images as they are.
        mask: the images that are asked about; the others count as broken. By default all.
        batch_size: images at a time, at most.
        seed: seed of the random numbers.
        index: positions of the images in their data set; 0, 1, ... by default.
        classes: number of classes, where it is known already.
        progress: called after every batch or round with (images or iterations done, of how many).

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> correct_under(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), None).shape
        torch.Size([3])
    """
    target = Target(model, x, classes=classes)
    example, index = x[:4].to(target.device), torch.arange(len(x)) if index is None else index
    size = AdaptiveBatchSize(fastest_batch(model, example, at_most=batch_size))
    guide = None if settings is None else make_fast_copy(model, example)
    under_attack = AttackTarget(target, x, y, index, size, seed, guide)
    mask = torch.ones(len(x), dtype=torch.bool) if mask is None else mask

    def on_progress(done: int, total: int, correct: int) -> None:
        if progress is not None:
            progress(done, total)

    if settings is None:
        return mask & evaluate_clean(under_attack, on_progress=on_progress)[0]
    return attack_images(under_attack, "", settings, mask, on_progress=on_progress)[0]
