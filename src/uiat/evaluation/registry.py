"""Attacks by name, with the budgets that the field compares under."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from uiat.attacks import APGD, FAB, FGSM, FMN, PGD, Noise, Search, SparseAPGD, Square, Transfer
from uiat.errors import UserError, nearest
from uiat.threat import Threat

ATTACKS = (
    *("clean", "fgsm", "pgd-K", "pgd-K-R", "cw-K", "cw-K-R", "noise-R", "fmn-K", "transfer"),
    *("apgd-ce", "apgd-dlr", "apgd-t", "apgd-ce-eot-D", "apgd-dlr-eot-D", "fab", "fab-t", "square"),
    *("autoattack", "autoattack-plus", "autoattack-rand", "autoattack-quick"),
)
# The standard ensemble in its order, and its part that finds nearly all there is to find; the latter is no standard.
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
ENSEMBLES = {
    "autoattack": AUTOATTACK,
    "autoattack-plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "autoattack-rand": ("apgd-ce", "apgd-dlr"),
    "autoattack-quick": AUTOATTACK[:2],
}
# Where an ensemble's stage is not the attack of its name: "plus" restarts, "rand" averages over the model's answers.
_OTHERWISE: dict[tuple[str, str], dict[str, int]] = {
    ("autoattack-plus", "apgd-ce"): {"restarts": 5},
    ("autoattack-plus", "apgd-dlr"): {"restarts": 5},
    ("autoattack-plus", "apgd-t"): {"targets": 9},
    ("autoattack-rand", "apgd-ce"): {"restarts": 1, "draws": 20},
    ("autoattack-rand", "apgd-dlr"): {"restarts": 1, "draws": 20},
}

# Attacks that need no gradient of the model, by the beginning of their names.
GRADIENT_FREE = ("clean", "square", "noise", "transfer")


def _climb(threat: Threat, **settings: Any) -> Search:
    """Auto-PGD: 100 iterations and 9 targets, for L1 five restarts or five targets (Croce & Hein 2020, 2021)."""
    if threat.norm != "L1":
        return APGD(threat=threat, **settings)
    restarts = 1 if settings["loss"] == "targeted-dlr" else 5
    return SparseAPGD(threat=threat, **{"restarts": restarts, "targets": 5, **settings})


# Budgets of the standard ensemble: 100 iterations, 9 targets, 5,000 queries; FAB without targets is in "plus" alone.
_SEARCHES: dict[str, Callable[[Threat], Search]] = {
    "apgd-ce": lambda threat: _climb(threat, loss="ce"),
    "apgd-dlr": lambda threat: _climb(threat, loss="dlr"),
    "apgd-t": lambda threat: _climb(threat, loss="targeted-dlr"),
    "fab": lambda threat: FAB(threat=threat, targeted=False, restarts=5),
    "fab-t": lambda threat: FAB(threat=threat),
    "square": lambda threat: Square(threat=threat, stretched=False),
}


def attack(name: str, *, threat: Threat, source: nn.Module | None = None) -> PGD | Search | None:
    """The attack a name stands for; None for clean.

    fgsm, pgd-K, pgd-K-R (R restarts), cw-K (margin loss), noise-R (R draws), fmn-K, apgd-ce, apgd-dlr, apgd-t, fab,
    fab-t, square, apgd-ce-eot-D (mean over D answers of a randomised model), and transfer (from the model `source`).

    PGD starts uniformly in the ball, takes K steps of 2.5 epsilon / K (Madry et al. 2018), which is 2/255 for 10 steps
    at 8/255, and returns the last iterate, as is usual for published figures.

    Raises:
        UserError: no such attack, or a transfer without a model to transfer from.

    Example:
        >>> from uiat.threat import Linf
        >>> attack("pgd-50-5", threat=Linf("8/255")).restarts
        5
    """
    if name == "clean":
        return None
    if name == "fgsm":
        return FGSM(threat=threat)
    if name in _SEARCHES:
        return _SEARCHES[name](threat)
    if name == "transfer":
        if source is None:
            raise UserError('the attack "transfer" needs a second model to make its examples on')
        return Transfer(source=source, threat=threat)
    if match := re.fullmatch(r"(apgd-ce|apgd-dlr)-eot-([1-9]\d*)", name):
        return _with_settings(_SEARCHES[match[1]](threat), restarts=1, draws=int(match[2]))
    if match := re.fullmatch(r"(noise|fmn)-([1-9]\d*)", name):
        kind: type[Noise] | type[FMN] = Noise if match[1] == "noise" else FMN
        return kind(threat=threat, iterations=int(match[2]))
    if match := re.fullmatch(r"(pgd|cw)-([1-9]\d*)(?:-([1-9]\d*))?", name):
        return _pgd(match[1], threat, steps=int(match[2]), restarts=int(match[3] or 1))
    raise nearest("attack", name, ATTACKS)


def _pgd(kind: str, threat: Threat, *, steps: int, restarts: int) -> PGD:
    size = min(2.5 / steps, 1.0) * float(threat.epsilon)
    loss = "ce" if kind == "pgd" else "margin"
    return PGD(threat=threat, step_size=size, steps=steps, restarts=restarts, loss=loss)  # type: ignore[arg-type]


def _with_settings(search: Search, **changes: int) -> Search:
    """The same search with other settings."""
    as_dataclass: Any = search
    found: Search = replace(as_dataclass, **changes)
    return found


def stages(name: str, *, threat: Threat, source: nn.Module | None = None) -> list[tuple[str, PGD | Search | None]]:
    """The attacks that a name runs one after another, each on what still stands; one, except for the ensembles.

    "autoattack" is the standard ensemble of Croce & Hein (2020), for L1 of Croce & Hein (2021); "autoattack-plus" and
    "autoattack-rand" (for randomised defences) are the versions of its reference implementation. "autoattack-quick"
    is the first two attacks of the standard one, which is no standard.

    Example:
        >>> from uiat.threat import Linf
        >>> [stage for stage, _ in stages("autoattack", threat=Linf("8/255"))]
        ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """
    if name not in ENSEMBLES:
        return [(name, attack(name, threat=threat, source=source))]
    found: dict[str, Search] = {stage: _SEARCHES[stage](threat) for stage in ENSEMBLES[name]}
    return [(stage, _with_settings(search, **_OTHERWISE.get((name, stage), {}))) for stage, search in found.items()]
