"""Searching attacks over a whole test set: broken points leave, the rest is packed together again, breaks are verified.

A search runs in rounds of iterations that grow longer, up to a bound. After each round the points of all batches that
still stand are joined and split again, so that the device stays full while points leave. What guides the attack may be
a faster form of the model; a point is broken only once the model itself misclassifies its example.
"""

import itertools
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uiat.attacks.random_numbers import keys, rekey
from uiat.attacks.search import Classifier, Search, SearchState, advance, begin, join, select, split, unbreak
from uiat.models.modes import frozen

# How much longer each round is than all before it: packing costs a copy of the state, leaving early saves iterations.
GROWTH = 1.6
# Iterations of a round at most: a state is saved between the batches of a round, so that this many can be lost.
LONGEST = 25
# (iterations done, of all attempts; points that still stand), called after every round.
OnRound = Callable[[int, int], None]
# All that an unfinished piece of work consists of: tensors, and plain values.
State = tuple[dict[str, Tensor], dict[str, Any]]
# Told that this is a moment at which the work could go on later from its state, and how to get that.
Saver = Callable[[Callable[[], State]], None]


def rounds(iterations: int, *, longest: int = LONGEST) -> list[tuple[int, int]]:
    """(first, last) of each round.

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
    """How many images go through a model at once: as many as were asked for, and half as many if memory runs out.

    Args:
        size: images at a time, at first.

    Example:
        >>> room = AdaptiveBatchSize(500)
        >>> room.shrink(RuntimeError("CUDA out of memory"), 500)
        >>> room.size
        250
    """

    def __init__(self, size: int) -> None:
        self.size, self.halved = size, False

    def shrink(self, error: Exception, count: int) -> None:
        """After an error in work on `count` images: make room for half of them, for good.

        Raises:
            Exception: the error itself, where it is not about memory, or where not even one image fits.
        """
        if count < 2 or not ran_out_of_memory(error):
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


def ran_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is not enough memory, on any device.

    Example:
        >>> ran_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
        True
        >>> ran_out_of_memory(RuntimeError("shapes differ"))
        False
    """
    words = ("out of memory", "DefaultCPUAllocator", "not enough memory")
    said = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def misclassified(logits: Float[Tensor, "b k"], y: Int[Tensor, "b"]) -> Bool[Tensor, "b"]:
    """Where the largest logit is not that of y, or where one of them is NaN, which would win every comparison.

    Example:
        >>> misclassified(torch.tensor([[1.0, 2.0], [1.0, float("nan")]]), torch.tensor([1, 1])).tolist()
        [False, True]
    """
    return (logits.argmax(dim=1) != y) | logits.isnan().any(dim=1)


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
    report: OnRound | None = None,
    fast: Classifier | None = None,
    saver: Saver | None = None,
    saved: State | None = None,
) -> tuple[Bool[Tensor, "n"], Float[Tensor, "n ..."]]:
    """Attack every point until it breaks or the budget is spent, each with random numbers of its own.

    Args:
        attack: the search.
        model: maps images in [0, 1] to logits; the judge of every break.
        x: images to attack, all of them classified correctly.
        y: labels.
        index: position of each in the test set, which decides its random numbers, whatever the batch or the process.
        num_classes: K.
        device: where the model is; points travel there batch by batch.
        seed: of the random numbers.
        batch_size: points at a time; halved where memory runs out, see `AdaptiveBatchSize`.
        report: told after every round.
        fast: what guides the attack instead of the model, such as a prepared copy. A point that it takes for broken
            and that the model classifies correctly goes on being attacked.
        saver: told after every batch of a round, see `Saver`.
        saved: a state that a saver was given: the search goes on from there, and ends as it would have.

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
    room = batch_size if isinstance(batch_size, AdaptiveBatchSize) else AdaptiveBatchSize(batch_size)
    run = _SearchRun(attack, model, fast or model, x, y, key, device=device, room=room)
    if saved is not None:
        run.restore(saved)
    quiet: AbstractContextManager[None] = frozen(model) if isinstance(model, nn.Module) else nullcontext()
    with quiet:
        run.go(attack.attempts(num_classes), report=report, saver=saver)
    return run.broken, run.found


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
        room: AdaptiveBatchSize,
    ) -> None:
        self.attack, self.model, self.guide, self.device, self.room = attack, model, guide, device, room
        self.x, self.y, self.key = x, y, key
        self.broken, self.found = torch.zeros(len(x), dtype=torch.bool), x.clone()
        # The iterations that were done when the points were last packed, and those that each batch has done.
        self.attempt, self.packed = 0, 0
        self.work: list[SearchState] = []
        self.done: list[int] = []

    def go(self, attempts: int, *, report: OnRound | None, saver: Saver | None) -> None:
        """To the end, from wherever it is."""
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
                if report is not None:
                    report(self.attempt * iterations + last, int((~self.broken).sum()))
            self.attempt, self.packed, self.work, self.done = self.attempt + 1, 0, [], []

    def _begin(self) -> None:
        """The points of an attempt: all that stand."""

        def start(part: Tensor) -> None:
            x, y, key = (value[part].to(self.device) for value in (self.x, self.y, self.key))
            points = begin(self.attack, self.guide, x, y, key, attempt=self.attempt)
            points |= {"where": part.to(self.device), "verified": torch.zeros_like(points["broken"])}
            self.work.append(self._verify(points))

        for _ in self.room.batches((~self.broken).nonzero().flatten(), start):
            pass
        self.done = [0] * len(self.work)

    def _round(self, last: int) -> Iterator[None]:
        """All batches up to iteration `last`, then pack; yields wherever the search can be interrupted."""
        at = 0
        while at < len(self.work):
            if self.done[at] < last and not self._advance(at, last):
                continue
            at += 1
            if any(done < last for done in self.done):
                yield
        whole = join(self.work)
        self._settle(select(whole, whole["broken"]))
        rest = select(whole, ~whole["broken"])
        self.work = list(split(rest, self.room.size)) if len(rest["y"]) else []
        self.done, self.packed = [last] * len(self.work), last
        yield

    def _advance(self, at: int, last: int) -> bool:
        """One batch up to iteration `last`; where it has no room, it becomes several, which have that before them."""
        points, first = self.work[at], self.done[at]
        if len(points["y"]) <= self.room.size:
            try:
                self.work[at] = advance(self.attack, self.guide, points, first, last, verify=self._verify)
                self.done[at] = last
                return True
            except (RuntimeError, MemoryError) as error:
                self.room.shrink(error, len(points["y"]))
        self.work[at : at + 1] = parts = list(split(points, self.room.size))
        self.done[at : at + 1] = [first] * len(parts)
        return False

    def _verify(self, points: SearchState) -> SearchState:
        """Breaks that the model confirms stay; from others, and from any outside of the ball, the flag is taken."""
        new = points["broken"] & ~points["verified"]
        if not bool(new.any()):
            return points
        x_adv = points["x_adv"][new]
        with torch.no_grad():
            confirmed = misclassified(self.model(x_adv), points["y"][new])
        confirmed &= _allowed(self.attack, x_adv, points["x"][new])
        verified = points["verified"].masked_scatter(new, confirmed)
        return unbreak(self.attack, points | {"verified": verified}, points["broken"] & ~verified)

    def _settle(self, points: SearchState) -> None:
        where = points["where"].to(self.broken.device)
        self.broken[where] = True
        self.found[where] = points["x_adv"].to(self.found)

    def snapshot(self) -> State:
        """All of it but what the search was called with."""
        tensors = {"broken": self.broken.clone(), "found": self.found[self.broken]}
        tensors["sizes"] = torch.tensor([len(points["y"]) for points in self.work], dtype=torch.int64)
        tensors["done"] = torch.tensor(self.done, dtype=torch.int64)
        if self.work:
            tensors |= {f"work/{name}": value for name, value in join(self.work).items()}
        return tensors, {"attempt": self.attempt, "packed": self.packed}

    def restore(self, state: State) -> None:
        """Back to what `snapshot` saw."""
        tensors, meta = state
        self.attempt, self.packed = int(meta["attempt"]), int(meta["packed"])
        self.broken, self.done = tensors["broken"].clone(), tensors["done"].tolist()
        self.found[self.broken] = tensors["found"].to(self.found)
        names = [name for name in tensors if name.startswith("work/")]
        columns = {name: tensors[name].to(self.device).split(tensors["sizes"].tolist()) for name in names}
        self.work = [
            {name.removeprefix("work/"): columns[name][at] for name in names} for at in range(len(tensors["sizes"]))
        ]


def _allowed(attack: Search, x_adv: Tensor, x: Tensor) -> Tensor:
    """Which examples are in the ball and in [0, 1], to the accuracy of their numbers; all, for a search without one."""
    threat = getattr(attack, "threat", None)
    flat = x_adv.flatten(1)
    inside = (flat >= 0).all(dim=1) & (flat <= 1).all(dim=1)
    if threat is None:
        return inside
    return inside & (threat.length(x_adv - x) <= float(threat.epsilon) * (1 + 1e-4) + 1e-6)
