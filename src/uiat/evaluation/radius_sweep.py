"""Accuracy as the radius grows, and as an adversary who helps is given more room: one attack at many strengths."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uiat.attacks import PGD, Search
from uiat.checks import check_batch
from uiat.errors import UserError
from uiat.evaluation.engine.stage import correct_under
from uiat.evaluation.registry import stages
from uiat.models.inspect import classes_of
from uiat.threat import NORMS, Threat, number, require


@dataclass(frozen=True)
class SweepResult:
    """Accuracy at each strength, ascending; below 0 the strength of an inverse attack, which helps the model.

    Args:
        norm: of the perturbations.
        attack: its name.
        epsilons: the strengths, in units of the image range [0, 1].
        accuracy: share of images right at each.
        seconds: time spent at each.
        n: images.
        broken_at: per example, the smallest strength of at least 0 at which it is wrong; None for one that stands.
        seed: of the random starts.

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

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return dict(vars(self))


def epsilons(values: str | Sequence[float | str]) -> list[float]:
    """Strengths in ascending order, from numbers or fractions, or from their text; "..." goes on in equal steps.

    Raises:
        UserError: not a number, out of order, twice the same, or "..." that does not lead to what follows it.

    Example:
        >>> [round(255 * e) for e in epsilons("-4/255,0,2/255,4/255,...,8/255")]
        [-4, 0, 2, 4, 6, 8]
    """
    words = [word.strip() for word in values.split(",")] if isinstance(values, str) else list(values)
    found: list[float] = []
    for i, word in enumerate(words):
        if word == "...":
            if len(found) < 2 or i + 1 == len(words):
                raise UserError('"..." in a list of epsilons needs two of them before it and one after it')
            found += _between(found[-2], found[-1], _signed(words[i + 1]))
        else:
            found.append(_signed(word))
    if not found:
        raise UserError("the list of epsilons is empty")
    for before, after in itertools.pairwise(found):
        if after == before:
            raise UserError(f"epsilon {after:.7g} stands in the list twice")
        if after < before:
            raise UserError(f"epsilons must ascend, but {after:.7g} comes after {before:.7g}")
    return found


def _signed(word: float | str) -> float:
    if isinstance(word, str):
        word = word.strip()
        return -number(word[1:]) if word.startswith("-") else number(word)
    return -number(-word) if word < 0 else number(word)


def _between(first: float, second: float, last: float) -> list[float]:
    """What "first, second, ..., last" leaves out."""
    step = second - first
    count = round((last - second) / step) if step else 0
    if count < 1 or abs(second + count * step - last) > 1e-3 * abs(step):
        raise UserError(
            f'"..." after {first:.7g}, {second:.7g} goes on in steps of {step:.7g} and does not reach {last:.7g}'
        )
    return [second + i * step for i in range(1, count)]


_epsilons = epsilons  # an argument of what follows has the same name


def sweep_plan(
    epsilons: str | Sequence[float | str], *, attack: str, threat: Threat
) -> dict[float, list[PGD | Search | None]]:
    """What a sweep runs at each strength: the stages of the attack, or nothing at 0; refuses what `sweep` refuses.

    Example:
        >>> from uiat.threat import Linf
        >>> [len(stages) for stages in sweep_plan("0,0.1", attack="autoattack-quick", threat=Linf(0.1)).values()]
        [0, 2]
    """
    require(threat)
    return {e: _plan(attack, threat, e) if e else [] for e in _epsilons(epsilons)}


def _plan(attack: str, threat: Threat, epsilon: float) -> list[PGD | Search | None]:
    """The stages of the attack at one strength; of an inverse attack where it is below 0."""
    parts = [settings for _, settings in stages(attack, threat=NORMS[threat.norm](abs(epsilon)))]
    if parts == [None]:
        raise UserError('a sweep needs an attack such as "pgd-20": "clean" is what its epsilon 0 is')
    if epsilon < 0 and not (len(parts) == 1 and isinstance(parts[0], PGD)):
        raise UserError(f"epsilon {epsilon:.7g} is an inverse attack, which is pgd-K, cw-K or fgsm and not {attack}")
    return parts


def sweep(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    *,
    threat: Threat,
    epsilons: str | Sequence[float | str],
    attack: str = "pgd-20",
    batch_size: int = 500,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> SweepResult:
    """Accuracy under one attack at each of several strengths.

    From 0 outwards, so that each strength has only to do what the smaller ones have not: an image that is wrong at a
    smaller radius is wrong at the larger, in whose ball its adversarial example lies. Below 0 the attack lowers the
    loss (an inverse adversary), and an image that is made right at a smaller strength is right at the larger.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1].
        y: labels, int64.
        threat: its norm is used, and not its radius.
        epsilons: strengths in ascending order, see `epsilons`; 0 is the images as they are.
        attack: a name, see `attack`; pgd-K, cw-K or fgsm where a strength is below 0.
        batch_size: images at a time.
        seed: of the random starts.
        progress: called after every batch with "epsilon ...", images or iterations done, of how many.

    Raises:
        UserError: epsilons out of order or in pixel values, an unknown attack, images or labels that do not fit.

    Example:
        >>> from uiat.threat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
        >>> result = sweep(model, x, y, threat=Linf(0.1), epsilons="-0.1,0,0.1,0.2", attack="pgd-2")
        >>> result.accuracy == sorted(result.accuracy, reverse=True)
        True
    """
    plans = sweep_plan(epsilons, attack=attack, threat=threat)
    strengths = list(plans)
    check_batch(x, y, num_classes=classes_of(model, x))
    run = _Sweep(model, x, y, {"batch_size": batch_size, "seed": seed}, progress)
    started = time.perf_counter()
    clean = run.correct("epsilon 0", [None], among=torch.ones(len(x), dtype=torch.bool))
    right, seconds = {0.0: clean}, {0.0: time.perf_counter() - started}
    for side in ([e for e in strengths if e > 0], [e for e in reversed(strengths) if e < 0]):
        last = clean
        for e in side:
            started, name = time.perf_counter(), f"epsilon {e:.7g}"
            last = run.correct(name, plans[e], among=last) if e > 0 else run.helped(name, plans[e], already=last)
            right[e], seconds[e] = last, time.perf_counter() - started
    accuracy = [right[e].double().mean().item() for e in strengths]
    broken = _broken_at({e: right[e] for e in sorted({0.0, *strengths}) if e >= 0})
    times = [seconds[e] for e in strengths]
    return SweepResult(threat.norm, attack, strengths, accuracy, times, len(x), broken, seed)


@dataclass(frozen=True)
class _Sweep:
    """What every strength of a sweep shares."""

    model: nn.Module
    x: Tensor
    y: Tensor
    options: dict[str, Any]
    progress: Callable[[str, int, int], None] | None

    def correct(self, name: str, attacks: Sequence[Any], *, among: Tensor, seed: int | None = None) -> Tensor:
        """Which of `among` are right under all of the attacks."""
        options = self.options if seed is None else self.options | {"seed": seed}
        told = self.progress
        report = None if told is None else lambda done, total: told(name, done, total)
        for settings in attacks:
            if not bool(among.any()):
                break
            among = correct_under(self.model, self.x, self.y, settings, among=among, progress=report, **options)
        return among

    def helped(self, name: str, attacks: Sequence[Any], *, already: Tensor) -> Tensor:
        """Which are right already, or made right by an inverse attack; a restart is spent on the rest alone."""
        (settings,) = attacks
        once = [replace(settings, restarts=1, descend=True)]
        for restart in range(settings.restarts):
            seed = self.options["seed"] + (restart << 40)
            already = already | self.correct(name, once, among=~already, seed=seed)
        return already


def _broken_at(right: dict[float, Tensor]) -> list[float | None]:
    """Per example, the first of the ascending strengths at which it is not right."""
    found: list[float | None] = [None] * len(next(iter(right.values())))
    for epsilon in reversed(right):
        for i in (~right[epsilon]).nonzero().flatten().tolist():
            found[i] = epsilon
    return found
