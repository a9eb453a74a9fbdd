"""Evaluate a model under named attacks, and check whether the result is to be believed."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor, nn

from uiat.attacks import PGD, Search
from uiat.evaluation.engine.aggregate import aggregate
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.plan import (
    Plan,
    Stage,
    budgets,
    check_inputs,
    count_steps,
    drop_gradient_attacks,
    make_plan,
)
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize, State
from uiat.evaluation.engine.stage import AttackTarget, OnProgress, attack_images, evaluate_clean, exact_inference
from uiat.evaluation.engine.state_file import StateFile, fingerprint
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.selfcheck import examine, verdict
from uiat.formatting import threat_record
from uiat.models.inspect import device_of
from uiat.speed.fast_copy import fastest_batch, make_fast_copy
from uiat.system.distributed import Rank, current_rank
from uiat.threat import Threat

logger = logging.getLogger("uiat")
# (attack, images or iterations done, of how many), called after every batch or round.
Progress = Callable[[str, int, int], None]
# (stage, accuracy in the worst case at most), called after every batch or round.
Bound = Callable[[str, float], None]
CHECKS = "self-checks"  # as progress names them


def evaluate(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    *,
    threat: Threat,
    attacks: Sequence[str] = ("clean", "pgd-20", "cw-20"),
    batch_size: int = 500,
    seed: int = 0,
    progress: Progress | None = None,
    bound: Bound | None = None,
    state: Path | None = None,
    resume: bool = False,
    save_minutes: float = 5.0,
    keep_examples: bool = False,
    transfer: nn.Module | None = None,
    selfchecks: bool = True,
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
        attacks: names, see `uiat.evaluation.attack`, such as "autoattack"; "clean" is always measured.
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
    plan = make_plan(attacks, threat, transfer)
    classes = check_inputs(model, x, y, batch_size=batch_size, transfer=transfer)
    plan, unable = drop_gradient_attacks(plan, model, x)
    part = current_rank()
    facts = {
        "threat": threat_record(threat, exact=True),
        "attacks": budgets(plan),
        "order": list(plan),
        "seed": seed,
    }
    belongs = fingerprint(model, x, y, transfer=transfer, examples=keep_examples, **facts)
    keeper = StateFile(state, belongs, save_minutes, share=part)
    index = part.index(len(x))
    with exact_inference(model):
        example = x[:4].to(device_of(model))
        room = AdaptiveBatchSize(fastest_batch(model, example, at_most=batch_size))
        subject = AttackTarget(model, x[index], y[index], index, classes, room, seed, make_fast_copy(model, example))
        judge = _Evaluation(subject, part, keeper, len(x), progress, bound)
        judge.run(plan, resume=resume, keep_examples=keep_examples)
    found = aggregate(judge.tally, part, y, threat=threat, seed=seed, plan=plan, classes=classes, unable=unable)
    if part.first and len(found.accuracy) > 2:  # in the words of the reference, as after each stage
        logger.info("robust accuracy: %.2f%%", 100 * found.accuracy["worst"])
    result = replace(found, batch_size=min(part.gather(room.size)), processes=part.size)
    if selfchecks and (transfer is not None or set(attacks) - {"clean"}):
        return replace(result, verdict=_verdict(model, x, y, threat, result, transfer, progress))
    return result


@dataclass
class _Evaluation:
    """An evaluation under way in this process."""

    subject: AttackTarget
    share: Rank
    keeper: StateFile
    n: int
    progress: Progress | None
    bound: Bound | None
    tally: Outcomes = field(init=False)
    inside: State | None = field(default=None, init=False)

    def run(self, plan: Plan, *, resume: bool, keep_examples: bool) -> None:
        """All of a plan. No process writes before all have read, and nothing is removed before all have written."""
        held = self.share.agree(lambda: self.keeper.open(resume=resume))
        self.share.agree(lambda: self.begin(held, keep_examples=keep_examples))
        self.keeper.clear()
        for name, parts in plan.items():
            self.measure(name, parts)

    def begin(self, held: tuple[Outcomes, State | None] | None, *, keep_examples: bool) -> None:
        """From a state, or from the start; a file that cannot be written is refused before the work."""
        if held is not None:
            self.tally, self.inside = held
        else:
            examples = self.subject.x.detach().to("cpu", copy=True) if keep_examples else None
            self.tally = Outcomes(self.subject.index, examples=examples)
        self.keeper.save(self.tally, self.inside)
        if (limit := self.tally.limit) is not None:
            self.subject.room.size = min(self.subject.room.size, limit)

    def measure(self, name: str, parts: Sequence[Stage]) -> None:
        """All stages of a named attack that are still to do, and what there is to say after each.

        What an image's verdict under a stage is, is known from another named attack with the same one.
        """
        for at, (stage, settings) in enumerate(parts):
            if stage not in self.tally.after.get(name, {}):
                self._run(name, stage, settings, told=self._told(name, parts, at))
                self.keeper.save(self.tally)
            self._announce(name, stage)

    def _run(self, name: str, stage: str, settings: PGD | Search | None, *, told: OnProgress) -> None:
        subject, tally = self.subject, self.tally
        subject.lap()
        if settings is None:
            found = subject.x
            right, tally.confidence = evaluate_clean(subject, told=told)
        else:
            among, (saved, self.inside) = tally.right.get(name, tally.right["clean"]), (self.inside, None)
            fresh, held = among & (tally.verdicts(stage) < 0), among & (tally.verdicts(stage) > 0)
            right, found = attack_images(
                subject,
                stage,
                settings,
                fresh,
                told=lambda done, total, right: told(done, total, right + int(held.sum())),
                saver=partial(self._save, name, stage),
                saved=saved,
            )
            tally.learn(stage, fresh, right)
            right = right | held
        self._count(name, stage)
        tally.note(name, stage, right, found)

    def _save(self, name: str, stage: str, snapshot: Callable[[], State]) -> None:
        if self.keeper.due():
            self._count(name, stage)
            self.keeper.save(self.tally, snapshot())

    def _count(self, name: str, stage: str) -> None:
        self.tally.spend(name, stage, self.subject.lap())
        if self.subject.room.halved:
            self.tally.limit = self.subject.room.size

    def _told(self, name: str, parts: Sequence[Stage], at: int) -> OnProgress:
        """Progress of a stage as progress of the named attack that it belongs to, and the bound."""
        sizes = [count_steps(settings, self.subject.classes) for _, settings in parts]
        images, standing = max(len(self.subject.x), 1), int(self.tally.standing.sum())

        def told(done: int, total: int, right: int) -> None:
            if self.share.rank == 0 and self.bound is not None:
                self.bound(parts[at][0], min(right, standing) / images)
            if self.share.rank == 0 and self.progress is not None:
                if len(parts) > 1:
                    share = done / total if total else 1.0
                    done, total = sum(sizes[:at]) + int(share * sizes[at]), sum(sizes)
                self.progress(name, done, total)

        return told

    def _announce(self, name: str, stage: str) -> None:
        """After a stage: what it left, of all images. Waits for the other processes."""
        spent = sum(cost["seconds"] for costs in self.tally.spent.values() for cost in costs.values())
        everyone = self.share.gather((self.tally.after[name][stage], spent))
        if self.share.rank != 0:
            return
        right, standing = (sum(counts[i] for counts, _ in everyone) / self.n for i in range(2))
        if name == "clean":
            logger.info("initial accuracy: %.2f%%", 100 * right)
        else:
            # In the words of the reference implementation, which people's scripts look for.
            seconds = max(seconds for _, seconds in everyone)
            logger.info("robust accuracy after %s: %.2f%% (total time %.1f s)", stage.upper(), 100 * right, seconds)
        logger.info("in the worst case so far, after %s: at most %.2f%%", stage, 100 * standing)
        if self.bound is not None:
            self.bound(stage, standing)


def _verdict(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    result: EvaluationResult,
    transfer: nn.Module | None,
    progress: Progress | None,
) -> str:
    """Of the self-checks; the first of several processes makes them for all."""
    part, said = current_rank(), ""
    if part.rank == 0:
        told = progress or (lambda name, done, total: None)
        told(CHECKS, 0, 1)
        said = verdict(examine(model, x, y, threat=threat, result=result, transfer=transfer, seed=result.seed))
        told(CHECKS, 1, 1)
    return part.gather(said)[0]
