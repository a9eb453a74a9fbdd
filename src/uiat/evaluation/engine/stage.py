"""One stage of an evaluation: an attack on the images that are still robust, its costs, and how it is resumed."""

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uiat.attacks import PGD, Search
from uiat.attacks.random_numbers import keys, rekey
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize, Saver, State, is_misclassified, search
from uiat.evaluation.listener import OnProgress, ignore_progress
from uiat.models.inspect import Target
from uiat.models.modes import BatchNormMode, frozen
from uiat.speed.fast_copy import CountingModel, fastest_batch, make_fast_copy

# Mask of the images that are correct afterwards, and for each that is not any more the example that broke it.
Outcome = tuple[Bool[Tensor, "n"], Float[Tensor, "n ..."]]


@contextmanager
def exact_inference(model: nn.Module, *, batchnorm: BatchNormMode = "eval") -> Iterator[None]:
    """The model is frozen, and convolutions are exact: full precision, and the same algorithm each time.

    On a GPU torch's convolutions multiply in TF32 unless told not to, and may take whichever algorithm was the faster.

    Example:
        >>> with exact_inference(nn.Linear(2, 2)):
        ...     torch.backends.cudnn.allow_tf32
        False
    """
    cudnn = torch.backends.cudnn
    exact = cudnn.flags(enabled=cudnn.enabled, deterministic=True, allow_tf32=False)
    with exact, frozen(model, batchnorm=batchnorm):
        yield


@runtime_checkable
class Guide(Protocol):
    """A model that counts the images of its forward and its backward passes."""

    forward: int
    backward: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits (b, k) of images."""


@dataclass
class AttackTarget:
    """A model under attack, with the images of this process.

    Args:
        target: the model.
        x: images.
        y: labels.
        index: positions of the images among all, which decide their random numbers.
        batch_size: images at a time.
        seed: seed of the random numbers.
        guide: what gradients and queries of attacks go through; by default the model itself.

    Example:
        >>> x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
        >>> model = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x)
        >>> target = AttackTarget(model, x, y, torch.arange(2), AdaptiveBatchSize(2))
        >>> correct, confidence = evaluate_clean(target)
        >>> target.pop_costs()["forward"]
        2
    """

    target: Target
    x: Tensor
    y: Tensor
    index: Int[Tensor, "n"]
    batch_size: AdaptiveBatchSize
    seed: int = 0
    guide: Guide | None = None
    _before: tuple[float, int, int] = field(default=(0.0, 0, 0), init=False)

    def __post_init__(self) -> None:
        self.module, self.device, self.classes = self.target.model, self.target.device, self.target.classes
        self.model = CountingModel(self.module)
        self.guided: Guide = self.model if self.guide is None else self.guide
        self.pop_costs()

    def pop_costs(self) -> dict[str, float]:
        """Return the seconds, and the images forward and backward through model and guide, since the last call."""
        guides: tuple[Guide, ...] = (self.model, self.guided)
        distinct = {id(guide): guide for guide in guides}.values()
        now = (time.perf_counter(), sum(m.forward for m in distinct), sum(m.backward for m in distinct))
        seconds, forward, backward = (a - b for a, b in zip(now, self._before, strict=True))
        self._before = now
        return {"seconds": seconds, "forward": forward, "backward": backward}

    def classify(self, images: Tensor, rows: Int[Tensor, "m"]) -> tuple[Tensor, Bool[Tensor, "m"]]:
        """Return the model's logits for images made from some rows of `x`, and a mask of the wrong ones, on the CPU."""
        with torch.no_grad():
            logits = self.model(images.to(self.device))
        return logits, is_misclassified(logits, self.y[rows].to(self.device)).cpu()


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
        confidence[rows] = logits.double().softmax(dim=1).amax(dim=1).cpu().nan_to_num()

    with exact_inference(target.module):
        for done in target.batch_size.batches(torch.arange(n), classify):
            on_progress(done, n, n - done + int(correct.sum()))
    return correct, confidence


def attack_images(
    target: AttackTarget,
    stage: str,
    settings: PGD | Search,
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
        A mask of the images of `mask` that are still correct, and for the others the example that broke each.

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
        return mask.clone(), target.x
    if isinstance(settings, PGD):
        run = _Restarts(target, stage, settings, mask)
        if saved is not None:
            run.restore(saved)
        return run.finish(on_progress=on_progress, saver=saver)
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
            saver=saver,
            saved=saved,
        )
    correct, x_adv = mask.clone(), target.x.clone()
    correct[rows[broken]] = False
    x_adv[rows[broken]] = examples[broken]
    total = settings.iterations * settings.attempts(classes)
    on_progress(total, total, int(correct.sum()))  # also where it ended early, with nothing left
    return correct, x_adv


class _Restarts:
    """PGD batch by batch, a restart at a time; a restart is only spent on images that survived the one before it."""

    def __init__(self, target: AttackTarget, stage: str, settings: PGD, mask: Tensor) -> None:
        self.target, self.settings, self.mask = target, settings, mask
        self.key = rekey(keys(target.seed, target.index), zlib.crc32(stage.encode()))
        self.correct, self.x_adv = mask.clone(), target.x.detach().clone()
        # The restart under way, the rows that it is spent on, and how many of them are done.
        self.restart, self.rows, self.done = 0, mask.nonzero().flatten(), 0

    def finish(self, *, on_progress: OnProgress, saver: Saver | None) -> Outcome:
        """Run all restarts to their end, from wherever the attack is."""
        restarts = self.settings.restarts
        while True:
            for done in self.target.batch_size.batches(self.rows, self._attack, done=self.done):
                self.done = done
                before = self.restart * len(self.rows)
                on_progress(before + done, len(self.rows) * restarts, int(self.correct.sum()))
                if saver is not None:
                    saver(self.snapshot)
            if self.restart + 1 == restarts:
                return self.correct, self.x_adv
            self.restart, self.rows, self.done = self.restart + 1, self.correct.nonzero().flatten(), 0

    def _attack(self, rows: Tensor) -> None:
        target, once = self.target, replace(self.settings, restarts=1)
        x, y, key = (v[rows].to(target.device) for v in (target.x, target.y, rekey(self.key, self.restart)))
        # A fast copy is in eval mode for good.
        guide = target.guided if once.batchnorm == "eval" else target.model
        with exact_inference(target.module, batchnorm=once.batchnorm):
            x_adv = once.perturb(guide, x, y, key=key)
        with exact_inference(target.module):
            _, wrong = target.classify(x_adv, rows)
        self.correct[rows] = ~wrong
        self.x_adv[rows[wrong]] = x_adv.to(self.x_adv)[wrong.to(self.x_adv.device)]

    def snapshot(self) -> State:
        broken = self.mask & ~self.correct
        tensors = {"right": self.correct.clone(), "left": self.rows, "found": self.x_adv[broken]}
        return tensors, {"restart": self.restart, "done": self.done}

    def restore(self, state: State) -> None:
        tensors, meta = state
        self.correct, self.rows = tensors["right"].clone(), tensors["left"]
        self.x_adv[self.mask & ~self.correct] = tensors["found"].to(self.x_adv)
        self.restart, self.done = int(meta["restart"]), int(meta["done"])


def correct_under(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    settings: PGD | Search | None,
    *,
    mask: Bool[Tensor, "n"] | None = None,
    batch_size: int = 500,
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
