"""Evaluate a model under named attacks, and check whether the result is to be believed."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from uiat.checks import Count, checked
from uiat.evaluation.engine.aggregate import aggregate
from uiat.evaluation.engine.attack_target import AttackTarget, exact_inference
from uiat.evaluation.engine.identity import identity_of
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.plan import (
    Plan,
    Stage,
    check_inputs,
    count_steps,
    drop_gradient_attacks,
    make_plan,
)
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize, State
from uiat.evaluation.engine.stage import attack_images, evaluate_clean
from uiat.evaluation.engine.state_file import StateFile
from uiat.evaluation.listener import Bound, Callbacks, EvaluationListener, OnProgress, Progress, Silent
from uiat.evaluation.own_attacks import OwnAttack
from uiat.evaluation.registry import Settings
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.selfcheck import verdict
from uiat.evaluation.selfcheck.examine import examine_target
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
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
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
) -> EvaluationResult:
    """Compute accuracy under each attack by name and in the worst case over them, and check if it is to be believed.

    An image misclassified as it is counts as broken under every attack and is not attacked. Otherwise an image counts
    as broken by an attack when the model, in eval mode, misclassifies the attack's example (in the ball, in [0, 1]).
    Of a model without a gradient, the accuracy under attacks that need one is not in the result: a warning names them,
    and the verdict says why.

    Where `torch.distributed` is initialised, as under `torchrun`, each process takes every world_size-th image, and
    all return the same result, which is that of one process.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1], on the model's device or moved there batch by batch.
        y: labels, int64.
        threat: the threat model.
        attacks: names, see `uiat.evaluation.attack`, such as "autoattack"; "clean" is always measured. Also attacks of
            one's own: `uiat.PGD(...)` or another search with settings, a function of (model, x, y) that returns images,
            a pair (name, attack), or a name with code to import: "mine.py:noise", "torchattacks:PGD(steps=20)". What a
            function returns is projected onto the ball and [0, 1] where it left them, and counted.
        batch_size: images at a time, at most: on a CPU fewer where that is faster, and half as many where memory runs
            out; the result says how many.
        seed: seed of the random numbers; each image has its own, so that neither the batch size, nor the number of
            processes, nor the other attacks asked for play a part in its verdict.
        progress: called after every batch or round with (attack, images or iterations done, of how many).
        bound: likewise with (stage, accuracy in the worst case at most).
        state: a file that is written after each attack and every few minutes inside one (with several processes, one
            of each). It stays when the evaluation ends: delete it once the result is kept.
        resume: resume from that file, to the result that the evaluation would have had, in any number of processes.
        save_minutes: time between two writes inside an attack.
        keep_examples: keep the adversarial examples, in the result and in the file.
        transfer: a second model, on the same device; adds the attack "transfer", whose examples are made on it.
        selfchecks: look for what makes a robust accuracy look higher than it is (`uiat.evaluation.examine`) and put the
            verdict into the result; costs less than a thousand forward passes on each of 128 images. Without an attack
            nothing is claimed, and nothing is checked.
        class_names: names of the classes; with them, one without an image is a warning in the result.

    Raises:
        UserError: an unknown attack, images or labels that do not fit, a model that does not return logits, a state
            file that is in the way, damaged, or of another evaluation, a second model with other classes.

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
    check_ordinary(model)
    x, y = ordinary(x), ordinary(y)
    plan, target = make_plan(attacks, threat, transfer), Target(model, x)
    check_inputs(target, x, y, batch_size=batch_size, transfer=transfer)
    plan, left = (plan, []) if target.differentiable else drop_gradient_attacks(plan)
    rank = current_rank()
    listener = Callbacks(progress, bound) if rank.first else Silent()
    identity = identity_of(model, x, y, threat, plan, seed, keep_examples, transfer) if state is not None else {}
    state_file = StateFile(state, identity, save_minutes, rank=rank)
    with exact_inference(model):
        under_attack = _prepare(target, x, y, rank, batch_size=batch_size, seed=seed)
        run = _Evaluation(under_attack, rank, state_file, len(x), listener)
        run.run(plan, resume=resume, keep_examples=keep_examples)
    known: dict[str, Any] = {"threat": threat, "unable": left, "class_names": class_names, "classes": target.classes}
    result = replace(aggregate(run.outcomes, rank, y, seed=seed, plan=plan, **known), sums=_sum_inputs(model, x, y))
    result = replace(result, batch_size=min(rank.gather(under_attack.batch_size.size)), processes=rank.size)
    _log_worst(result, rank)
    if not selfchecks or (transfer is None and all(given == "clean" for given in attacks)):
        return result
    return replace(result, verdict=_selfcheck(target, x, y, threat, result, transfer, rank, listener))


def _log_worst(result: EvaluationResult, rank: Rank) -> None:
    """Log the accuracy in the worst case, in the words of the reference implementation, as after each stage."""
    if rank.first and len(result.accuracy) > 2:
        logger.info("robust accuracy: %.2f%%", 100 * result.accuracy["worst"])


def _sum_inputs(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, str]:
    """Return the sums of what a result is of, by which it is known to be of something else later."""
    tensors = {"weights": model.state_dict(), "images": {"": x}, "labels": {"": y}}
    return {name: sum_of_tensors(each) for name, each in tensors.items()}


def _prepare(target: Target, x: Tensor, y: Tensor, rank: Rank, *, batch_size: int, seed: int) -> AttackTarget:
    """Choose this process's images, the batch size, and the fast copy of the model that guides attacks."""
    index, example = rank.index(len(x)), x[:4].to(target.device)
    size = AdaptiveBatchSize(fastest_batch(target.model, example, at_most=batch_size))
    return AttackTarget(target, x[index], y[index], index, size, seed, make_fast_copy(target.model, example))


@dataclass
class _Evaluation:
    """An evaluation under way in this process.

    Args:
        target: the model and the images of this process.
        rank: this process.
        state_file: where the outcomes are kept.
        n: number of images of all processes.
        listener: hears of progress.
    """

    target: AttackTarget
    rank: Rank
    state_file: StateFile
    n: int
    listener: EvaluationListener
    outcomes: Outcomes = field(init=False)
    inside: State | None = field(default=None, init=False)  # of the stage that was under way when it was killed

    def run(self, plan: Plan, *, resume: bool, keep_examples: bool) -> None:
        """Run a plan. No process writes before all have read, and nothing is removed before all have written."""
        saved = self.rank.agree(lambda: self.state_file.open(resume=resume))
        self.rank.agree(lambda: self._begin(saved, keep_examples=keep_examples))
        self.state_file.clear()
        for name, parts in plan.items():
            self._run_attack(name, parts)

    def _begin(self, saved: tuple[Outcomes, State | None] | None, *, keep_examples: bool) -> None:
        """Start from a state or from nothing; a file that cannot be written is refused before the work."""
        if saved is not None:
            self.outcomes, self.inside = saved
        else:
            examples = self.target.x.detach().to("cpu", copy=True) if keep_examples else None
            self.outcomes = Outcomes(self.target.index, examples=examples)
        self.state_file.save(self.outcomes, self.inside)
        if (limit := self.outcomes.memory_limit) is not None:
            self.target.batch_size.size = min(self.target.batch_size.size, limit)

    def _run_attack(self, name: str, parts: Sequence[Stage]) -> None:
        """Run the stages of a named attack that are still to do, and report the accuracy after each."""
        for at, (stage, settings) in enumerate(parts):
            if stage not in self.outcomes.counts_after.get(name, {}):
                self._run_stage(name, stage, settings, on_progress=self._stage_progress(name, parts, at))
                self.state_file.save(self.outcomes)
            self._announce(name, stage)

    def _run_stage(self, name: str, stage: str, settings: Settings, *, on_progress: OnProgress) -> None:
        target, outcomes = self.target, self.outcomes
        target.pop_costs()
        if settings is None:
            x_adv = target.x
            correct, outcomes.confidence = evaluate_clean(target, on_progress=on_progress)
        else:
            saved, self.inside = self.inside, None
            mask = outcomes.correct.get(name, outcomes.correct["clean"])
            # Another named attack may have run this very stage on some of the images: their verdicts are taken over.
            new, robust = mask & (outcomes.verdicts(stage) < 0), mask & (outcomes.verdicts(stage) > 0)
            already = int(robust.sum())
            correct, x_adv = attack_images(
                target,
                stage,
                settings,
                new,
                on_progress=lambda done, total, correct: on_progress(done, total, correct + already),
                saver=partial(self._save, name, stage),
                saved=saved,
            )
            outcomes.record_verdicts(stage, new, correct)
            correct = correct | robust
        self._add_cost(name, stage)
        outcomes.end_stage(name, stage, correct, x_adv)

    def _save(self, name: str, stage: str, snapshot: Callable[[], State]) -> None:
        if self.state_file.is_due():
            self._add_cost(name, stage)
            self.state_file.save(self.outcomes, snapshot())

    def _add_cost(self, name: str, stage: str) -> None:
        self.outcomes.add_cost(name, stage, self.target.pop_costs())
        if self.target.batch_size.halved:
            self.outcomes.memory_limit = self.target.batch_size.size

    def _stage_progress(self, name: str, parts: Sequence[Stage], at: int) -> OnProgress:
        """Return what turns the progress of a stage into that of its named attack, and reports the bound."""
        sizes = [count_steps(settings, self.target.classes) for _, settings in parts]
        images, robust = max(len(self.target.x), 1), int(self.outcomes.robust.sum())

        def on_progress(done: int, total: int, correct: int) -> None:
            self.listener.bound(parts[at][0], min(correct, robust) / images)
            if len(parts) > 1:
                fraction = done / total if total else 1.0
                done, total = sum(sizes[:at]) + int(fraction * sizes[at]), sum(sizes)
            self.listener.progress(name, done, total)

        return on_progress

    def _announce(self, name: str, stage: str) -> None:
        """Report the accuracy of all images after a stage; waits for the other processes."""
        seconds = sum(cost["seconds"] for costs in self.outcomes.costs.values() for cost in costs.values())
        everyone = self.rank.gather((self.outcomes.counts_after[name][stage], seconds))
        if not self.rank.first:
            return
        correct, robust = (sum(counts[i] for counts, _ in everyone) / self.n for i in range(2))
        if name == "clean":
            logger.info("initial accuracy: %.2f%%", 100 * correct)
        else:
            # In the words of the reference implementation, which people's scripts look for.
            slowest = max(seconds for _, seconds in everyone)
            logger.info("robust accuracy after %s: %.2f%% (total time %.1f s)", stage.upper(), 100 * correct, slowest)
        logger.info("in the worst case so far, after %s: at most %.2f%%", stage, 100 * robust)
        self.listener.bound(stage, robust)


def _selfcheck(
    target: Target,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    result: EvaluationResult,
    transfer: nn.Module | None,
    rank: Rank,
    listener: EvaluationListener,
) -> str:
    """Run the self-checks on rank 0, and share the verdict; one that fails costs the verdict, never the result."""
    text = ""
    if rank.first:
        listener.progress(CHECKS, 0, 1)
        try:
            findings = examine_target(target, x, y, threat=threat, result=result, transfer=transfer, seed=result.seed)
            text = verdict(findings)
        except Exception as error:  # whatever it is: the attacks have taken the time, and their result is whole
            text = f"not checked: the self-checks ended with {type(error).__name__}: {' '.join(str(error).split())}"
            logger.warning(text)
        listener.progress(CHECKS, 1, 1)
    return rank.gather(text)[0]
