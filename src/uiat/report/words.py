"""Names and values as people write them."""

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape


def threat_text(threat: str) -> str:
    """A threat model for people: a radius in Linf as a fraction of 255 where it is one.

    Example:
        >>> threat_text("Linf:0.03137255"), threat_text("L2:0.5"), threat_text("Linf:0.2")
        ('Linf 8/255', 'L2 0.5', 'Linf 0.2')
    """
    norm, _, radius = threat.partition(":")
    try:
        pixels, number = 255 * float(radius), f"{float(radius):.4g}"
    except ValueError:
        return threat
    if norm == "Linf" and round(pixels) > 0 and abs(pixels - round(pixels)) < 1e-3 and len(number) > 4:
        number = f"{round(pixels)}/255"
    return f"{norm} {number}"


def plain(value: Any) -> str:
    """A setting as it stands in YAML, a word without quotes.

    Example:
        >>> plain("ema"), plain(True), plain([1, 2]), plain(None)
        ('ema', 'true', '[1, 2]', 'none')
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)


# First words of methods' names, in which a beginning may not end: "pgd-at" is not to be told as "at".
METHODS = {"standard", "pgd", "trades", "mart", "iat", "uiat", "fgsm", "n", "grad", "free"}


def beginning(names: Sequence[str]) -> str:
    """What different names begin with, up to a hyphen and before the name of a method.

    Example:
        >>> beginning(["cifar10-small-uiat", "cifar10-small-uiat-one-off", "cifar10-small-mart"])
        'cifar10-small-'
        >>> beginning(["digits-pgd-at", "digits-pgd-at-awp"]), beginning(["uiat", "uiat"])
        ('digits-', '')
    """
    shared: list[str] = []
    for parts in zip(*(name.split("-")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1 or parts[0] in METHODS:
            break
        shared.append(parts[0] + "-")
    return "".join(shared) if len(set(names)) > 1 else ""


def dotted(path: str) -> Markup:
    """A dotted path that a line may break after a dot or an underscore, and nowhere else.

    Example:
        >>> dotted("data.batch_size")
        Markup('data.<wbr>batch_<wbr>size')
    """
    return Markup(escape(path).replace(".", Markup(".<wbr>")).replace("_", Markup("_<wbr>")))
