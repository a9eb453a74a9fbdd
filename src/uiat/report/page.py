"""The report as one HTML file that needs nothing else, and its twin in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from uiat.errors import UserError
from uiat.report import content, figures, images
from uiat.report.content import find_warnings
from uiat.report.groups import Group, group_runs, run_name
from uiat.report.images import Samples
from uiat.report.labels import beginning, dotted
from uiat.report.svg import charts
from uiat.report.training_curves import training
from uiat.runs.reader import RunFiles, read_files
from uiat.system.atomic_files import write_text

# What a file begins with that a report may take the place of: written by the templates, looked for before a write.
MARK = "written by uiat report"
HEAD = 400  # bytes in which the mark stands
PRINTED = 5  # groups side by side that a sheet of A4 has room for


def markdown_path(out: Path) -> Path:
    """Where the Markdown goes.

    Raises:
        UserError: the name does not end in .html.

    Example:
        >>> markdown_path(Path("report.html"))
        PosixPath('report.md')
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out} should end in .html: the Markdown twin goes beside it with .md")
    return out.with_suffix(".md")


def check_out(out: Path) -> None:
    """Refuse to take the place of a file that no report wrote: before any work, and told by the mark at its beginning.

    Raises:
        UserError: such a file, or a folder that does not exist.

    Example:
        >>> check_out(Path("missing/report.html"))
        Traceback (most recent call last):
        uiat.errors.UserError: cannot write missing/report.html: there is no folder missing
    """
    for path in (out, markdown_path(out)):
        if not path.absolute().parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
        if not path.exists():
            continue
        try:
            with open(path, "rb") as file:
                ours = MARK.encode() in file.read(HEAD)
        except OSError:
            ours = False
        if not ours:
            raise UserError(f"{path} exists and was not written by uiat report: give another --out, or move it away")


def write_report(
    folders: Sequence[str | Path], out: str | Path = "report.html", *, samples: Mapping[Path, Samples] | None = None
) -> list[Path]:
    """Report on run folders, side by side, in an HTML file and a Markdown file beside it; each written whole or not.

    Args:
        folders: run folders.
        out: the HTML file; an earlier report is replaced, any other file is refused.
        samples: by run folder, answers on a handful of images; without them there is no gallery and no confusion.

    Returns:
        The files written.

    Raises:
        UserError: no runs, one folder twice, a folder that is no run, a damaged file, or a file in the way.

    Example:
        >>> write_report(["missing-run"])
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    out = Path(out)
    check_out(out)
    runs = read_all(folders)
    facts = gather(runs, samples or {}) | {"twin": markdown_path(out).name, "page": out.name}
    texts = {
        path: render(name, facts) for path, name in ((out, "report.html.j2"), (markdown_path(out), "report.md.j2"))
    }
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def read_all(folders: Sequence[str | Path]) -> list[RunFiles]:
    """The files of each folder.

    Raises:
        UserError: no folder, one of them twice, no run, or a damaged file.

    Example:
        >>> read_all([])
        Traceback (most recent call last):
        uiat.errors.UserError: name at least one run folder to report on
    """
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise UserError("name at least one run folder to report on")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UserError(f"{path} is named twice: each run counts once")
        seen.add(path.resolve())
    return [read_files(path) for path in paths]


def runs_with_images(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """The runs of which a report shows pictures: the first of those that differ only in the seed.

    Example:
        >>> [
        ...     run.folder.name
        ...     for run in runs_with_images([RunFiles(Path("a"), {"seed": 0}), RunFiles(Path("b"), {"seed": 1})])
        ... ]
        ['a']
    """
    return [group.first for group in group_runs(runs)]


def gather(runs: Sequence[RunFiles], samples: Mapping[Path, Samples]) -> dict[str, Any]:
    """Everything that the templates show.

    Example:
        >>> gather([], {})["cautions"]
        []
    """
    groups = group_runs(runs)
    labels = [group.label for group in groups]
    differences, partly = content.describe_differences(groups)
    return {
        "mark": MARK,
        "version": _version(),
        "title": "Robustness report: " + (", ".join(labels[:3]) or "no runs"),
        "cautions": find_warnings(groups),
        "summary": content.summary(groups),
        "labels": labels,
        "beginning": beginning([run_name(group.first) for group in groups]),
        "several": any(len(group.runs) > 1 for group in groups),
        "verdicts": content.verdicts(groups),
        "published": content.published(groups),
        "marks": [charts.swatch(slot) for slot in range(len(groups))],
        **_figures(groups, samples),
        "differences": differences,
        "partly": partly,
        "parts": [range(first, min(first + PRINTED, len(groups))) for first in range(0, len(groups), PRINTED)],
        "environments": content.environments(runs),
        "notes": [(str(run.folder), note) for run in runs for note in run.notes],
        "folders": [str(run.folder) for run in runs],
    }


def _figures(groups: Sequence[Group], samples: Mapping[Path, Samples]) -> dict[str, Any]:
    def legend(has: Callable[[RunFiles], Any]) -> list[tuple[Markup, str]]:
        return [(charts.swatch(slot), g.label) for slot, g in enumerate(groups) if any(has(run) for run in g.runs)]

    return {
        "trained": legend(lambda run: run.history),
        "swept": legend(lambda run: (run.evaluation or {}).get("sweep")),
        "training": training(groups),
        "strength": figures.strength(groups),
        "classes": figures.classes(groups, samples),
        "confusions": figures.confusions(groups, samples),
        "galleries": images.galleries(groups, samples),
        "universals": images.universals(groups, samples),
        "answered": any(group.first.folder in samples for group in groups),
    }


def _version() -> str:
    try:
        return version("uiat")
    except PackageNotFoundError:
        return "from a source tree"


def render(template: str, facts: Mapping[str, Any]) -> str:
    """A template filled in; what is put into HTML is escaped, into a table of Markdown as well.

    Example:
        >>> facts = gather([], {}) | {"twin": "a.md", "page": "a.html"}
        >>> render("report.html.j2", facts)[:15]
        '<!DOCTYPE html>'
    """
    environment = Environment(
        loader=PackageLoader("uiat.report"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    environment.filters["dotted"] = dotted
    return environment.get_template(template).render(**facts)


def _cell(text: object) -> str:
    """Text that cannot end a cell of a Markdown table, nor begin an HTML element."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
