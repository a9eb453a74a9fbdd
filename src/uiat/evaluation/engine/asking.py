"""Stages of an evaluation on a model that answers at random: examples are tried in fresh calls, again and again."""

import zlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from uiat.evaluation.engine.asked import Asked
from uiat.evaluation.engine.attack_target import AttackTarget
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.plan import is_counted
from uiat.evaluation.engine.search_runner import Saver, State
from uiat.evaluation.engine.stage import attack_images, evaluate_clean
from uiat.evaluation.listener import OnProgress, ignore_progress
from uiat.evaluation.registry import Settings
from uiat.shapes import Bool
from uiat.system.distributed import Rank
from uiat.system.surroundings import seeded


def run_asking(
    target: AttackTarget,
    outcomes: Outcomes,
    rank: Rank,
    name: str,
    stage: str,
    settings: Settings,
    *,
    on_progress: OnProgress = ignore_progress,
    saver: Saver | None = None,
    saved: State | None = None,
) -> tuple[Bool[Tensor, "n"], Tensor]:
    """Run a stage, and try the examples that it ends with in fresh calls, by the target's rule.

    An image is attacked until every call is wrong: what breaks it by the rule may still be made worse.

    Args:
        target: the model and the images of this process, with the rule.
        outcomes: what is known of the images; what the model was asked is added.
        rank: this process.
        name: the named attack.
        stage: its stage.
        settings: the attack; None for the images as they are, which come first.
        on_progress: called after every batch or round.
        saver: called wherever the stage could be resumed from.
        saved: a state to resume from.

    Returns:
        A mask of the images that the named attack has not broken, and the examples.

    Example:
        >>> from torch import nn
        >>> from uiat.evaluation.engine.calls import CallRule
        >>> from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
        >>> from uiat.models.inspect import Target
        >>> x, index = torch.rand(2, 1, 2, 2), torch.arange(2)
        >>> model, size = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x), AdaptiveBatchSize(2)
        >>> target, outcomes = AttackTarget(model, x, index, index, size, rule=CallRule(calls=3)), Outcomes(index)
        >>> correct, _ = run_asking(target, outcomes, Rank(), "clean", "clean", None)
        >>> (outcomes.asked.most_wrong["clean"] == 3 * ~correct).all().item()
        True
    """
    images, robust = len(target.x), int(outcomes.robust.sum())
    correct, x_adv = torch.ones(images, dtype=torch.bool), target.x
    tried = correct
    if settings is None:
        outcomes.correct_in_call, outcomes.confidence = evaluate_clean(target, on_progress=on_progress)
        outcomes.asked = asked = Asked()
    else:
        assert outcomes.asked is not None
        asked, correct = outcomes.asked, outcomes.correct.get(name, outcomes.correct["clean"])
        tried = asked.of(name)[1] < target.rule.calls

        def progress(done: int, total: int, left: int) -> None:  # those left are not those that the rule leaves
            on_progress(done, total, robust)

        with _seeded(target, rank, name, stage):
            x_adv = attack_images(target, stage, settings, tried, on_progress=progress, saver=saver, saved=saved).x_adv
    rows, count = tried.nonzero().flatten(), torch.full((images,), -1)
    with _seeded(target, rank, name, stage, "fresh"):
        count[rows] = target.ask(x_adv[rows.to(x_adv.device)], rows).sum(dim=0)
    asked.add(name, x_adv.detach().cpu(), count, counted=is_counted(settings))
    return correct & (count < target.rule.least), x_adv


def conclude(target: AttackTarget, outcomes: Outcomes, rank: Rank, name: str) -> bool:
    """Ask the model once more about the hardest examples of an attack, which were chosen by other calls.

    Returns:
        False where that was done before, or is not asked for.

    Example:
        >>> from torch import nn
        >>> from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
        >>> from uiat.models.inspect import Target
        >>> x, index = torch.rand(2, 1, 2, 2), torch.arange(2)
        >>> model = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x)
        >>> conclude(AttackTarget(model, x, index, index, AdaptiveBatchSize(2)), Outcomes(index), Rank(), "fgsm")
        False
    """
    asked = outcomes.asked
    if not target.rule.repeats or asked is None or name in asked.correct_calls:
        return False
    with _seeded(target, rank, name, "final"):
        asked.conclude(name, target.ask(asked.of(name)[0], torch.arange(len(target.x))))
    return True


def _seeded(target: AttackTarget, rank: Rank, *words: str) -> AbstractContextManager[None]:
    """Seed the random numbers that the model itself draws, so that the same command gives the same result."""
    return seeded(zlib.crc32(" ".join((*words, str(target.seed), str(rank))).encode()))
