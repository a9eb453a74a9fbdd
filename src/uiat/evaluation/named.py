"""Attacks by name, with the budgets that the field compares under."""

import re
from collections.abc import Callable

from uiat.attacks import APGD, FAB, FGSM, PGD, Search, Square
from uiat.errors import nearest
from uiat.threat import Threat

ATTACKS = (
    *("clean", "fgsm", "pgd-K", "pgd-K-R", "cw-K", "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"),
    *("autoattack", "autoattack-quick"),
)
# The standard ensemble, in its order, and its part that finds nearly all there is to find; the latter is no standard.
AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
ENSEMBLES = {"autoattack": AUTOATTACK, "autoattack-quick": AUTOATTACK[:2]}
# Budgets of the standard ensemble (Croce & Hein 2020): 100 iterations, 9 targets, 5,000 queries.
_SEARCHES: dict[str, Callable[[Threat], Search]] = {
    "apgd-ce": lambda threat: APGD(threat=threat, loss="ce"),
    "apgd-dlr": lambda threat: APGD(threat=threat, loss="dlr"),
    "apgd-t": lambda threat: APGD(threat=threat, loss="targeted-dlr"),
    "fab-t": lambda threat: FAB(threat=threat),
    "square": lambda threat: Square(threat=threat),
}


def attack(name: str, *, threat: Threat) -> PGD | Search | None:
    """The attack a name stands for: fgsm, pgd-K, pgd-K-R (R restarts), cw-K (margin loss), apgd-..., fab-t, square.

    None for clean.

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
    if name in _SEARCHES:
        return _SEARCHES[name](threat)
    match = re.fullmatch(r"(pgd|cw)-([1-9]\d*)(?:-([1-9]\d*))?", name)
    if match is None:
        raise nearest("attack", name, ATTACKS)
    steps, restarts = int(match[2]), int(match[3] or 1)
    size = min(2.5 / steps, 1.0) * float(threat.epsilon)
    loss = "ce" if match[1] == "pgd" else "margin"
    return PGD(threat=threat, step_size=size, steps=steps, restarts=restarts, loss=loss)  # type: ignore[arg-type]


def stages(name: str, *, threat: Threat) -> list[tuple[str, PGD | Search | None]]:
    """The attacks that a name runs one after another, each on what still stands; one, except for the ensembles.

    "autoattack" is the standard ensemble of Croce & Hein (2020); "autoattack-quick" is its first two attacks, which
    is no standard.

    Example:
        >>> from uiat.threat import Linf
        >>> [stage for stage, _ in stages("autoattack", threat=Linf("8/255"))]
        ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """
    return [(stage, attack(stage, threat=threat)) for stage in ENSEMBLES.get(name, (name,))]
