"""Accuracy as a function of the radius, of an attack or (below zero) of an inverse attack."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from uiat.attacks import PGD
from uiat.checks import Count, check_batch, checked, checked_fields, number
from uiat.errors import UserError
from uiat.evaluation.engine.stage import correct_under
from uiat.evaluation.listener import Progress
from uiat.evaluation.registry import Settings, stages
from uiat.formatting import Summary, percent, radius_text
from uiat.models.inspect import Target
from uiat.shapes import Float, Int
from uiat.system.surroundings import neutral_surroundings
from uiat.threat import NORMS, Threat

MOST_RADII = 1_000


@checked_fields
@dataclass(frozen=True)
class SweepResult:
    """Accuracy at each radius, ascending; below 0 is that of an inverse attack, which lowers the loss.

    Args:
        norm: norm of the perturbations.
        attack: name of the attack.
        epsilons: the radii, in units of the image range [0, 1].
        accuracy: fraction of images classified correctly at each radius.
        seconds: time spent at each radius.
        n: number of images.
        broken_at: for each image, the smallest radius of at least 0 at which it is wrong; None for a robust one.
        seed: seed of the random starts.

    Example:
        >>> SweepResult("Linf", "pgd-20", [0.0, 0.1], [1.0, 0.5], [0.1, 0.9], 2, [None, 0.1], 0).accuracy[-1]
        0.5
    """

    norm: str
    attack: str
    epsilons: list[float]
    accuracy: list[float]
    seconds: list[float]
    n: int
    broken_at: list[float | None]
    seed: int

    def __repr__(self) -> str:
        return self.summary().text

    def _repr_html_(self) -> str:
        return self.summary().html

    def summary(self) -> Summary:
        """Return what `print` shows: the accuracy at each radius.

        Example:
            >>> print(SweepResult("Linf", "pgd-20", [0.0, 8 / 255], [1.0, 0.5], [0.1, 0.9], 2, [None, 0.1], 0))
            pgd-20 at each radius, Linf, 2 images, seed 0
            radius  accuracy
            0       100.00 %
            8/255    50.00 %
        """
        values = zip(self.epsilons, self.accuracy, strict=True)
        rows = [(radius_text(self.norm, epsilon), percent(accuracy)) for epsilon, accuracy in values]
        title = f"{self.attack} at each radius, {self.norm}, {self.n:,} images, seed {self.seed}"
        return Summary(title, [("radius", "accuracy"), *rows])

    def to_json(self) -> dict[str, Any]:
        """Return plain values, in the order of the fields."""
        return dict(vars(self))


@checked
def epsilons(values: str | Sequence[float | str]) -> list[float]:
    """Parse radii in ascending order, from numbers or fractions, or from their text; "..." continues in equal steps.

    Raises:
        UserError: not a number, out of order, twice the same, or "..." that does not lead to what follows it.

    Example:
        >>> [round(255 * e) for e in epsilons("-4/255,0,2/255,4/255,...,8/255")]
        [-4, 0, 2, 4, 6, 8]
    """
    words = [word.strip() for word in values.split(",")] if isinstance(values, str) else list(values)
    radii: list[float] = []
    for i, word in enumerate(words):
        if word == "...":
            if len(radii) < 2 or i + 1 == len(words):
                raise UserError('"..." in a list of epsilons needs two of them before it and one after it')
            radii += _between(radii[-2], radii[-1], _parse_signed(words[i + 1]))
        else:
            radii.append(_parse_signed(word))
    if not radii:
        raise UserError("the list of epsilons is empty")
    for before, after in itertools.pairwise(radii):
        if after == before:
            raise UserError(f"epsilon {after:.7g} is in the list twice")
        if after < before:
            raise UserError(f"epsilons must ascend, but {after:.7g} comes after {before:.7g}")
    return radii


def _parse_signed(word: float | str) -> float:
    if isinstance(word, str):
        word = word.strip()
        return -number(word[1:]) if word.startswith("-") else number(word)
    return -number(-word) if word < 0 else number(word)


def _between(first: float, second: float, last: float) -> list[float]:
    """Return the radii that "first, second, ..., last" leaves out."""
    step = second - first
    count = round((last - second) / step) if step else 0
    if count < 1 or abs(second + count * step - last) > 1e-3 * abs(step):
        raise UserError(
            f'"..." after {first:.7g}, {second:.7g} continues in steps of {step:.7g} and does not reach {last:.7g}'
        )
    if count > MOST_RADII:
        raise UserError(f'"..." after {first:.7g}, {second:.7g} stands for {count:,} radii: at most {MOST_RADII:,}')
    return [second + i * step for i in range(1, count)]


_epsilons = epsilons  # an argument of what follows has the same name


def sweep_plan(epsilons: str | Sequence[float | str], *, attack: str, threat: Threat) -> dict[float, list[Settings]]:
    """Plan a sweep: the stages of the attack at each radius, nothing at 0; refuse what `radius_sweep` refuses.

    Example:
        >>> from uiat.threat import Linf
        >>> [len(stages) for stages in sweep_plan("0,0.1", attack="autoattack-quick", threat=Linf(0.1)).values()]
        [0, 2]
    """
    return {e: _plan_radius(attack, threat, e) if e else [] for e in _epsilons(epsilons)}


def _plan_radius(attack: str, threat: Threat, epsilon: float) -> list[Settings]:
    """Return the stages of the attack at one radius; below 0, refuse what is no inverse attack."""
    parts = [settings for _, settings in stages(attack, threat=NORMS[threat.norm](abs(epsilon)))]
    if parts == [None]:
        raise UserError('a sweep needs an attack such as "pgd-20": "clean" is what its epsilon 0 is')
    if epsilon < 0 and not (len(parts) == 1 and isinstance(parts[0], PGD)):
        raise UserError(f"epsilon {epsilon:.7g} is an inverse attack, which is pgd-K, cw-K or fgsm and not {attack}")
    return parts


@checked
@neutral_surroundings()
def radius_sweep(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    *,
    threat: Threat,
    epsilons: str | Sequence[float | str],
    attack: str = "pgd-20",
    batch_size: Count = 500,
    seed: int = 0,
    progress: Progress | None = None,
) -> SweepResult:
    """Compute the accuracy under one attack at each of several radii.

    From 0 outwards, so that each radius has only to do what the smaller ones have not: an image that is wrong at a
    smaller radius is wrong at the larger, in whose ball its adversarial example lies. Below 0 the attack lowers the
    loss (an inverse adversary), and an image that is correct at a smaller radius is correct at the larger.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1].
        y: labels, int64.
        threat: its norm is used, and not its radius.
        epsilons: radii in ascending order, see `epsilons`; 0 is the images as they are.
        attack: name of the attack, see `uiat.evaluation.attack`; pgd-K, cw-K or fgsm where a radius is below 0.
        batch_size: images at a time.
        seed: seed of the random starts.
        progress: called after every batch with ("epsilon ...", images or iterations done, of how many).

    Raises:
        UserError: epsilons out of order or in pixel values, an unknown attack, images or labels that do not fit.

    Example:
        >>> from uiat.threat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
        >>> result = radius_sweep(model, x, y, threat=Linf(0.1), epsilons="-0.1,0,0.1,0.2", attack="pgd-2")
        >>> result.accuracy == sorted(result.accuracy, reverse=True)
        True
    """
    plans, target = sweep_plan(epsilons, attack=attack, threat=threat), Target(model, x)
    check_batch(x, y, num_classes=target.classes)
    run = _Sweep(target, x, y, batch_size, seed, progress)
    started = time.perf_counter()
    clean = run.find_correct("epsilon 0", [None], mask=torch.ones(len(x), dtype=torch.bool))
    correct, seconds = {0.0: clean}, {0.0: time.perf_counter() - started}
    radii = list(plans)
    for side in ([e for e in radii if e > 0], [e for e in reversed(radii) if e < 0]):
        last = clean
        for e in side:
            started, name = time.perf_counter(), f"epsilon {e:.7g}"
            if e > 0:
                last = run.find_correct(name, plans[e], mask=last)
            else:
                last = run.find_corrected(name, plans[e], correct=last)
            correct[e], seconds[e] = last, time.perf_counter() - started
    accuracy = [correct[e].double().mean().item() for e in radii]
    broken = _broken_at({e: correct[e] for e in sorted({0.0, *radii}) if e >= 0})
    return SweepResult(threat.norm, attack, radii, accuracy, [seconds[e] for e in radii], len(x), broken, seed)


@dataclass(frozen=True)
class _Sweep:
    """A sweep under way: the model, the images and the settings of all its radii."""

    target: Target
    x: Tensor
    y: Tensor
    batch_size: int
    seed: int
    progress: Progress | None

    def find_correct(self, name: str, attacks: Sequence[Any], *, mask: Tensor, seed: int | None = None) -> Tensor:
        """Return a mask of the images in `mask` that are correct under all of the attacks."""
        for settings in attacks:
            if not bool(mask.any()):
                break
            mask = correct_under(
                self.target.model,
                self.x,
                self.y,
                settings,
                mask=mask,
                batch_size=self.batch_size,
                seed=self.seed if seed is None else seed,
                classes=self.target.classes,
                progress=None if self.progress is None else partial(self.progress, name),
            )
        return mask

    def find_corrected(self, name: str, attacks: Sequence[Any], *, correct: Tensor) -> Tensor:
        """Return a mask of the images that are correct already or become so by an inverse attack.

        Each restart is spent on the wrong images alone.
        """
        (settings,) = attacks
        once = [replace(settings, restarts=1, descend=True)]
        for restart in range(settings.restarts):
            seed = self.seed + (restart << 40)
            correct = correct | self.find_correct(name, once, mask=~correct, seed=seed)
        return correct


def _broken_at(correct: dict[float, Tensor]) -> list[float | None]:
    """Return, for each image, the first of the ascending radii at which it is not correct."""
    broken: list[float | None] = [None] * len(next(iter(correct.values())))
    for epsilon in reversed(correct):
        for i in (~correct[epsilon]).nonzero().flatten().tolist():
            broken[i] = epsilon
    return broken
