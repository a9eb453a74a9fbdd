"""The judge: accuracy under named attacks, and in the worst case over them, per example.

It knows models, images and attacks, and nothing of how a model was trained, so a defence cannot influence its judge.
"""

import itertools
import logging
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uiat.attacks import PGD, Search
from uiat.checks import check_batch
from uiat.ensemble import search
from uiat.environment import environment
from uiat.errors import UserError
from uiat.evaluation.named import ENSEMBLES, stages
from uiat.models import check_model
from uiat.modes import crafting
from uiat.threat import Threat

logger = logging.getLogger("uiat")
# (attack, images or iterations done, of how many), called after every batch or round.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class EvaluationResult:
    """What was measured, on how many images, under which threat model, with what.

    Args:
        threat: as "Linf:0.0313725".
        n: images.
        accuracy: share of images still right, for each attack and in the "worst" case over all of them.
        seconds: time of each attack.
        broken_by: per example, the first attack that broke it, an ensemble's by the stage; "" for one that stands.
        seed: of the random starts.
        environment: versions and hardware.
        stages: for each ensemble, the accuracy after each of its attacks.

    Example:
        >>> EvaluationResult("Linf:0.1", 2, {"clean": 1.0, "worst": 0.5}, {"clean": 0.1}, ["", "fgsm"], 0).accuracy[
        ...     "worst"
        ... ]
        0.5
    """

    threat: str
    n: int
    accuracy: dict[str, float]
    seconds: dict[str, float]
    broken_by: list[str]
    seed: int
    environment: dict[str, Any] = field(default_factory=environment)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return dict(vars(self))


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
) -> EvaluationResult:
    """Accuracy of a model on images, under each attack by name and in the worst case over them.

    An image misclassified as it is counts as broken under every attack and is not attacked. Otherwise an image counts
    as broken by an attack when the model, in eval mode, misclassifies the attack's example (in the ball, in [0, 1]).

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1], on the model's device or moved there batch by batch.
        y: labels, int64.
        threat: the threat model.
        attacks: names, see `attack`; "clean" is always measured.
        batch_size: images at a time.
        seed: of the random starts; the same seed and batch size give the same verdict for an attack, whatever others
            are asked for.
        progress: called after every batch.

    Raises:
        UserError: an unknown attack, images or labels that do not fit, a model that does not return logits.

    Example:
        >>> from uiat.threat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> result = evaluate(model, torch.rand(8, 1, 2, 2), torch.arange(8) % 2, threat=Linf(0.1), attacks=["fgsm"])
        >>> result.accuracy["worst"] == result.accuracy["fgsm"]
        True
    """
    parsed = _parsed(attacks, threat)
    classes = _checked(model, x, y, batch_size=batch_size)
    clean = torch.ones(len(x), dtype=torch.bool)
    tally = _Tally(clean.clone(), [""] * len(x))
    for name, parts in parsed.items():
        start, right = time.perf_counter(), clean
        for stage, settings in parts:
            # An attack's random numbers do not depend on which others are asked for.
            key, told = (seed << 32) + zlib.crc32(stage.encode()), _named(progress, name)
            options = {"among": right, "batch_size": batch_size, "seed": key, "classes": classes, "progress": told}
            right = correct_under(model, x, y, settings, **options)  # type: ignore[arg-type]
            tally.note(name, stage, right)
        clean = right if name == "clean" else clean
        tally.accuracy[name], tally.seconds[name] = right.double().mean().item(), time.perf_counter() - start
    tally.accuracy["worst"] = tally.standing.double().mean().item()
    text = f"{threat.norm}:{float(threat.epsilon):.7g}"
    return EvaluationResult(
        text, len(x), tally.accuracy, tally.seconds, tally.broken_by, seed, stages=dict(tally.stages)
    )


@dataclass
class _Tally:
    """What is known so far: who stands under everything, and what broke the others."""

    standing: Tensor
    broken_by: list[str]
    accuracy: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    stages: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def note(self, name: str, stage: str, right: Tensor) -> None:
        """After a stage of a named attack: which images are still right under that attack."""
        for i in (self.standing & ~right).nonzero().flatten().tolist():
            self.broken_by[i] = stage
        self.standing &= right
        if name in ENSEMBLES:
            share = right.double().mean().item()
            self.stages[name][stage] = share
            # In the words of the reference implementation, which people's scripts look for.
            logger.info("robust accuracy after %s: %.2f%%", stage.upper(), 100 * share)


def _checked(model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int) -> int:
    """The number of classes, once everything is what it should be."""
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, but is {batch_size}")
    check_batch(x, y)
    classes = _classes(model, x)
    check_model(model, x[:4].to(_device(model)), classes)
    if int(y.max()) >= classes:
        raise UserError(f"the model tells {classes} classes apart, but labels run up to {int(y.max())}")
    return classes


def correct_under(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    settings: PGD | Search | None,
    *,
    among: Bool[Tensor, "n"] | None = None,
    batch_size: int = 500,
    seed: int = 0,
    classes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Bool[Tensor, "n"]:
    """Which images of those in `among` are still classified correctly under one attack (None: as they are), on the CPU.

    A restart is only spent on images that stand after the one before it.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> correct_under(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), None).shape
        torch.Size([3])
    """
    device = _device(model)
    right = torch.ones(len(x), dtype=torch.bool) if among is None else among.clone()
    if settings is not None and not isinstance(settings, PGD):
        count = classes or _classes(model, x)
        return _searched(settings, model, x, y, right, classes=count, batch_size=batch_size, seed=seed, told=progress)
    once = None if settings is None else replace(settings, restarts=1)
    for restart in range(1 if settings is None else settings.restarts):
        left = right.nonzero().flatten()
        done = 0
        for part in left.split(batch_size):
            images, labels = x[part].to(device), y[part].to(device)
            if once is not None:
                number = ((seed * 1_000 + restart) * 1_000_003 + done) % 2**63
                source = torch.Generator(device).manual_seed(number)
                images = once.perturb(model, images, labels, generator=source)
            with torch.no_grad(), crafting(model):
                logits = model(images)
            # NaN would win every argmax, and so count as an answer.
            right[part] = ((logits.argmax(dim=1) == labels) & ~logits.isnan().any(dim=1)).cpu()
            done += len(part)
            if progress is not None:
                progress(restart * len(left) + done, len(left) * (1 if settings is None else settings.restarts))
    return right


def _searched(
    settings: Search,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    right: Tensor,
    *,
    classes: int,
    batch_size: int,
    seed: int,
    told: Callable[[int, int], None] | None,
) -> Tensor:
    """`right` without the points that a search breaks."""
    left, total = right.nonzero().flatten(), settings.iterations * settings.attempts(classes)
    report = None if told is None else lambda done, _: told(done, total)
    options = {"num_classes": classes, "device": _device(model), "seed": seed, "batch_size": batch_size}
    broken, _ = search(settings, model, x[left], y[left], left, report=report, **options)  # type: ignore[arg-type]
    right[left[broken]] = False
    return right


def _parsed(attacks: Sequence[str], threat: Threat) -> dict[str, list[tuple[str, PGD | Search | None]]]:
    """Each attack once, "clean" first, as the stages it consists of."""
    if isinstance(attacks, str):
        raise UserError(f"attacks must be a list of names, such as {attacks.split(',')}, not the text {attacks!r}")
    return {name: stages(name, threat=threat) for name in dict.fromkeys(["clean", *attacks])}


def _named(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)


def _device(model: nn.Module) -> torch.device:
    tensors: Iterator[Tensor] = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _classes(model: nn.Module, x: Tensor) -> int:
    """How many classes the model tells apart, from what it returns for one image."""
    with torch.no_grad(), crafting(model):
        logits = model(x[:1].to(_device(model)))
    if not isinstance(logits, Tensor):
        raise UserError(f"the model must return a tensor of logits, not {type(logits).__name__}")
    if logits.ndim != 2:
        raise UserError(f"the model returns shape {tuple(logits.shape)} for one image; it must be (1, classes)")
    return int(logits.shape[1])
