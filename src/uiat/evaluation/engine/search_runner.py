"""Run a search over a whole test set: broken points leave, the rest is packed together again, breaks are verified.

A search runs in rounds of iterations that grow longer, up to a bound. After each round the points of all batches that
are not broken are joined and split again, so that the device stays full while points leave. What guides the attack may
be a faster form of the model; a point is broken only once the model itself misclassifies its example.
"""

import itertools
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from uiat.attacks.random_numbers import keys, rekey
from uiat.attacks.search import (
    Classifier,
    Search,
    SearchState,
    advance,
    begin,
    best_example,
    join,
    select,
    split,
    unbreak,
)
from uiat.evaluation.engine.misclassified import count_misclassified, is_allowed
from uiat.evaluation.listener import OnProgress, ignore_progress
from uiat.models.modes import frozen
from uiat.shapes import Bool, Float, Int

# How much longer each round is than all before it: packing costs a copy of the state, leaving early saves iterations.
GROWTH = 1.6
# Iterations of a round at most: a state is saved between the batches of a round, so that this many can be lost.
LONGEST = 25
# Resumable state of a stage under way: tensors, and JSON values.
State = tuple[dict[str, Tensor], dict[str, Any]]
# Called wherever the stage could be resumed from, with a function that returns its state.
Saver = Callable[[Callable[[], State]], None]


def rounds(iterations: int, *, longest: int = LONGEST) -> list[tuple[int, int]]:
    """Split iterations into rounds, (first, last) of each.

    Args:
        iterations: number of iterations in all.
        longest: number of iterations of a round at most.

    Example:
        >>> rounds(10)
        [(0, 1), (1, 2), (2, 4), (4, 7), (7, 10)]
        >>> rounds(10, longest=2)
        [(0, 1), (1, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    """
    edges = [0]
    while (at := edges[-1]) < iterations:
        edges.append(min(iterations, at + longest, max(at + 1, int(at * GROWTH) + 1)))
    return list(itertools.pairwise(edges))


class AdaptiveBatchSize:
    """A batch size that is halved where memory runs out.

    Args:
        size: images at a time, at first.

    Example:
        >>> batch_size = AdaptiveBatchSize(500)
        >>> batch_size.shrink(RuntimeError("CUDA out of memory"), 500)
        >>> batch_size.size
        250
    """

    def __init__(self, size: int) -> None:
        self.size, self.halved = size, False

    def shrink(self, error: Exception, count: int) -> None:
        """Halve the batch size for good, after an error in work on `count` images.

        Raises:
            Exception: the error itself, where it is not about memory, or where not even one image fits.
        """
        if count < 2 or not is_out_of_memory(error):
            raise error
        self.size, self.halved = min(self.size, (count + 1) // 2), True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def batches(self, left: Int[Tensor, "m"], work: Callable[[Tensor], None], *, done: int = 0) -> Iterator[int]:
        """Work on positions batch by batch, and again with half as many where memory runs out.

        Yields how many are done after each batch.

        Example:
            >>> list(AdaptiveBatchSize(2).batches(torch.arange(5), lambda part: None))
            [2, 4, 5]
        """
        while done < len(left):
            part = left[done : done + self.size]
            try:
                work(part)
            except (RuntimeError, MemoryError) as error:
                self.shrink(error, len(part))
                continue
            done += len(part)
            yield done


def is_out_of_memory(error: Exception) -> bool:
    """True if an error says that there is not enough memory, on any device.

    Example:
        >>> is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_out_of_memory(RuntimeError("shapes differ"))
        False
    """
    words = ("out of memory", "DefaultCPUAllocator", "not enough memory")
    says_so = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return says_so or isinstance(error, torch.OutOfMemoryError | MemoryError)


def search(
    attack: Search,
    model: Classifier,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    index: Int[Tensor, "n"],
    *,
    num_classes: int,
    device: torch.device,
    seed: int = 0,
    batch_size: int | AdaptiveBatchSize = 500,
    on_progress: OnProgress = ignore_progress,
    fast: Classifier | None = None,
    calls: int = 1,
    saver: Saver | None = None,
    saved: State | None = None,
) -> tuple[Bool[Tensor, "n"], Float[Tensor, "n ..."]]:
    """Attack every point until it breaks or the budget is spent, each with random numbers of its own.

    Args:
        attack: the search.
        model: maps images in [0, 1] to logits; decides what counts as broken.
        x: images to attack, all of them classified correctly.
        y: labels.
        index: position of each in the test set, which decides its random numbers, whatever the batch or the process.
        num_classes: number of classes.
        device: the device of the model; points travel there batch by batch.
        seed: seed of the random numbers.
        batch_size: points at a time; halved where memory runs out, see `AdaptiveBatchSize`.
        on_progress: called after every round with (iterations done, of all attempts together, points not broken).
        fast: what guides the attack instead of the model, such as a fast copy. A point that it misclassifies and that
            the model classifies correctly is attacked further.
        calls: number of calls of a randomised model, all of which have to misclassify an example to end the search.
            With more than one, a point that does not break has, of what its attempts have come to, the one that most of
            the calls misclassify.
        saver: called after every batch of a round, see `Saver`.
        saved: a state that a saver was given: the search is resumed from there, and ends as it would have.

    Returns:
        Which points broke, and for those the adversarial example, verified by a forward pass; on the device of `x`.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.apgd import APGD
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x = torch.rand(8, 1, 2, 2)
        >>> y = model(x).argmax(1)
        >>> attack = APGD(threat=Linf(0.99), loss="ce", iterations=5)
        >>> broken, x_adv = search(attack, model, x, y, torch.arange(8), num_classes=2, device=torch.device("cpu"))
        >>> broken.shape
        torch.Size([8])
    """
    key = rekey(keys(seed, index), zlib.crc32(attack.name.encode()))
    size = batch_size if isinstance(batch_size, AdaptiveBatchSize) else AdaptiveBatchSize(batch_size)
    run = _SearchRun(attack, model, fast or model, x, y, key, device=device, batch_size=size, calls=calls)
    if saved is not None:
        run.restore(saved)
    mode: AbstractContextManager[None] = frozen(model) if isinstance(model, nn.Module) else nullcontext()
    with mode:
        run.finish(attack.attempts(num_classes), on_progress=on_progress, saver=saver)
    return run.broken, run.x_adv


class _SearchRun:
    """A search under way: which attempt, how far, the points in it, and what is known of all the others."""

    def __init__(
        self,
        attack: Search,
        model: Classifier,
        guide: Classifier,
        x: Tensor,
        y: Tensor,
        key: Tensor,
        *,
        device: torch.device,
        batch_size: AdaptiveBatchSize,
        calls: int,
    ) -> None:
        self.attack, self.model, self.guide, self.device, self.batch_size = attack, model, guide, device, batch_size
        self.x, self.y, self.key, self.calls = x, y, key, calls
        self.broken, self.x_adv = torch.zeros(len(x), dtype=torch.bool), x.clone()
        self.most_wrong = torch.full((len(x),), -1)  # calls that misclassify x_adv; known where there are several
        self.attempt = 0
        # The batches under way, the iterations that each has done, and those done when they were last packed.
        self.work: list[SearchState] = []
        self.done: list[int] = []
        self.packed = 0

    def finish(self, attempts: int, *, on_progress: OnProgress, saver: Saver | None) -> None:
        """Run all attempts to their end, from wherever the search is."""
        iterations = self.attack.iterations
        while self.attempt < attempts and not bool(self.broken.all()):
            if not self.work:
                self._begin()
            for _, last in rounds(iterations):
                if last <= self.packed or not self.work:
                    continue
                for _ in self._round(last):
                    if saver is not None:
                        saver(self.snapshot)
                done = self.attempt * iterations + last
                on_progress(done, attempts * iterations, int((~self.broken).sum()))
            if self.calls > 1:
                self._keep_best()
            self.attempt, self.packed, self.work, self.done = self.attempt + 1, 0, [], []

    def _begin(self) -> None:
        """Start an attempt on all points that are not broken."""

        def start(part: Tensor) -> None:
            x, y, key = (value[part].to(self.device) for value in (self.x, self.y, self.key))
            points = begin(self.attack, self.guide, x, y, key, attempt=self.attempt)
            points |= {"where": part.to(self.device), "verified": torch.zeros_like(points["broken"])}
            self.work.append(self._verify(points))

        for _ in self.batch_size.batches((~self.broken).nonzero().flatten(), start):
            pass
        self.done = [0] * len(self.work)

    def _round(self, last: int) -> Iterator[None]:
        """Advance all batches to iteration `last`, then pack; yields wherever the search can be interrupted."""
        at = 0
        while at < len(self.work):
            if self.done[at] < last and not self._advance(at, last):
                continue
            at += 1
            if any(done < last for done in self.done):
                yield
        whole = join(self.work)
        self._record_broken(select(whole, whole["broken"]))
        rest = select(whole, ~whole["broken"])
        self.work = list(split(rest, self.batch_size.size)) if len(rest["y"]) else []
        self.done, self.packed = [last] * len(self.work), last
        yield

    def _advance(self, at: int, last: int) -> bool:
        """Advance one batch to iteration `last`; True if it got there.

        Where memory runs out, the batch is split instead, and the parts have the iterations before them.
        """
        points, first = self.work[at], self.done[at]
        if len(points["y"]) <= self.batch_size.size:
            try:
                self.work[at] = advance(self.attack, self.guide, points, first, last, verify=self._verify)
                self.done[at] = last
                return True
            except (RuntimeError, MemoryError) as error:
                self.batch_size.shrink(error, len(points["y"]))
        self.work[at : at + 1] = parts = list(split(points, self.batch_size.size))
        self.done[at : at + 1] = [first] * len(parts)
        return False

    def _verify(self, points: SearchState) -> SearchState:
        """Keep the breaks that the model confirms; take the flag from others, and from any outside of the ball."""
        new = points["broken"] & ~points["verified"]
        if not bool(new.any()):
            return points
        x_adv = points["x_adv"][new]
        confirmed = count_misclassified(self.model, x_adv, points["y"][new], self.calls) == self.calls
        confirmed &= is_allowed(self.attack, x_adv, points["x"][new])
        verified = points["verified"].masked_scatter(new, confirmed)
        return unbreak(self.attack, points | {"verified": verified}, points["broken"] & ~verified)

    def _keep_best(self) -> None:
        """Keep what an attempt has come to on points that did not break, where no attempt before did better."""
        for points in self.work:
            x_adv = best_example(self.attack, points)
            count = count_misclassified(self.model, x_adv, points["y"], self.calls)
            count = count.masked_fill(~is_allowed(self.attack, x_adv, points["x"]), -1).to(self.most_wrong.device)
            where = points["where"].to(self.broken.device)
            better = count >= self.most_wrong[where].clamp_min(0)
            self.most_wrong[where[better]] = count[better]
            self.x_adv[where[better]] = x_adv[better.to(x_adv.device)].to(self.x_adv)

    def _record_broken(self, points: SearchState) -> None:
        where = points["where"].to(self.broken.device)
        self.broken[where] = True
        self.x_adv[where] = points["x_adv"].to(self.x_adv)

    def snapshot(self) -> State:
        """Return the state, without what the search was called with."""
        tensors = {"broken": self.broken.clone(), "found": self.x_adv[self.broken]}
        if self.calls > 1:
            tensors |= {"best": self.x_adv.clone(), "most_wrong": self.most_wrong.clone()}
        tensors["sizes"] = torch.tensor([len(points["y"]) for points in self.work], dtype=torch.int64)
        tensors["done"] = torch.tensor(self.done, dtype=torch.int64)
        if self.work:
            tensors |= {f"work/{name}": value for name, value in join(self.work).items()}
        return tensors, {"attempt": self.attempt, "packed": self.packed}

    def restore(self, state: State) -> None:
        """Resume from what `snapshot` returned."""
        tensors, meta = state
        self.attempt, self.packed = int(meta["attempt"]), int(meta["packed"])
        self.broken, self.done = tensors["broken"].clone(), tensors["done"].tolist()
        self.x_adv[self.broken] = tensors["found"].to(self.x_adv)
        if "best" in tensors:
            self.x_adv, self.most_wrong = tensors["best"].to(self.x_adv), tensors["most_wrong"].clone()
        names = [name for name in tensors if name.startswith("work/")]
        columns = {name: tensors[name].to(self.device).split(tensors["sizes"].tolist()) for name in names}
        self.work = [
            {name.removeprefix("work/"): columns[name][at] for name in names} for at in range(len(tensors["sizes"]))
        ]
