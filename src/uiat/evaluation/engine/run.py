"""Run the stages of an evaluation on the images of this process, from its state file on, and report after each."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from uiat.attacks import PGD, External
from uiat.evaluation.engine.asked import WORST
from uiat.evaluation.engine.asking import conclude, run_asking
from uiat.evaluation.engine.attack_target import AttackTarget
from uiat.evaluation.engine.fits import bind, fit_stages
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.plan import Plan, Stage, count_steps, is_counted
from uiat.evaluation.engine.search_runner import State
from uiat.evaluation.engine.stage import attack_images, evaluate_clean
from uiat.evaluation.engine.state_file import StateFile
from uiat.evaluation.listener import EvaluationListener, OnProgress
from uiat.evaluation.registry import Settings
from uiat.inverse.universal_attack import FitImages
from uiat.system.distributed import Rank

logger = logging.getLogger("uiat")


@dataclass
class EvaluationRun:
    """An evaluation under way in this process.

    Args:
        target: the model and the images of this process.
        rank: this process.
        state_file: where the outcomes are kept.
        n: number of images of all processes.
        listener: hears of progress.
        fit: images to fit on, for attacks that are fitted before they are measured.
        fits: what was fitted before, by stage.
        announced: False to keep the accuracies after each stage to oneself, for a part of the images.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from uiat.evaluation.engine.plan import make_plan
        >>> from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
        >>> from uiat.evaluation.listener import Silent
        >>> from uiat.models.inspect import Target
        >>> from uiat.threat import Linf
        >>> x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
        >>> model = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x)
        >>> target = AttackTarget(model, x, y, torch.arange(2), AdaptiveBatchSize(2))
        >>> run = EvaluationRun(target, Rank(), StateFile(None, {}), 2, Silent())
        >>> run.run(make_plan(["fgsm"], Linf(0.1)), resume=False, keep_examples=False)
        >>> list(run.outcomes.correct)
        ['clean', 'fgsm']
    """

    target: AttackTarget
    rank: Rank
    state_file: StateFile
    n: int
    listener: EvaluationListener
    fit: FitImages | None = None
    fits: dict[str, Tensor] = field(default_factory=dict)
    announced: bool = True
    outcomes: Outcomes = field(init=False)
    inside: State | None = field(default=None, init=False)  # of the stage that was under way when it was killed

    def run(self, plan: Plan, *, resume: bool, keep_examples: bool) -> None:
        """Run a plan. No process writes before all have read, and nothing is removed before all have written."""
        saved = self.rank.agree(lambda: self.state_file.open(resume=resume))
        self.rank.agree(lambda: self._begin(saved, keep_examples=keep_examples))
        self.state_file.clear()
        if fit_stages(plan, self.target, self.outcomes, self.fit, self.rank, self.listener):
            self.state_file.save(self.outcomes, self.inside)
        for name, parts in plan.items():
            self._run_attack(name, parts)
        self._conclude(WORST)

    def _begin(self, saved: tuple[Outcomes, State | None] | None, *, keep_examples: bool) -> None:
        """Start from a state or from nothing; a file that cannot be written is refused before the work."""
        if saved is not None:
            self.outcomes, self.inside = saved
        else:
            examples = self.target.x.detach().to("cpu", copy=True) if keep_examples else None
            self.outcomes = Outcomes(self.target.index, examples=examples, fits=dict(self.fits))
        self.state_file.save(self.outcomes, self.inside)
        if (limit := self.outcomes.memory_limit) is not None:
            self.target.batch_size.size = min(self.target.batch_size.size, limit)

    def _run_attack(self, name: str, parts: Sequence[Stage]) -> None:
        """Run the stages of a named attack that are still to do, and report the accuracy after each."""
        for at, (stage, settings) in enumerate(parts):
            if stage not in self.outcomes.counts_after.get(name, {}):
                self._run_stage(name, stage, settings, on_progress=self._stage_progress(name, parts, at))
                self.state_file.save(self.outcomes)
            if self.announced:
                announce(self.outcomes, name, stage, n=self.n, rank=self.rank, listener=self.listener)
        self._conclude(name)

    def _run_stage(self, name: str, stage: str, settings: Settings, *, on_progress: OnProgress) -> None:
        target, outcomes = self.target, self.outcomes
        settings = bind(settings, outcomes.fits.get(stage))
        target.pop_costs()
        if target.rule.repeats:
            saved, self.inside = self.inside, None
            run = partial(run_asking, target, outcomes, self.rank, saver=partial(self._save, name, stage), saved=saved)
            correct, x_adv = run(name, stage, settings, on_progress=on_progress)
        elif settings is None:
            x_adv = target.x
            correct, outcomes.confidence = evaluate_clean(target, on_progress=on_progress)
        else:
            saved, self.inside = self.inside, None
            mask = outcomes.correct.get(name, outcomes.correct["clean"])
            # Another named attack may have run this very stage on some of the images: their verdicts are taken over.
            new, robust = mask & (outcomes.verdicts(stage) < 0), mask & (outcomes.verdicts(stage) > 0)
            already = int(robust.sum())
            found = attack_images(
                target,
                stage,
                settings,
                new,
                on_progress=lambda done, total, correct: on_progress(done, total, correct + already),
                saver=partial(self._save, name, stage),
                saved=saved,
            )
            outcomes.record_verdicts(stage, new, found.correct)
            if isinstance(settings, PGD | External):
                outcomes.record_confidence(name, new, found.confidence)
            correct, x_adv = found.correct | robust, found.x_adv
        self._add_cost(name, stage)
        outcomes.end_stage(name, stage, correct, x_adv, counted=is_counted(settings))

    def _conclude(self, name: str) -> None:
        if conclude(self.target, self.outcomes, self.rank, name):
            self.state_file.save(self.outcomes)

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


def announce(outcomes: Outcomes, name: str, stage: str, *, n: int, rank: Rank, listener: EvaluationListener) -> None:
    """Report the accuracy of all images after a stage; waits for the other processes.

    Args:
        outcomes: those of this process.
        name: the attack.
        stage: its stage, which has ended.
        n: number of images of all processes.
        rank: this process; the first one reports.
        listener: hears of the bound.
    """
    seconds = sum(cost["seconds"] for costs in outcomes.costs.values() for cost in costs.values())
    everyone = rank.gather((outcomes.counts_after[name][stage], seconds))
    if not rank.first:
        return
    correct, robust = (sum(counts[i] for counts, _ in everyone) / n for i in range(2))
    if name == "clean":
        logger.info("initial accuracy: %.2f%%", 100 * correct)
    else:
        # In the words of the reference implementation, which people's scripts look for.
        slowest = max(seconds for _, seconds in everyone)
        logger.info("robust accuracy after %s: %.2f%% (total time %.1f s)", stage.upper(), 100 * correct, slowest)
    logger.info("in the worst case so far, after %s: at most %.2f%%", stage, 100 * robust)
    listener.bound(stage, robust)
