"""Evaluate a model under named attacks, and check whether the result is to be believed."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat.checks import Count, checked
from uiat.data.stream import Labelled, Stream, open_stream
from uiat.errors import UserError
from uiat.evaluation.bracket import Bracket, Width, in_random_order
from uiat.evaluation.engine.aggregate import aggregate
from uiat.evaluation.engine.attack_target import AttackTarget, exact_inference
from uiat.evaluation.engine.calls import CallRule, Calls
from uiat.evaluation.engine.fits import check_fit_images, unfitted
from uiat.evaluation.engine.identity import identity_of
from uiat.evaluation.engine.plan import Plan, check_inputs, drop_gradient_attacks, make_plan
from uiat.evaluation.engine.run import EvaluationRun
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
from uiat.evaluation.engine.state_file import StateFile
from uiat.evaluation.listener import Bound, Callbacks, EvaluationListener, Progress, Silent
from uiat.evaluation.own_attacks import OwnAttack
from uiat.evaluation.record import FITTED
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.selfcheck import verdict
from uiat.evaluation.selfcheck.examine import examine_target
from uiat.evaluation.streaming import Evaluated, StreamEvaluation
from uiat.formatting import UNCHECKED
from uiat.inverse.universal_attack import FitImages
from uiat.models.inspect import Target
from uiat.shapes import Float, Int
from uiat.speed.fast_copy import fastest_batch, make_fast_copy
from uiat.system.distributed import Rank, current_rank
from uiat.system.manifest import sum_of_tensors
from uiat.system.surroundings import check_ordinary, neutral_surroundings, ordinary, restored_random_state
from uiat.threat import Threat

logger = logging.getLogger("uiat")
CHECKS = "self-checks"  # as progress names them


@checked
@neutral_surroundings()
@restored_random_state()
def evaluate(
    model: nn.Module,
    x: Float[Tensor, "n c h w"] | Labelled | Stream,
    y: Int[Tensor, "n"] | None = None,
    *,
    threat: Threat,
    attacks: Sequence[str | OwnAttack | Any] = ("clean", "pgd-20", "cw-20"),
    batch_size: Count = 500,
    seed: int = 0,
    progress: Progress | None = None,
    bound: Bound | None = None,
    state: Path | None = None,
    resume: bool = False,
    save_minutes: float = 5.0,
    keep_examples: bool = False,
    transfer: nn.Module | None = None,
    selfchecks: bool = True,
    class_names: Sequence[str] | None = None,
    calls: Calls = 1,
    wrong_calls: Calls | None = None,
    until: Width | None = None,
    bracket: Callable[[Bracket], None] | None = None,
    fit: tuple[Float[Tensor, "m ..."], Int[Tensor, "m"]] | None = None,
) -> EvaluationResult:
    """Compute accuracy under each attack by name and in the worst case over them, and check if it is to be believed.

    An image misclassified as it is counts as broken under every attack and is not attacked. Otherwise an image counts
    as broken by an attack when the model, in eval mode, misclassifies the attack's example (in the ball, in [0, 1]).
    Of a model that answers at random, every stage ends in fresh calls on the examples that it has found (`calls`), and
    an image counts as broken when enough of these misclassify its example (`wrong_calls`); the result's `calls` has
    what that proves, and the accuracy as the mean over calls on the hardest example of each image.

    Of a model without a gradient, the accuracy under attacks that need one is not in the result: a warning names them,
    and the verdict says why.

    Where `torch.distributed` is initialised, as under `torchrun`, each process takes every world_size-th image, and
    all return the same result, which is that of one process.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1], on the model's device or moved there batch by batch. Or, without y, any iterable of
            (images, labels), such as a DataLoader, a dataset, a `Folder` or a generator: it is gone through once, in
            chunks of `uiat.data.stream.CHUNK_BYTES`, and of each image that has passed some 100 bytes are kept.
        y: labels, int64.
        threat: the threat model.
        attacks: names, see `uiat.evaluation.attack`, such as "autoattack"; "clean" is always measured. Also attacks of
            one's own: `uiat.PGD(...)` or another search with settings, a function of (model, x, y) that returns images,
            a pair (name, attack), or a name with code to import: "mine.py:noise", "torchattacks:PGD(steps=20)". What a
            function returns is projected onto the ball and [0, 1] where it left them, and counted.
        batch_size: images at a time, at most: on a CPU fewer where that is faster, and half as many where memory runs
            out; the result says how many.
        seed: seed of the random numbers; each image has its own, so that neither the batch size, nor the number of
            processes, nor the other attacks asked for play a part in its verdict. A function of one's own that draws
            at random is seeded once a batch, so that there the batch size and the number of processes do.
        progress: called after every batch or round with (attack, images or iterations done, of how many).
        bound: likewise with (stage, accuracy in the worst case at most).
        state: a file that is written after each attack and every few minutes inside one (with several processes, one
            of each), of an iterable after each chunk. It stays when the evaluation ends: delete it once the result is
            kept.
        resume: resume from that file, to the result that the evaluation would have had, in any number of processes.
        save_minutes: time between two writes inside an attack.
        keep_examples: keep the adversarial examples, in the result and in the file; not of an iterable.
        transfer: a second model, on the same device; adds the attack "transfer", whose examples are made on it.
        selfchecks: look for what makes a robust accuracy look higher than it is (`uiat.evaluation.examine`) and put the
            verdict into the result; costs less than a thousand forward passes on each of 128 images. Without an attack
            nothing is claimed, and nothing is checked.
        class_names: names of the classes; with them, one without an image is a warning in the result.
        calls: number of fresh calls on each example, for a model that answers at random; give such a model attacks that
            average, see the names that end in -eot-D.
        wrong_calls: number of these calls that have to be wrong to break an image; by default more than half.
        until: take the images in random order, in parts of at least 50 that go through all attacks, and stop once the
            95 % interval of the accuracy in the worst case on all of them is no wider than this, such as 0.05. The
            result is of the images that were done; its `until` says what that says of all.
        bracket: called after each part, of an iterable of known length after each chunk, with a `Bracket`.
        fit: images and labels apart from those measured, such as training images, for attacks that are fitted before
            they are measured: the universal ones, "uap-K" and "uap-class-K".

    Raises:
        UserError: fewer calls than have to be wrong, an unknown attack, images or labels that do not fit, a model that
            does not return logits, a state file that is in the way, damaged, or of another evaluation, a second model
            with other classes; an iterable that ends early, or whose images change their shape or type.

    Example:
        >>> import torch
        >>> from uiat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> result = evaluate(model, torch.rand(8, 1, 2, 2), torch.arange(8) % 2, threat=Linf(0.1), attacks=["fgsm"])
        >>> result.accuracy["worst"] == result.accuracy["fgsm"], len(result.intervals["worst"])
        (True, 2)
        >>> "8 images" in result.verdict
        True
    """
    rule = CallRule(calls=calls, wrong=wrong_calls)
    check_ordinary(model)
    plan, rank = make_plan(attacks, threat, transfer), current_rank()
    listener = Callbacks(progress, bound, bracket) if rank.first else Silent()
    images = None if fit is None or not unfitted(plan) else FitImages(ordinary(fit[0]), ordinary(fit[1]))
    settings: dict[str, Any] = {"model": model, "plan": plan, "threat": threat, "transfer": transfer, "rank": rank}
    settings |= {"seed": seed, "batch_size": batch_size, "state": state, "resume": resume, "listener": listener}
    how: dict[str, Any] = {"save_minutes": save_minutes, "keep_examples": keep_examples, "rule": rule, "until": until}
    done, known = _run(x, y, settings | {"fit": images}, **how)
    names = class_names or known or None
    result = _sum_up(done, rank, threat=threat, seed=seed, class_names=names, rule=rule, until=until, fit=images)
    if not selfchecks or (transfer is None and all(given == "clean" for given in attacks)):
        return result
    return replace(result, verdict=_selfcheck(done, threat, result, transfer, rank, listener))


def _run(
    x: Tensor | Labelled | Stream,
    y: Tensor | None,
    settings: dict[str, Any],
    *,
    save_minutes: float,
    keep_examples: bool,
    rule: CallRule,
    until: float | None,
) -> tuple[Evaluated, Sequence[str]]:
    """Run all attacks on all images at once or part by part; also returns the names of the classes a stream knows."""
    if until is None and y is not None and isinstance(x, Tensor):
        how: dict[str, Any] = {"save_minutes": save_minutes, "keep_examples": keep_examples, "rule": rule}
        return _evaluate_whole(ordinary(x), ordinary(y), **settings, **how), ()
    shuffled = None if until is None else settings["seed"]
    stream = _open(x, y, keep_examples=keep_examples, rule=rule, shuffled=shuffled)
    return StreamEvaluation(**settings, until=until).run(stream), stream.classes


def _open(
    x: Tensor | Labelled | Stream, y: Tensor | None, *, keep_examples: bool, rule: CallRule, shuffled: int | None
) -> Stream:
    """Open images that are no tensor, or tensors in random order; a tensor without labels is refused.

    Args:
        x: images.
        y: labels.
        keep_examples: whether the adversarial examples are to be kept, which is refused.
        rule: how many wrong calls break an image; several are refused.
        shuffled: seed of the random order; None for images as they come.
    """
    if shuffled is not None:
        if not isinstance(x, Tensor) or y is None:
            raise UserError("until takes images in random order: give images and labels as tensors")
        if keep_examples or rule.repeats:
            raise UserError("until goes through the images part by part: leave out keep_examples and calls")
        return in_random_order(ordinary(x), ordinary(y), seed=shuffled)[0]
    if isinstance(x, Tensor):
        raise UserError("images x need their labels y; without y, x is an iterable of (images, labels)")
    if y is not None:
        raise UserError(f"labels y go with a tensor of images, and x is a {type(x).__name__}: it yields labels itself")
    if keep_examples:
        raise UserError("keep_examples keeps every image in memory: give images and labels as tensors for that")
    if rule.repeats:
        raise UserError("calls keeps the hardest example of every image: give images and labels as tensors for that")
    return open_stream(x)


def _evaluate_whole(
    x: Tensor,
    y: Tensor,
    *,
    model: nn.Module,
    plan: Plan,
    threat: Threat,
    batch_size: int,
    seed: int,
    state: Path | None,
    resume: bool,
    save_minutes: float,
    keep_examples: bool,
    transfer: nn.Module | None,
    rank: Rank,
    listener: EvaluationListener,
    rule: CallRule,
    fit: FitImages | None,
) -> Evaluated:
    """Run all attacks on images in memory."""
    target = Target(model, x)
    check_inputs(target, x, y, batch_size=batch_size, transfer=transfer, plan=plan)
    plan, unable = (plan, []) if target.differentiable else drop_gradient_attacks(plan)
    check_fit_images(plan, target, x, fit)
    facts = (model, x, y, threat, plan, seed, keep_examples, transfer, rule, fit)
    identity = identity_of(*facts) if state is not None else {}
    state_file = StateFile(state, identity, save_minutes, rank=rank)
    with exact_inference(model):
        under_attack = _prepare(target, x, y, rank, batch_size=batch_size, seed=seed, rule=rule)
        run = EvaluationRun(under_attack, rank, state_file, len(x), listener, fit)
        run.run(plan, resume=resume, keep_examples=keep_examples)
    size, places = under_attack.batch_size.size, torch.arange(len(x))
    return Evaluated(target, plan, unable, run.outcomes, y, (x, y), places, _sum_inputs(model, x, y), size)


def _sum_up(
    done: Evaluated,
    rank: Rank,
    *,
    threat: Threat,
    seed: int,
    class_names: Sequence[str] | None,
    rule: CallRule,
    until: float | None,
    fit: FitImages | None,
) -> EvaluationResult:
    """Reduce what all processes have found to the result, and log the worst case in the reference's words."""
    result = aggregate(
        done.outcomes,
        rank,
        done.y,
        threat=threat,
        seed=seed,
        plan=done.plan,
        classes=done.target.classes,
        unable=done.unable,
        class_names=class_names,
        rule=rule,
    )
    if until is not None and (found := done.bracket) is not None:
        facts = {"width": until, "stopped": found.done < found.n, "seed": seed, **found.to_json()}
        result = replace(result, until=facts)
    sums = done.sums | ({} if fit is None else {FITTED: sum_of_tensors({"": fit.x})})
    result = replace(result, sums=sums, batch_size=min(rank.gather(done.batch_size)), processes=rank.size)
    if rank.first and len(result.accuracy) > 2:
        logger.info("robust accuracy: %.2f%%", 100 * result.accuracy["worst"])
    return result


def _sum_inputs(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, str]:
    """Return the sums of what a result is of, by which it is known to be of something else later."""
    tensors = {"weights": model.state_dict(), "images": {"": x}, "labels": {"": y}}
    return {name: sum_of_tensors(each) for name, each in tensors.items()}


def _prepare(
    target: Target, x: Tensor, y: Tensor, rank: Rank, *, batch_size: int, seed: int, rule: CallRule
) -> AttackTarget:
    """Choose this process's images, the batch size, and the fast copy of the model that guides attacks."""
    index, example = rank.index(len(x)), x[:4].to(target.device)
    size = AdaptiveBatchSize(fastest_batch(target.model, example, at_most=batch_size))
    return AttackTarget(target, x[index], y[index], index, size, seed, make_fast_copy(target.model, example), rule)


def _selfcheck(
    done: Evaluated,
    threat: Threat,
    result: EvaluationResult,
    transfer: nn.Module | None,
    rank: Rank,
    listener: EvaluationListener,
) -> str:
    """Run the self-checks on rank 0, and share the verdict; one that fails costs the verdict, never the result."""
    text, (x, y) = "", done.sample
    if rank.first:
        listener.progress(CHECKS, 0, 1)
        try:
            options: dict[str, Any] = {"transfer": transfer, "seed": result.seed, "places": done.places}
            findings = examine_target(done.target, x, y, threat=threat, result=result, **options)
            text = verdict(findings)
        except Exception as error:  # whatever it is: the attacks have taken the time, and their result is whole
            text = f"{UNCHECKED}: the self-checks ended with {type(error).__name__}: {' '.join(str(error).split())}"
            logger.warning(text)
        listener.progress(CHECKS, 1, 1)
    return rank.gather(text)[0]
