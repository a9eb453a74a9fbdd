"""The summary: a table of all runs, why some of them do not compare, and what published numbers and self-checks say."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from markupsafe import Markup, escape

from uiat.formatting import spread, threat_text
from uiat.markup import markdown_code, markdown_text
from uiat.report.groups import Group, attack_names, shared_beginning
from uiat.report.inputs import Inputs
from uiat.report.published import compare
from uiat.report.scores import BOLD, Score, score_groups
from uiat.report.section import Cell, Column, Listing, Section, Table
from uiat.report.svg import charts

_DASH = Cell("–", -1.0)
_REFERENCES = (
    "Published numbers are for CIFAR-sized images at Linf 8/255 without further data, on whole test sets. The "
    "tolerance is one point, and half of the 95 % interval more where fewer than 10,000 images were evaluated."
)


def summary(inputs: Inputs) -> Section:
    """Return the panel with the table of all groups, and what a reader has to know about its numbers.

    Example:
        >>> [part.title for part in summary(Inputs([])).parts]
        ['Beside published numbers', 'What the self-checks say', 'Notes on the runs']
    """
    groups = inputs.groups
    table, common = summarise(groups)
    notes = [(str(run.folder), note) for run in inputs.runs for note in run.notes]
    parts = (
        Section("Beside published numbers", listing=Listing(compare_sentences(groups), "published"), note=_REFERENCES),
        Section("What the self-checks say", listing=Listing(verdicts(groups))),
        Section("Notes on the runs", listing=Listing(notes, code=True)),
    )
    note, markdown_note = _explain(groups, common)
    return Section(
        "Summary",
        anchor="summary",
        warnings=find_warnings(groups),
        tables=[table],
        note=note,
        markdown_note=markdown_note,
        parts=parts,
    )


def _explain(groups: Sequence[Group], common: Sequence[tuple[str, str]]) -> tuple[Markup, str]:
    """Write the small print of the table: in HTML, and in Markdown, where intervals stand in brackets."""
    facts = ", ".join(f"{name} {text}" for name, text in common)
    start = f"All runs: {facts}. " if facts else ""
    several = ", or the values of the seeds where there are several" if any(len(g.runs) > 1 for g in groups) else ""
    beginning = shared_beginning([group.first for group in groups])
    html, markdown = escape(start), f"{markdown_text(start)} " if start else ""
    if beginning:
        html += Markup("The names of all runs begin with <code>{}</code>, left out here. ").format(beginning)
        markdown += f"The names of all runs begin with {markdown_code(beginning)}, left out here. "
    bold = f" {BOLD}" if any(score.is_best for scores in score_groups(groups) for score in scores.values()) else ""
    html += Markup("Small below an accuracy: its 95&nbsp;% interval{}.{}").format(several, bold)
    return html, f"{markdown}In brackets: the 95 % interval{several}.{bold}"


def summarise(groups: Sequence[Group]) -> tuple[Table, list[tuple[str, str]]]:
    """Build the table of all groups; facts that do not differ between them are said once, outside of it.

    Returns:
        The table, and the name and value of each fact that all groups have in common.

    Example:
        >>> [column.name for column in summarise([])[0].columns][:2]
        ['run', 'self-checks']
    """
    names = sorted(attack_names(groups), key=lambda name: (name != "clean", name != "worst"))  # a phone shows these two
    columns = [Column("run"), *(Column(name, number=True) for name in names), Column("self-checks")]
    columns += [Column("training, s", number=True), Column("evaluation, s", number=True)]
    rows = [_row(group, names, scores) for group, scores in zip(groups, score_groups(groups), strict=True)]
    facts = [facts_of(group) for group in groups]
    common = []
    for column in (Column("n", number=True), Column("seeds"), Column("data"), Column("threat model")):
        cells = [fact[column.name] for fact in facts]
        if cells and all(cell == cells[0] for cell in cells):
            common.append((column.name, cells[0].text))
            continue
        columns.append(column)
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)
    return Table(columns, rows, "Summary of all runs"), common


def _row(group: Group, names: Sequence[str], scores: Mapping[str, Score]) -> list[Cell]:
    state = group.verdict if group.evaluation else "not evaluated"
    tone = {"credible": "agrees", "doubtful": "suspicious"}.get(state, "")
    times = [group.training_seconds, group.evaluation_seconds]
    return [
        Cell(group.label, mark=charts.swatch(group.slot)),
        *_accuracies(group, names, scores),
        Cell(state, hint=" ".join(group.verdicts), tone=tone),
        *(
            Cell(spread(seconds, scale=1, digits=0 if max(seconds) >= 100 else 1), sum(seconds) / len(seconds))
            if any(seconds)
            else _DASH
            for seconds in times
        ),
    ]


def facts_of(group: Group) -> dict[str, Cell]:
    """Return the cells that say what the accuracies of a group were measured on.

    Example:
        >>> from pathlib import Path
        >>> from uiat.runs.run_files import RunFiles
        >>> run = RunFiles(Path("a"), {"seed": 0, "data": {"name": "digits"}})
        >>> {name: cell.text for name, cell in facts_of(Group((run,), "a")).items()}
        {'n': '–', 'seeds': '0', 'data': 'digits', 'threat model': '–'}
    """
    result = group.evaluation or {}
    threat = threat_text(str(result.get("threat"))) if result else "–"
    texts = {"seeds": group.seeds, "data": group.data, "threat model": threat}
    n = Cell(f"{result['n']:,}", result["n"]) if result else _DASH
    return {"n": n} | {name: Cell(text) for name, text in texts.items()}


def _accuracies(group: Group, names: Sequence[str], scores: Mapping[str, Score]) -> Iterator[Cell]:
    published = compare(group)
    for name in names:
        values, reference = group.values(name), published.get(name)
        if not values:
            yield _DASH
            continue
        beside, tone = ("", "") if reference is None else (reference.short, reference.tone)
        score, under = scores[name], _interval(group, name)
        yield Cell(score.text, score.mean, under=under, beside=beside, tone=tone, best=score.is_best)


def _interval(group: Group, name: str) -> str:
    """Write the ends of the 95 % interval of a single run; the values of several."""
    edges = (group.evaluation or {}).get("intervals", {}).get(name)
    if len(group.runs) > 1:
        return ", ".join(f"{value:.2f}" for value in group.values(name))
    if not isinstance(edges, list) or len(edges) != 2:
        return ""
    return f"{100 * edges[0]:.1f}–{100 * edges[1]:.1f}"


def verdicts(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """List what the self-checks said, each text once, with the labels of the groups it was said of.

    Example:
        >>> from pathlib import Path
        >>> from uiat.runs.run_files import RunFiles
        >>> run = RunFiles(Path("a"), {}, evaluation={"verdict": "nothing speaks against the number"})
        >>> verdicts([Group((run,), "a"), Group((run,), "b")])
        [('a, b', 'nothing speaks against the number')]
    """
    by_text: dict[str, list[str]] = {}
    for group in groups:
        for text in group.verdicts:
            by_text.setdefault(text, []).append(group.label)
    return [(", ".join(labels), text) for text, labels in by_text.items()]


def compare_sentences(groups: Sequence[Group]) -> list[str]:
    """Write a sentence for each number that others have published one for."""
    return [
        f"{group.label}, {one.attack}: yours {one.value:.1f}, published {one.published.text} "
        f"(tolerance {one.tolerance:.1f}; {one.published.source}): {one.assessment}"
        for group in groups
        for one in compare(group).values()
    ]


# Facts of an evaluation in which rows must agree to compare: the key, how it is called, and how a value is written.
_COMPARABLE: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("data", "data sets", str),
    ("threat", "threat models", threat_text),
    ("n", "numbers of test images", str),
)


def find_warnings(groups: Sequence[Group]) -> list[str]:
    """List the reasons why numbers of different rows may not be compared, and what counts in none.

    Example:
        >>> from pathlib import Path
        >>> from uiat.runs.run_files import RunFiles
        >>> find_warnings([Group((RunFiles(Path("a"), {}),), "a")])
        ['Not evaluated, and so without accuracy on test images: a.']
    """
    evaluated = [group for group in groups if group.evaluation is not None]
    warnings = []
    for key, name, write in _COMPARABLE:
        values = _list_by_value(evaluated, [write(str((group.evaluation or {}).get(key))) for group in evaluated])
        if values:
            warnings.append(f"The runs were evaluated on different {name}: {values}. Such rows do not compare.")
    trained = _list_by_value(groups, [str(group.first.setting("data.name")) for group in groups])
    if trained and not any("data sets" in text for text in warnings):
        warnings.append(f"The runs were trained on different data sets: {trained}.")
    computed = _list_by_value(groups, [_arithmetic(group) for group in groups])
    if computed:
        warnings.append(f"The runs were computed in different arithmetic, and are not averaged over it: {computed}.")
    warnings += [f"A copy is no further seed, and is left out: {copy}." for group in groups for copy in group.copies]
    without = [group.label for group in groups if group.evaluation is None]
    if without:
        warnings.append(f"Not evaluated, and so without accuracy on test images: {', '.join(without)}.")
    return warnings + _missing_attacks(evaluated)


def _arithmetic(group: Group) -> str:
    compute = group.first.setting("compute", {})
    plain, compiled = compute.get("plain") is True, compute.get("compile") is True
    precision = "fp32" if plain else str(compute.get("precision", "fp32"))
    return precision + (", compiled" if compiled and not plain else "")


def _list_by_value(groups: Sequence[Group], values: Sequence[str]) -> str:
    """List each value with the groups that have it; empty where all are equal.

    The groups of the most common value are "all others" where they are more than three.
    """
    labels: dict[str, list[str]] = {}
    for group, value in zip(groups, values, strict=True):
        labels.setdefault(value, []).append(group.label)
    if len(labels) < 2:
        return ""
    common = max(labels, key=lambda value: len(labels[value]))
    if len(labels[common]) > 3:
        del labels[common]
        labels[common] = ["all others"]  # at the end, where "others" makes sense
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in labels.items())


def _missing_attacks(evaluated: Sequence[Group]) -> list[str]:
    """Warn of rows that were not attacked by all attacks: their worst case is over fewer of them."""
    names = attack_names(evaluated)
    missing_in: dict[str, list[str]] = {}
    for group in evaluated:
        known = {name for run in group.runs for name in (run.evaluation or {}).get("accuracy", {})}
        missing = ", ".join(name for name in names if name not in known)
        if missing:
            missing_in.setdefault(missing, []).append(group.label)
    mixed = [group.label for group in evaluated if len(group.attack_sets) > 1]
    seeds = [f"Seeds attacked by different attacks: {', '.join(mixed)}. They have no worst case."] if mixed else []
    return seeds + [
        f"Not evaluated under {missing}: {', '.join(labels)}. A worst case over fewer attacks may look better than it "
        "is."
        for missing, labels in missing_in.items()
    ]
