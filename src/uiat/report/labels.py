"""Names and values as people write them."""

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape


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
