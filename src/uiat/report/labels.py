"""Write names of runs, and values of settings, as people write them."""

import json
from collections.abc import Container, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from uiat.runs.methods import method_name


def plain(value: Any) -> str:
    """Write a setting as it stands in YAML, a word without quotes.

    Example:
        >>> plain("ema"), plain(True), plain([1, 2]), plain(None)
        ('ema', 'true', '[1, 2]', 'none')
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def method_words(config: Mapping[str, Any]) -> set[str]:
    """Return the words with which the name of a run's method may begin.

    Example:
        >>> sorted(method_words({"objective": {"name": "pgd-at", "attack": {"steps": 1}}}))
        ['fgsm', 'pgd']
    """
    objective = str((config.get("objective") or {}).get("name"))
    return {name.split("-")[0] for name in (objective, method_name(config))}


def common_beginning(names: Sequence[str], methods: Container[str]) -> str:
    """Return what different names begin with, up to a hyphen and before the name of a method.

    Args:
        names: names of runs.
        methods: first words of the methods' names, before which the beginning ends: "pgd-at" must not become "at".

    Example:
        >>> common_beginning(["cifar10-small-uiat", "cifar10-small-uiat-one-off"], {"uiat"})
        'cifar10-small-'
        >>> common_beginning(["digits-pgd-at", "digits-pgd-at-awp"], {"pgd"}), common_beginning(["uiat", "uiat"], {})
        ('digits-', '')
    """
    shared: list[str] = []
    for words in zip(*(name.split("-")[:-1] for name in names), strict=False):
        if len(set(words)) > 1 or words[0] in methods:
            break
        shared.append(words[0] + "-")
    return "".join(shared) if len(set(names)) > 1 else ""


def dotted(path: str) -> Markup:
    """Mark up a dotted path so that a line may break after a dot or an underscore, and nowhere else.

    Example:
        >>> dotted("data.batch_size")
        Markup('data.<wbr>batch_<wbr>size')
    """
    return Markup(escape(path).replace(".", Markup(".<wbr>")).replace("_", Markup("_<wbr>")))
