"""What a report says in words and numbers, as plain values for the templates."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from uiat.formatting import threat_text
from uiat.report.groups import Group, attack_names, find_differences, spread
from uiat.report.labels import plain
from uiat.report.published import compare
from uiat.runs.reader import RunFiles, leaves


@dataclass(frozen=True)
class Cell:
    """A cell of the summary.

    Args:
        text: what it says.
        value: what it is sorted by.
        hint: what it says when pointed at.
        under: what stands small below it: how far the number can be trusted.
        beside: the published number.
        tone: "agrees", "suspicious", "less" or "".

    Example:
        >>> Cell("50.00", 50.0).tone
        ''
    """

    text: str
    value: float | str
    hint: str = ""
    under: str = ""
    beside: str = ""
    tone: str = ""


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


@dataclass(frozen=True)
class Summary:
    """The table of all groups.

    Args:
        head: headings, each with whether it is of numbers.
        rows: a cell for each heading.
        common: what is the same for all groups and so needs no column: name and value.

    Example:
        >>> Summary([("run", False)], []).common
        ()
    """

    head: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Cell]]
    common: Sequence[tuple[str, str]] = ()


def summary(groups: Sequence[Group]) -> Summary:
    """The table of all groups; facts that do not differ between them are said once, outside of it.

    Example:
        >>> summary([]).head[:2]
        [('run', False), ('self-checks', False)]
    """
    names = attack_names(groups)
    head = [("run", False), *((name, True) for name in names), ("self-checks", False)]
    head += [("training, s", True), ("evaluation, s", True)]
    rows = [_row(group, names) for group in groups]
    facts = [_facts(group) for group in groups]
    common = []
    for name, number in (("n", True), ("seeds", False), ("data", False), ("threat model", False)):
        cells = [fact[name] for fact in facts]
        if cells and all(cell == cells[0] for cell in cells):
            common.append((name, cells[0].text))
            continue
        head.append((name, number))
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    return Summary(head, rows, common)


def _row(group: Group, names: Sequence[str]) -> list[Cell]:
    state = group.verdict if group.evaluation else "not evaluated"
    tone = {"credible": "agrees", "doubtful": "suspicious"}.get(state, "")
    times = [group.training_seconds, group.evaluation_seconds]
    return [
        Cell(group.label, group.label),
        *_accuracies(group, names),
        Cell(state, state, hint=" ".join(group.verdicts), tone=tone),
        *(
            Cell(spread(seconds, 0 if max(seconds) >= 100 else 1), sum(seconds) / len(seconds))
            if any(seconds)
            else _DASH
            for seconds in times
        ),
    ]


def _facts(group: Group) -> dict[str, Cell]:
    """What the accuracies are of."""
    result = group.evaluation or {}
    data = str(result.get("data") or group.first.setting("data.name", "?"))
    threat = threat_text(str(result.get("threat"))) if result else "–"
    texts = {"seeds": group.seeds, "data": data, "threat model": threat}
    n = Cell(f"{result['n']:,}", result["n"]) if result else _DASH
    return {"n": n} | {name: Cell(text, text) for name, text in texts.items()}


def _accuracies(group: Group, names: Sequence[str]) -> Iterator[Cell]:
    published = compare(group)
    for name in names:
        values, beside = group.values(name), published.get(name)
        if not values:
            yield _DASH
            continue
        told, tone = ("", "") if beside is None else (beside.short, beside.tone)
        yield Cell(spread(values), sum(values) / len(values), under=_trust(group, name), beside=told, tone=tone)


_DASH = Cell("–", -1.0)


def _trust(group: Group, name: str) -> str:
    """The ends of the 95 % interval of a single run; the values of several."""
    edges = (group.evaluation or {}).get("intervals", {}).get(name)
    if len(group.runs) > 1:
        return ", ".join(f"{value:.2f}" for value in group.values(name))
    if not isinstance(edges, list) or len(edges) != 2:
        return ""
    return f"{100 * edges[0]:.1f}–{100 * edges[1]:.1f}"


def published(groups: Sequence[Group]) -> list[str]:
    """A sentence for each number that others have published one for.

    Example:
        >>> published([])
        []
    """
    lines = []
    for group in groups:
        for one in compare(group).values():
            lines.append(
                f"{group.label}, {one.attack}: yours {one.value:.1f}, published {one.published.text} "
                f"(tolerance {one.tolerance:.1f}; {one.published.source}): {one.judgement}"
            )
    return lines


def describe_differences(groups: Sequence[Group]) -> tuple[list[list[str]], list[str]]:
    """The settings in which groups differ, and those that only some groups have, equal in all that have them.

    Returns:
        Rows of the field and its value in each group, a dash where the method has no such field; and sentences.

    Example:
        >>> describe_differences([])
        ([], [])
    """
    known = [dict(leaves(group.first.config)) for group in groups]
    rows, partly = [], []
    for path, _ in find_differences([group.first for group in groups]):
        having = [settings[path] for settings in known if path in settings]
        if all(value == having[0] for value in having):
            partly.append(f"{path} = {plain(having[0])}")
        else:
            rows.append([path, *(plain(settings[path]) if path in settings else "–" for settings in known)])
    return rows, partly


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
                said.setdefault(plain(value), []).append(run.folder.name)
        told = [value if len(said) == 1 else f"{value} ({', '.join(names)})" for value, names in said.items()]
        rows.append((key.replace("_", " "), "; ".join(told) or "none"))
    return rows


def find_warnings(groups: Sequence[Group]) -> list[str]:
    """Why numbers of different rows may not be set beside each other.

    Example:
        >>> find_warnings([])
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
    names = attack_names(judged)
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
