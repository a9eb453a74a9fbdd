"""Name the method that a run's settings describe, and give each method one look in all figures and reports."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS, DASHES = 8, 4  # how many every palette has: a slot has colour `slot % COLOURS` and dash `slot // COLOURS`
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")  # by slot as well, in matplotlib's letters
# The slot of a method is its place here, whatever else a figure shows. Those of a column have one colour.
_KNOWN = (
    *("uiat", "pgd-at", "trades", "mart", "standard", "iat", "hat", "n-fgsm"),
    *("uiat-one-off", "pgd-at-awp", "trades-awp", "mlcat", "fgsm", "fgsm-rs", "dhat", "grad-align"),
    *("uiat-awp", "free-4", "score", "gairat", "dkl", "lbgat", "fat", "adr"),
    *("uiat-generator", "free-8", "squeeze", "self-adaptive", "ard", "rslad", "hat-awp", "mart-awp"),
)


def slot_of(method: str) -> int:
    """Return the number from which the colour, dash and marker of a method follow, the same on every page.

    Example:
        >>> slot_of("uiat"), slot_of("pgd-at"), slot_of("my own") == slot_of("my own") < COLOURS * DASHES
        (0, 1, True)
    """
    return _KNOWN.index(method) if method in _KNOWN else zlib.crc32(method.encode()) % (COLOURS * DASHES)


def assign_slots(methods: Sequence[str]) -> list[int]:
    """Return a slot for each row or curve of a page: that of its method; no two of a page are equal.

    The first of a method has the method's own slot. Others of the same method, as in an ablation, and methods unknown
    here whose slot is taken, have the colour with another dash and marker while there is one, then any that is free.

    Args:
        methods: names of methods, as `method_name` gives them.

    Example:
        >>> assign_slots(["pgd-at", "uiat", "uiat"]), assign_slots(["uiat"])
        ([1, 0, 8], [0])
    """
    own = {method: slot_of(method) for method in methods}
    known = [method for method in own if method in _KNOWN]  # these first: none of them gives way to another
    taken: dict[int, int] = {}  # row by slot
    for method in [*known, *(method for method in own if method not in _KNOWN)]:
        taken.setdefault(own[method], methods.index(method))
    slots = {row: slot for slot, row in taken.items()}
    for row, method in enumerate(methods):
        if row not in slots:
            slots[row] = _free_slot(own[method], taken)
            taken[slots[row]] = row
    return [slots[row] for row in range(len(methods))]


def _free_slot(wanted: int, taken: Mapping[int, int]) -> int:
    same_colour = [(wanted + COLOURS * i) % (COLOURS * DASHES) for i in range(1, DASHES)]
    others = range(COLOURS * DASHES + len(taken) + 1)
    return next(slot for slot in [*same_colour, *others] if slot not in taken)


def method_name(config: Mapping[str, Any]) -> str:
    """Return the name under which the method that a run's settings describe is published.

    Example:
        >>> method_name({"objective": {"name": "trades"}, "optimisation": {"awp": 0.005}})
        'trades-awp'
        >>> method_name({"objective": {"name": "pgd-at", "attack": {"steps": 1, "bounded": False}}})
        'n-fgsm'
    """
    objective, optimisation = config.get("objective") or {}, config.get("optimisation") or {}
    base = name = str(objective.get("name"))
    if base == "uiat" and (inverse := objective.get("inverse") or {}):
        base = {"instance": "iat", "generator": "uiat-generator"}.get(str(inverse.get("kind")), base)
        base += "-one-off" if inverse.get("epoch") is not None else ""
    attack = _attack_name(objective, int(optimisation.get("replays") or 0))
    if attack:  # plain adversarial training is named after its attack alone
        base = attack if name == "pgd-at" else f"{attack}-{base}"
    return f"{base}-awp" if optimisation.get("awp") else base


def _attack_name(objective: Mapping[str, Any], replays: int) -> str:
    """Name an inner problem that is solved in fewer passes than PGD's; empty for PGD itself."""
    attack = objective.get("attack") or {}
    if replays:
        return f"free-{replays}"
    if objective.get("alignment"):
        return "grad-align" if attack.get("steps") == 1 else "grad-align-pgd"
    if attack.get("steps") != 1:
        return ""
    if attack.get("start", "uniform") != "uniform":
        return "fgsm"
    return "fgsm-rs" if attack.get("bounded", True) else "n-fgsm"
