"""The accuracies of runs as a table for a paper: LaTeX with booktabs, Markdown, or CSV."""

import csv
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uiat.errors import nearest
from uiat.markup import latex_text, markdown_text
from uiat.report.groups import Group, attack_names, group_runs
from uiat.report.page import read_all
from uiat.report.scores import BOLD, Score, score_groups
from uiat.report.summary import facts_of, find_warnings
from uiat.system.extras import installed_version

logger = logging.getLogger("uiat")
_MARKED = "the self-checks of the evaluation speak against this number"


@dataclass(frozen=True)
class Row:
    """A row: runs that differ in nothing but the seed.

    Args:
        label: its name.
        facts: what it was measured on, by "n", "seeds", "data" and "threat model".
        scores: by attack; an attack that it was not evaluated under is missing.
        state: "credible", "doubtful" or "not checked", as the self-checks say; "not evaluated".
    """

    label: str
    facts: Mapping[str, str]
    scores: Mapping[str, Score]
    state: str

    @property
    def is_doubtful(self) -> bool:
        """True if the self-checks speak against its numbers."""
        return self.state == "doubtful"


def make_rows(groups: Sequence[Group]) -> list[Row]:
    """Return a row for each group; the best are told among rows of the same images and threat model alone.

    Example:
        >>> make_rows([])
        []
    """
    return [
        Row(
            group.label,
            {name: cell.text for name, cell in facts_of(group).items()},
            scores,
            group.verdict if group.evaluation else "not evaluated",
        )
        for group, scores in zip(groups, score_groups(groups), strict=True)
    ]


def make_table(folders: Sequence[str | Path], form: str) -> str:
    """Write the accuracies of runs as a table for a paper; why rows do not compare is logged as warnings.

    Args:
        folders: run folders, or folders of sweeps.
        form: "latex", "markdown" or "csv".

    Raises:
        UserError: no such form, no runs, one folder twice, a folder that is no run, or a damaged file.

    Example:
        >>> make_table(["missing-run"], "latx")
        Traceback (most recent call last):
        uiat.errors.UserError: unknown table 'latx'; did you mean 'latex'? known: csv, latex, markdown
    """
    if form not in FORMS:
        raise nearest("table", form, FORMS)
    groups = group_runs(read_all(folders))
    for warning in find_warnings(groups):
        logger.warning("%s", warning)
    return FORMS[form](make_rows(groups), attack_names(groups))


def _split(rows: Sequence[Row]) -> tuple[dict[str, str], list[str]]:
    """Return the facts that all rows have in common, and the names of those in which they differ."""
    names = list(rows[0].facts) if rows else []
    common = {name: rows[0].facts[name] for name in names if len({row.facts[name] for row in rows}) == 1}
    return common, [name for name in names if name not in common]


def _caption(rows: Sequence[Row], escape: Callable[[str], str], threat: Callable[[str], str]) -> str:
    common, varying = _split(rows)
    on = f" on {common['n']} test images" if "n" in common else " on n test images"
    on += f" of {escape(common['data'])}" if "data" in common else ""
    under = f", threat model {threat(common['threat model'])}" if "threat model" in common else ""
    scores = [score for row in rows for score in row.scores.values()]
    text = f"Accuracy in percent{on}{under}"
    if any(score.deviation is not None for score in scores):
        seeds = f" over seeds {escape(common['seeds'])}" if "seeds" in common else " over the seeds of each row"
        text += f"; mean and standard deviation{seeds}"
    elif "seeds" not in varying:
        text += f"; seed {escape(common.get('seeds', '?'))}"
    text += '. "worst": robust to every attack.' if any("worst" in row.scores for row in rows) else "."
    return f"{text} {BOLD}" if any(score.is_best for score in scores) else text


def _latex(rows: Sequence[Row], attacks: Sequence[str]) -> str:
    _, varying = _split(rows)
    dagger = r"$^\dagger$"
    lines = []
    for row in rows:
        cells = [latex_text(row.label) + (dagger if row.is_doubtful else "")]
        cells += [_latex_score(row.scores.get(name)) for name in attacks]
        cells += [(_latex_threat if name == "threat model" else latex_text)(row.facts[name]) for name in varying]
        lines.append(f"    {' & '.join(cells)} \\\\")
    caption = _caption(rows, latex_text, _latex_threat).replace('"worst"', "``worst''")
    if any(row.is_doubtful for row in rows):
        caption += f" {dagger}: {_MARKED}."
    heads = ["run", *attacks, *varying]
    return "\n".join(
        [
            f"% Written by uiat {installed_version('uiat') or ''}; needs \\usepackage{{booktabs}}.".replace(" ;", ";"),
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{caption}}}",
            f"  \\begin{{tabular}}{{l{'r' * len(attacks)}{'l' * len(varying)}}}",
            r"    \toprule",
            f"    {' & '.join(map(latex_text, heads))} \\\\",
            r"    \midrule",
            *lines,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex_score(score: Score | None) -> str:
    if score is None:
        return "--"
    text = score.text.replace("±", r"$\pm$")
    return f"\\textbf{{{text}}}" if score.is_best else text


def _latex_threat(text: str) -> str:
    norm, _, radius = text.partition(" ")
    names = {"Linf": r"\infty", "L2": "2", "L1": "1"}
    return f"$\\ell_{names[norm]}$, $\\epsilon = {radius}$" if norm in names and radius else latex_text(text)


def _markdown(rows: Sequence[Row], attacks: Sequence[str]) -> str:
    _, varying = _split(rows)
    caption = _caption(rows, markdown_text, markdown_text)
    if any(row.is_doubtful for row in rows):
        caption += f" †: {_MARKED}."
    heads = ["run", *attacks, *varying]
    lines = [caption, "", f"| {' | '.join(map(markdown_text, heads))} |"]
    lines.append(f"|---|{'---:|' * len(attacks)}{'---|' * len(varying)}")
    for row in rows:
        scores = [row.scores.get(name) for name in attacks]
        cells = [markdown_text(row.label) + (" †" if row.is_doubtful else "")]
        cells += ["–" if s is None else f"**{s.text}**" if s.is_best else s.text for s in scores]
        cells += [markdown_text(row.facts[name]) for name in varying]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _csv(rows: Sequence[Row], attacks: Sequence[str]) -> str:
    """Write means and deviations in columns of their own, for programs; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    facts = ("seeds", "n", "data", "threat model")
    writer.writerow(["run", *facts, "self-checks", *(head for name in attacks for head in (name, f"{name} std"))])
    for row in rows:
        cells = [row.label, *(row.facts[name] for name in facts), row.state]
        numbers = [number for name in attacks for number in _numbers(row.scores.get(name))]
        writer.writerow([*map(_csv_text, cells), *numbers])
    return text.getvalue()


def _numbers(score: Score | None) -> tuple[str, str]:
    if score is None:
        return "", ""
    return f"{score.mean:.4f}", "" if score.deviation is None else f"{score.deviation:.4f}"


def _csv_text(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula: names of runs come from files of others."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text.replace("–", "")


FORMS: dict[str, Callable[[Sequence[Row], Sequence[str]], str]] = {
    "latex": _latex,
    "markdown": _markdown,
    "csv": _csv,
}
