"""What forbids setting the numbers of different rows beside each other: which rows, and in what they differ."""

from collections.abc import Callable, Sequence

from uiat.report.groups import Group, attacks
from uiat.report.words import threat_text


def cautions(groups: Sequence[Group]) -> list[str]:
    """Why numbers of different rows may not be set beside each other.

    Example:
        >>> cautions([])
        []
    """
    judged = [group for group in groups if group.evaluation is not None]
    found = []
    facts: tuple[tuple[str, str, Callable[[str], str]], ...] = (
        ("data", "data sets", str),
        ("threat", "threat models", threat_text),
        ("n", "numbers of test images", str),
    )
    for key, what, said in facts:
        told = _told(judged, [said(str((group.evaluation or {}).get(key))) for group in judged])
        if told:
            found.append(f"The runs were judged on different {what}: {told}. Such rows do not compare.")
    trained = _told(groups, [str(group.first.setting("data.name")) for group in groups])
    if trained and not any("data sets" in text for text in found):
        found.append(f"The runs were trained on different data sets: {trained}.")
    without = [group.label for group in groups if group.evaluation is None]
    if without:
        found.append(f"Not evaluated, and so without accuracy on test images: {', '.join(without)}.")
    return found + _fewer(judged)


def _told(groups: Sequence[Group], values: Sequence[str]) -> str:
    """Each value and whose it is; empty where all are equal. The most common one of many is that of "all others"."""
    labels: dict[str, list[str]] = {}
    for group, value in zip(groups, values, strict=True):
        labels.setdefault(value, []).append(group.label)
    if len(labels) < 2:
        return ""
    common = max(labels, key=lambda value: len(labels[value]))
    if len(labels[common]) > 3:
        labels[common] = ["all others"]
        labels[common] = labels.pop(common)  # to the end, where "others" makes sense
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in labels.items())


def _fewer(judged: Sequence[Group]) -> list[str]:
    """Rows that were spared attacks: their worst case is over fewer of them."""
    names = attacks(judged)
    spared: dict[str, list[str]] = {}
    for group in judged:
        known = {name for run in group.runs for name in (run.evaluation or {}).get("accuracy", {})}
        missing = ", ".join(name for name in names if name not in known)
        if missing:
            spared.setdefault(missing, []).append(group.label)
    return [
        f"Not judged under {missing}: {', '.join(labels)}. A worst case over fewer attacks may look better than it is."
        for missing, labels in spared.items()
    ]
