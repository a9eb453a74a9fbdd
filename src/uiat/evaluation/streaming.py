"""Evaluate on images that pass by once: chunk by chunk, with a few numbers kept of each image."""

import hashlib
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from uiat.attacks.random_numbers import keys
from uiat.checks import check_labels
from uiat.data.stream import Piece, Stream
from uiat.errors import UserError
from uiat.evaluation.bracket import Bracket
from uiat.evaluation.engine.attack_target import AttackTarget, Guide, exact_inference
from uiat.evaluation.engine.calls import ONE_CALL
from uiat.evaluation.engine.fits import check_fit_images
from uiat.evaluation.engine.identity import identity_of
from uiat.evaluation.engine.outcomes import Outcomes, append_outcomes
from uiat.evaluation.engine.plan import Plan, check_inputs, drop_gradient_attacks
from uiat.evaluation.engine.run import EvaluationRun, announce
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
from uiat.evaluation.engine.state_file import StateFile
from uiat.evaluation.listener import EvaluationListener
from uiat.evaluation.selfcheck.examine import IMAGES, OF_A_CLASS
from uiat.inverse.universal_attack import FitImages
from uiat.models.inspect import Target
from uiat.speed.fast_copy import fastest_batch, make_fast_copy
from uiat.system.distributed import Rank
from uiat.system.manifest import sum_of_tensors
from uiat.system.surroundings import ordinary
from uiat.threat import Threat

logger = logging.getLogger("uiat")
MOST_CHECKED = 512  # images kept for the self-checks, at most; they hold more where there are many classes


@dataclass
class Evaluated:
    """What has come of the images of an evaluation, before it is summed up.

    Args:
        target: the model.
        plan: the attacks that were run.
        unable: names of those that need a gradient, where the model has none.
        outcomes: of this process's images.
        y: labels of all images.
        sample: images and labels for the self-checks.
        places: positions of these among all images.
        sums: the sums of weights, images and labels.
        batch_size: images at a time.
        bracket: what is known of all images, where there may be more.
    """

    target: Target
    plan: Plan
    unable: list[str]
    outcomes: Outcomes
    y: Tensor
    sample: Piece
    places: Tensor
    sums: dict[str, str]
    batch_size: int
    bracket: Bracket | None = None


@dataclass
class Passed:
    """What is kept of the images of a stream that have passed.

    Args:
        seed: seed of the choice of images for the self-checks.
        total: number of images of the stream, where it is known beforehand.
        kept: number of images kept for the self-checks: a random choice of those that have passed.

    Example:
        >>> passed = Passed(seed=0, total=None, kept=2)
        >>> for _ in range(3):
        ...     passed.add(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
        >>> passed.count, passed.sample[0].shape
        (6, torch.Size([2, 1, 2, 2]))
    """

    seed: int
    total: int | None
    kept: int

    def __post_init__(self) -> None:
        self.count, self.check = 0, 0
        self._labels, self._pixels, self._kind = list[Tensor](), hashlib.sha256(), ""
        self._sample: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # keys, positions, images, labels

    @property
    def labels(self) -> Tensor:
        """The labels of all images."""
        return torch.cat(self._labels)

    @property
    def sample(self) -> Piece:
        """The images and labels that are kept, in their order."""
        assert self._sample is not None
        _, position, x, y = self._sample
        order = position.argsort()  # of the places that are taken
        return x[order], y[order]

    @property
    def places(self) -> Tensor:
        """The positions of the `sample` among all images that have passed."""
        assert self._sample is not None
        return self._sample[1].sort().values

    @property
    def sums(self) -> dict[str, str]:
        """The sums of images and labels: those of `sum_of_tensors`, of images where their number was known before."""
        pixels = self._pixels
        if self.total is None:
            pixels = pixels.copy()
            pixels.update(f"{self._kind} ({self.count})".encode())
        return {"images": pixels.hexdigest(), "labels": sum_of_tensors({"": self.labels})}

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take note of the next images."""
        if not self.count:
            self._kind = f" {x.dtype} {(self.total, *x.shape[1:])}"
            if self.total is not None:
                self._pixels.update(self._kind.encode())
        content = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        self._pixels.update(content)
        self.check = zlib.crc32(y.cpu().contiguous().numpy().data, zlib.crc32(content, self.check))
        self._labels.append(y.cpu())
        position = torch.arange(self.count, self.count + len(y))
        self.count += len(y)
        self._choose(keys(self.seed, position), position, x, y)

    def _choose(self, key: Tensor, position: Tensor, x: Tensor, y: Tensor) -> None:
        """Keep the images with the smallest keys, which are random; later ones take the places of others."""
        if self._sample is None:
            self._sample = (
                torch.empty(0, dtype=key.dtype),
                torch.empty(0, dtype=position.dtype),
                torch.empty((self.kept, *x.shape[1:]), dtype=x.dtype),
                torch.empty(self.kept, dtype=y.dtype),
            )
        old, where, pixels, labels = self._sample
        best = torch.cat([old, key]).argsort()[: self.kept]
        stay, come = best[best < len(old)], best[best >= len(old)] - len(old)
        free = torch.ones(self.kept, dtype=torch.bool)
        free[stay] = False
        places = free.nonzero().flatten()[: len(come)]
        size = len(stay) + len(come)
        old, where = (torch.cat([part, part.new_empty(size - len(part))]) for part in (old, where))
        old[places], where[places] = key[come], position[come]
        pixels[places], labels[places] = x[come.to(x.device)].cpu(), y[come.to(y.device)].cpu()
        self._sample = (old, where, pixels, labels)


@dataclass(frozen=True, kw_only=True)
class StreamEvaluation:
    """An evaluation of a model on a stream; the settings are those of `uiat.evaluate`.

    Args:
        until: of a stream in random order, width of the interval of the accuracy on all images at which it stops.
    """

    model: nn.Module
    plan: Plan
    threat: Threat
    batch_size: int
    seed: int
    state: Path | None
    resume: bool
    transfer: nn.Module | None
    rank: Rank
    listener: EvaluationListener
    until: float | None = None
    fit: FitImages | None = None

    def run(self, stream: Stream) -> Evaluated:
        """Run all attacks on one chunk after another.

        In memory are one chunk, the copies of it that attacks make, the images for the self-checks, and of each image
        that has passed its label and verdicts. An image has its random numbers by its place in the stream, so that its
        verdict is that of an evaluation of all images at once. Of several processes each goes through the whole stream
        and attacks every world_size-th image.

        Raises:
            UserError: images that do not fit, or other images than those that an evaluation to be resumed began with.
        """
        chunks = self._read(stream)
        first = next(chunks)
        chunks = _again(first, chunks)
        target = Target(self.model, first[0])
        check_inputs(target, *first, batch_size=self.batch_size, transfer=self.transfer, plan=self.plan)
        plan, unable = (self.plan, []) if target.differentiable else drop_gradient_attacks(self.plan)
        check_fit_images(plan, target, first[0], self.fit)
        passed = Passed(self.seed, stream.total, max(IMAGES, min(OF_A_CLASS * target.classes, MOST_CHECKED)))
        file = StateFile(self.state, self._identify(stream, plan), rank=self.rank)
        example = first[0][:4].to(target.device)
        with exact_inference(self.model):
            size = AdaptiveBatchSize(fastest_batch(self.model, example, at_most=self.batch_size))
            guide = make_fast_copy(self.model, example)
            outcomes, begun, check = self._open(file)
            bracket = None
            del first
            for x, y in chunks:
                check_labels(y, num_classes=target.classes)
                passed.add(x, y)
                offset = passed.count - len(y)
                if offset >= begun:
                    part = self._part(target, x, y, offset, size, guide)
                    outcomes = self._attack(part, plan, stream, passed, outcomes)
                    file.save(outcomes, ({}, {"seen": passed.count, "check": passed.check}))
                elif passed.count > begun or (passed.count == begun and passed.check != check):
                    raise UserError(f"{stream.name} begins with other images than the evaluation that is to be resumed")
                del x, y  # or the next chunk would be read beside this one
                if stream.total is not None and outcomes is not None and passed.count >= begun:
                    bracket = self._bracket(outcomes, passed.count, stream.total)
                    if self.until is not None and bracket.is_within(self.until):
                        break
        if outcomes is None or passed.count < begun:
            raise UserError(f"{stream.name} ended after {passed.count} images, of which {begun} were evaluated before")
        for name, parts in plan.items():
            for stage, _ in parts:
                announce(outcomes, name, stage, n=passed.count, rank=self.rank, listener=self.listener)
        sums = {"weights": sum_of_tensors(self.model.state_dict()), **passed.sums}
        kept = (passed.labels, passed.sample, passed.places)
        return Evaluated(target, plan, unable, outcomes, *kept, sums, size.size, bracket)

    def _bracket(self, outcomes: Outcomes, done: int, n: int) -> Bracket:
        """Return what is known of the accuracy on all images, the same in all processes, and report it."""
        robust = sum(self.rank.gather(int(outcomes.robust.sum())))
        found = Bracket(done, robust, n, in_random_order=self.until is not None)
        self.listener.bracket(found)
        return found

    def _read(self, stream: Stream) -> Iterator[Piece]:
        """Yield the chunks; what is wrong with one of them is said by all processes."""
        chunks = stream.chunks()
        while (chunk := self.rank.agree(lambda: next(chunks, None))) is not None:
            yield ordinary(chunk[0]), ordinary(chunk[1])

    def _identify(self, stream: Stream, plan: Plan) -> dict[str, object]:
        if self.state is None:
            return {}
        return identity_of(
            self.model, stream, None, self.threat, plan, self.seed, False, self.transfer, ONE_CALL, self.fit
        )

    def _open(self, file: StateFile) -> tuple[Outcomes | None, int, int]:
        """Return what an earlier evaluation has left: its outcomes, the number of its images, and their checksum."""
        saved = self.rank.agree(lambda: file.open(resume=self.resume))
        inside = {} if saved is None or saved[1] is None else saved[1][1]
        begun, check = int(inside.get("seen", 0)), int(inside.get("check", 0))
        if len(set(self.rank.gather((begun, check)))) > 1:
            logger.info("the processes were stopped at different images: the evaluation begins anew")
            begun = 0
        outcomes = saved[0] if saved is not None and begun else None
        empty = Outcomes(torch.arange(0))  # a file that cannot be written is refused before the work
        self.rank.agree(lambda: file.save(outcomes or empty, ({}, {"seen": begun, "check": check})))
        file.clear()
        return outcomes, begun, check

    def _part(
        self, target: Target, x: Tensor, y: Tensor, offset: int, size: AdaptiveBatchSize, guide: Guide
    ) -> AttackTarget:
        """Return the images of a chunk that this process attacks."""
        rows = slice((self.rank.rank - offset) % self.rank.size, None, self.rank.size)
        index = torch.arange(offset, offset + len(y))[rows]
        return AttackTarget(target, x[rows], y[rows], index, size, self.seed, guide)

    def _attack(
        self, part: AttackTarget, plan: Plan, stream: Stream, passed: Passed, before: Outcomes | None
    ) -> Outcomes:
        """Run all attacks on a part of the images, and add what came of them to what there was."""
        listener = _PartListener(self.listener, passed.count, len(part.x) * self.rank.size, stream.total)
        run = EvaluationRun(part, self.rank, StateFile(None, {}), passed.count, listener, self.fit, announced=False)
        run.fits = {} if before is None else before.fits
        run.run(plan, resume=False, keep_examples=False)
        return run.outcomes if before is None else append_outcomes(before, run.outcomes)


def _again(first: Piece, chunks: Iterator[Piece]) -> Iterator[Piece]:
    """Yield the first chunk again, and hold it no longer than that."""
    held = [first]
    del first
    yield held.pop()
    yield from chunks


@dataclass(frozen=True)
class _PartListener:
    """Reports the progress on a part of the images as that on all of them; the bound is known in the end alone."""

    listener: EvaluationListener
    passed: int
    part: int
    total: int | None

    def progress(self, name: str, done: int, total: int) -> None:
        """Count the images of the parts before as done."""
        left = int(self.part * (1 - done / total)) if total else 0
        self.listener.progress(name, max(0, self.passed - left), self.total or self.passed)

    def bound(self, stage: str, accuracy: float) -> None:
        """Nothing: it is that of a part."""

    def bracket(self, found: Bracket) -> None:
        """Nothing: a part has none."""

    def close(self) -> None:
        """Nothing."""
