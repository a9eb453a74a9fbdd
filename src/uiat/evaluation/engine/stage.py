"""One attack on the images that still stand: what it is run on, what it costs, and how it goes on after a kill."""

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
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize, Saver, State, misclassified, search
from uiat.models.inspect import classes_of, device_of
from uiat.models.modes import BatchNormMode, frozen
from uiat.speed.fast_copy import CountingModel, fastest_batch, make_fast_copy

# (images or iterations done, of how many, images that are right so far), called after every batch or round.
OnProgress = Callable[[int, int, int], None]
# Which images are right afterwards, and for each that is not any more the example that broke it.
Outcome = tuple[Bool[Tensor, "n"], Float[Tensor, "n ..."]]


@contextmanager
def exact_inference(model: nn.Module, *, batchnorm: BatchNormMode = "eval") -> Iterator[None]:
    """`frozen`, in full precision: torch's convolutions on a GPU multiply in TF32 unless told not to.

    They also choose the same algorithm each time, so that a verdict does not depend on which was the faster.

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
    """Images to logits, with a count of the images that went forward and of those that came back."""

    forward: int
    backward: int

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (b, k) of images."""


@dataclass
class AttackTarget:
    """A model under attack, and the images of this process.

    Args:
        module: the model.
        x: images.
        y: labels.
        index: positions of the images among all, which decide their random numbers.
        classes: K.
        room: images at a time.
        seed: of the random numbers.
        guide: what gradients and queries of attacks go through; by default the model itself.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> subject = AttackTarget(
        ...     model, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), torch.arange(2), 2, AdaptiveBatchSize(2)
        ... )
        >>> right, confidence = evaluate_clean(subject)
        >>> subject.lap()["forward"]
        2
    """

    module: nn.Module
    x: Tensor
    y: Tensor
    index: Int[Tensor, "n"]
    classes: int
    room: AdaptiveBatchSize
    seed: int = 0
    guide: Guide | None = None
    _spent: tuple[float, int, int] = field(default=(0.0, 0, 0), init=False)

    def __post_init__(self) -> None:
        self.model, self.device = CountingModel(self.module), device_of(self.module)
        self.guided: Guide = self.model if self.guide is None else self.guide
        self.lap()

    def lap(self) -> dict[str, float]:
        """Seconds, and images forward and backward through model and guide, since the last lap."""
        guides: tuple[Guide, ...] = (self.model, self.guided)
        both = {id(guide): guide for guide in guides}.values()
        now = (time.perf_counter(), sum(m.forward for m in both), sum(m.backward for m in both))
        seconds, forward, backward = (a - b for a, b in zip(now, self._spent, strict=True))
        self._spent = now
        return {"seconds": seconds, "forward": forward, "backward": backward}

    def judge(self, images: Tensor, part: Int[Tensor, "m"]) -> tuple[Tensor, Bool[Tensor, "m"]]:
        """The model's logits for some images, and which of them it gets wrong, on the CPU."""
        with torch.no_grad():
            logits = self.model(images.to(self.device))
        return logits, misclassified(logits, self.y[part].to(self.device)).cpu()


def evaluate_clean(
    subject: AttackTarget, *, told: OnProgress | None = None
) -> tuple[Bool[Tensor, "n"], Float[Tensor, "n"]]:
    """Which images are right as they are, and the probability that the model gives to its prediction.

    Example:
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(2, 1, 2, 2)
        >>> evaluate_clean(AttackTarget(model, x, torch.tensor([0, 1]), torch.arange(2), 2, AdaptiveBatchSize(2)))[
        ...     0
        ... ].shape
        torch.Size([2])
    """
    n = len(subject.x)
    right, confidence = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.float64)

    def work(part: Tensor) -> None:
        logits, wrong = subject.judge(subject.x[part], part)
        right[part] = ~wrong
        confidence[part] = logits.double().softmax(dim=1).amax(dim=1).cpu().nan_to_num()

    with exact_inference(subject.module):
        for done in subject.room.batches(torch.arange(n), work):
            if told is not None:
                told(done, n, n - done + int(right.sum()))
    return right, confidence


def attack_images(
    subject: AttackTarget,
    stage: str,
    settings: PGD | Search,
    among: Bool[Tensor, "n"],
    *,
    told: OnProgress | None = None,
    saver: Saver | None = None,
    saved: State | None = None,
) -> Outcome:
    """Which of the images in `among` are still right under an attack, and what broke the others.

    Args:
        subject: the model, its images, and what guides the attack.
        stage: name of the attack, which decides its random numbers.
        settings: the attack.
        among: images that it is spent on.
        told: called after every batch or round.
        saver: told wherever the attack could go on later from its state.
        saved: such a state.

    Example:
        >>> from uiat import Linf
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(2, 1, 2, 2)
        >>> subject = AttackTarget(model, x, torch.tensor([0, 1]), torch.arange(2), 2, AdaptiveBatchSize(2))
        >>> attack_images(subject, "pgd", PGD(threat=Linf(0.1)), torch.tensor([True, False]))[0].shape
        torch.Size([2])
    """
    if subject.classes < 2 or not bool(among.any()):  # nothing else to predict, or nothing to attack
        if told is not None:
            told(0, 0, int(among.sum()))
        return among.clone(), subject.x
    if isinstance(settings, PGD):
        run = _Restarts(subject, stage, settings, among)
        if saved is not None:
            run.restore(saved)
        return run.go(told=told, saver=saver)
    return _search_images(subject, settings, among, told=told, saver=saver, saved=saved)


def _search_images(
    subject: AttackTarget,
    settings: Search,
    among: Tensor,
    *,
    told: OnProgress | None,
    saver: Saver | None,
    saved: State | None,
) -> Outcome:
    left, total = among.nonzero().flatten(), settings.iterations * settings.attempts(subject.classes)
    report = None if told is None else lambda done, standing: told(done, total, standing)
    with exact_inference(subject.module):
        broken, examples = search(
            settings,
            subject.model,
            subject.x[left],
            subject.y[left],
            subject.index[left],
            num_classes=subject.classes,
            device=subject.device,
            seed=subject.seed,
            batch_size=subject.room,
            report=report,
            fast=subject.guided,
            saver=saver,
            saved=saved,
        )
    right, found = among.clone(), subject.x.clone()
    right[left[broken]] = False
    if told is not None:  # also where it ended early, with nothing left
        told(total, total, int(right.sum()))
    found[left[broken]] = examples[broken]
    return right, found


class _Restarts:
    """PGD batch by batch, a restart at a time; a restart is only spent on images that stand after the one before it."""

    def __init__(self, subject: AttackTarget, stage: str, settings: PGD, among: Tensor) -> None:
        self.subject, self.settings, self.among = subject, settings, among
        self.key = rekey(keys(subject.seed, subject.index), zlib.crc32(stage.encode()))
        self.right, self.found = among.clone(), subject.x.detach().clone()
        self.restart, self.done, self.left = 0, 0, among.nonzero().flatten()

    def go(self, *, told: OnProgress | None, saver: Saver | None) -> Outcome:
        restarts = self.settings.restarts
        while True:
            for done in self.subject.room.batches(self.left, self._work, done=self.done):
                self.done = done
                if told is not None:
                    at, total = self.restart * len(self.left) + self.done, len(self.left) * restarts
                    told(at, total, int(self.right.sum()))
                if saver is not None:
                    saver(self.snapshot)
            if self.restart + 1 == restarts:
                return self.right, self.found
            self.restart, self.done, self.left = self.restart + 1, 0, self.right.nonzero().flatten()

    def _work(self, part: Tensor) -> None:
        subject, once = self.subject, replace(self.settings, restarts=1)
        x, y, key = (v[part].to(subject.device) for v in (subject.x, subject.y, rekey(self.key, self.restart)))
        # A prepared copy is in eval mode for good.
        guide = subject.guided if once.batchnorm == "eval" else subject.model
        with exact_inference(subject.module, batchnorm=once.batchnorm):
            x_adv = once.perturb(guide, x, y, key=key)
        with exact_inference(subject.module):
            _, wrong = subject.judge(x_adv, part)
        self.right[part] = ~wrong
        self.found[part[wrong]] = x_adv.to(self.found)[wrong.to(self.found.device)]

    def snapshot(self) -> State:
        fallen = self.among & ~self.right
        tensors = {"right": self.right.clone(), "left": self.left, "found": self.found[fallen]}
        return tensors, {"restart": self.restart, "done": self.done}

    def restore(self, state: State) -> None:
        tensors, meta = state
        self.right, self.left = tensors["right"].clone(), tensors["left"]
        self.found[self.among & ~self.right] = tensors["found"].to(self.found)
        self.restart, self.done = int(meta["restart"]), int(meta["done"])


def correct_under(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    settings: PGD | Search | None,
    *,
    among: Bool[Tensor, "n"] | None = None,
    batch_size: int = 500,
    seed: int = 0,
    index: Int[Tensor, "n"] | None = None,
    classes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Bool[Tensor, "n"]:
    """Which images of those in `among` are still classified correctly under one attack (None: as they are), on the CPU.

    Each image has random numbers of its own, by its position in `index` (0, 1, ... by default), so that the answer does
    not depend on what it shares a batch or a process with.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> correct_under(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), None).shape
        torch.Size([3])
    """
    count = classes or classes_of(model, x)
    example = x[:4].to(device_of(model))
    room, guide = (
        AdaptiveBatchSize(fastest_batch(model, example, at_most=batch_size)),
        None if settings is None else make_fast_copy(model, example),
    )
    subject = AttackTarget(model, x, y, torch.arange(len(x)) if index is None else index, count, room, seed, guide)
    right = torch.ones(len(x), dtype=torch.bool) if among is None else among
    told: OnProgress | None = None if progress is None else lambda done, total, _: progress(done, total)
    if settings is None:
        return right & evaluate_clean(subject, told=told)[0]
    return attack_images(subject, "", settings, right, told=told)[0]
