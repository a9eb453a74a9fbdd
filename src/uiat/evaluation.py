"""The judge: accuracy under named attacks, and in the worst case over them, per example.

It knows models, images and attacks, and nothing of how a model was trained, so a defence cannot influence its judge.
"""

import itertools
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uiat.attacks import FGSM, PGD
from uiat.checks import check_batch
from uiat.environment import environment
from uiat.errors import UserError, nearest
from uiat.models import check_model
from uiat.modes import crafting
from uiat.threat import Threat

ATTACKS = ("clean", "fgsm", "pgd-K", "pgd-K-R", "cw-K")
# (attack, images done, images in all), called after every batch.
Progress = Callable[[str, int, int], None]


def attack(name: str, *, threat: Threat) -> PGD | None:
    """The attack a name stands for: fgsm, pgd-K, pgd-K-R (R restarts), cw-K (margin loss); None for clean.

    Iterated attacks start uniformly in the ball and take K steps of 2.5 epsilon / K (Madry et al. 2018), which is
    2/255 for 10 steps at 8/255, and return the last iterate, as is usual for published figures.

    Raises:
        UserError: no such attack.

    Example:
        >>> from uiat.threat import Linf
        >>> attack("pgd-50-5", threat=Linf("8/255")).restarts
        5
    """
    if name == "clean":
        return None
    if name == "fgsm":
        return FGSM(threat=threat)
    match = re.fullmatch(r"(pgd|cw)-([1-9]\d*)(?:-([1-9]\d*))?", name)
    if match is None:
        raise nearest("attack", name, ATTACKS)
    steps, restarts = int(match[2]), int(match[3] or 1)
    size = min(2.5 / steps, 1.0) * float(threat.epsilon)
    loss = "ce" if match[1] == "pgd" else "margin"
    return PGD(threat=threat, step_size=size, steps=steps, restarts=restarts, loss=loss)  # type: ignore[arg-type]


@dataclass(frozen=True)
class EvaluationResult:
    """What was measured, on how many images, under which threat model, with what.

    Args:
        threat: as "Linf:0.0313725".
        n: images.
        accuracy: share of images still right, for each attack and in the "worst" case over all of them.
        seconds: time of each attack.
        broken_by: per example, the first attack that broke it; "" for one that stands.
        seed: of the random starts.
        environment: versions and hardware.

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
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, but is {batch_size}")
    check_batch(x, y)
    classes = _classes(model, x)
    check_model(model, x[:4].to(_device(model)), classes)
    if int(y.max()) >= classes:
        raise UserError(f"the model tells {classes} classes apart, but labels run up to {int(y.max())}")
    clean = torch.ones(len(x), dtype=torch.bool)
    standing = clean.clone()
    broken_by = [""] * len(x)
    accuracy, seconds = {}, {}
    for name, settings in parsed:
        start = time.perf_counter()
        key = (seed << 32) + zlib.crc32(name.encode())  # an attack's starts do not depend on which others are asked for
        right = correct_under(
            model, x, y, settings, among=clean, batch_size=batch_size, seed=key, progress=_named(progress, name)
        )
        if settings is None:
            clean = right
        for i in (standing & ~right).nonzero().flatten().tolist():
            broken_by[i] = name
        standing &= right
        accuracy[name], seconds[name] = right.double().mean().item(), time.perf_counter() - start
    accuracy["worst"] = standing.double().mean().item()
    text = f"{threat.norm}:{float(threat.epsilon):.7g}"
    return EvaluationResult(text, len(x), accuracy, seconds, broken_by, seed)


def correct_under(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    settings: PGD | None,
    *,
    among: Bool[Tensor, "n"] | None = None,
    batch_size: int = 500,
    seed: int = 0,
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


def _parsed(attacks: Sequence[str], threat: Threat) -> list[tuple[str, PGD | None]]:
    """Each attack once, "clean" first."""
    if isinstance(attacks, str):
        raise UserError(f"attacks must be a list of names, such as {attacks.split(',')}, not the text {attacks!r}")
    return [(name, attack(name, threat=threat)) for name in dict.fromkeys(["clean", *attacks])]


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
