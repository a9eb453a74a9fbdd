"""What a report says in words and numbers, as plain values for the templates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from uiat.report.groups import Group, attacks, different, spread
from uiat.report.reading import RunFiles
from uiat.report.references import compared


@dataclass(frozen=True)
class Cell:
    """A cell of the summary.

    Args:
        text: what it says.
        value: what it is sorted by.
        hint: what it says when pointed at.
        beside: the published number.
        tone: "agrees", "suspicious", "less" or "".

    Example:
        >>> Cell("50.00", 50.0).tone
        ''
    """

    text: str
    value: float | str
    hint: str = ""
    beside: str = ""
    tone: str = ""


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


def verdicts(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """What the self-checks said, each text once, and of which groups.

    Example:
        >>> verdicts([])
        []
    """
    said: dict[str, list[str]] = {}
    for group in groups:
        for text in group.verdicts:
            said.setdefault(text, []).append(group.label)
    return [(", ".join(labels), text) for text, labels in said.items()]


def summary(groups: Sequence[Group]) -> tuple[list[tuple[str, bool]], list[list[Cell]]]:
    """Headings, each with whether it is of numbers, and the rows of the table of all groups.

    Example:
        >>> summary([])[0][:2]
        [('run', False), ('self-checks', False)]
    """
    names = attacks(groups)
    numbers = [(name, True) for name in names]
    facts = [("n", True), ("seeds", False), ("data", False), ("threat model", False)]
    costs = [("training, s", True), ("evaluation, s", True)]
    head = [("run", False), *numbers, ("self-checks", False), *costs, *facts]
    return head, [_row(group, names) for group in groups]


def _row(group: Group, names: Sequence[str]) -> list[Cell]:
    result = group.evaluation or {}
    state = group.verdict if result else "not evaluated"
    tone = {"credible": "agrees", "doubtful": "suspicious"}.get(state, "")
    threat = threat_text(str(result.get("threat"))) if result else "–"
    facts = [group.seeds, str(result.get("data") or group.first.setting("data.name", "?")), threat]
    times = [group.training_seconds, group.evaluation_seconds]
    return [
        Cell(group.label, group.label),
        *_accuracies(group, names),
        Cell(state, state, " ".join(group.verdicts), "", tone),
        *(
            Cell(spread(seconds, 0 if max(seconds) >= 100 else 1), sum(seconds) / len(seconds))
            if any(seconds)
            else _DASH
            for seconds in times
        ),
        Cell(f"{result['n']:,}", result["n"]) if result else _DASH,
        *(Cell(text, text) for text in facts),
    ]


def _accuracies(group: Group, names: Sequence[str]) -> Iterator[Cell]:
    published = compared(group)
    for name in names:
        values, beside = group.values(name), published.get(name)
        if not values:
            yield _DASH
            continue
        told = "" if beside is None else beside.short
        tone = "" if beside is None else beside.tone
        yield Cell(spread(values), sum(values) / len(values), _interval(group, name), told, tone)


_DASH = Cell("–", -1.0)


def _interval(group: Group, name: str) -> str:
    edges = (group.evaluation or {}).get("intervals", {}).get(name)
    if len(group.runs) > 1 or not isinstance(edges, list) or len(edges) != 2:
        return ", ".join(f"{value:.2f}" for value in group.values(name))
    return f"95 % interval {100 * edges[0]:.2f} to {100 * edges[1]:.2f}"


def published(groups: Sequence[Group]) -> list[str]:
    """A sentence for each number that others have published one for.

    Example:
        >>> published([])
        []
    """
    lines = []
    for group in groups:
        for one in compared(group).values():
            lines.append(
                f"{group.label}, {one.attack}: yours {one.value:.1f}, published {one.published.text} "
                f"(tolerance {one.tolerance:.1f}; {one.published.source}): {one.judgement}"
            )
    return lines


def differences(groups: Sequence[Group]) -> list[list[str]]:
    """The settings in which the groups differ: the field, then the value in each.

    Example:
        >>> differences([])
        []
    """
    rows = different([group.first for group in groups]) if groups else []
    return [[path, *("–" if value is None else _plain(value) for value in values)] for path, values in rows]


def _plain(value: Any) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value).lower()
        if value in (True, False)
        else str(value)
    )


def environments(runs: Sequence[RunFiles]) -> list[tuple[str, str]]:
    """Versions and hardware: once where it is the same for all runs that say it, otherwise with the runs' folders.

    Example:
        >>> from pathlib import Path
        >>> environments([RunFiles(Path("a"), {}, {"torch": "2.14"}), RunFiles(Path("b"), {}, {"torch": "2.15"})])
        [('torch', '2.14 (a); 2.15 (b)')]
    """
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.environment):
        said: dict[str, list[str]] = {}
        for run in runs:
            value = run.environment.get(key)
            if value not in (None, []):
                said.setdefault(_plain(value), []).append(run.folder.name)
        told = [value if len(said) == 1 else f"{value} ({', '.join(names)})" for value, names in said.items()]
        rows.append((key.replace("_", " "), "; ".join(told) or "none"))
    return rows
