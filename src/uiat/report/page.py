"""Write the report: one HTML file that needs nothing else, and the same numbers in a Markdown file beside it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from uiat.errors import UserError, strip_controls
from uiat.markup import markdown_code, markdown_text
from uiat.report import figures, images, provenance
from uiat.report.calibration import calibration
from uiat.report.certified import certified
from uiat.report.groups import group_runs
from uiat.report.inputs import Inputs, Samples
from uiat.report.labels import dotted
from uiat.report.section import Section
from uiat.report.summary import summary
from uiat.report.tradeoff import tradeoff
from uiat.report.training_curves import training
from uiat.runs.run_files import RunFiles, find_runs, read_files
from uiat.system.atomic_files import ensure_folder, is_written_by, write_text
from uiat.system.atomic_folder import probe

logger = logging.getLogger("uiat")
# The panels, in their order on the page. A new one is a function from the inputs to a section, and a line here.
PANELS: tuple[Callable[[Inputs], Section], ...] = (
    summary,
    tradeoff,
    training,
    calibration,
    certified,
    figures.strength,
    figures.classes,
    figures.confusions,
    images.galleries,
    images.universals,
    provenance.settings,
    provenance.environment,
)
TOOL = "uiat report"
MARK = f"written by {TOOL}"  # the templates put it at the beginning of a file that a later report may take the place of


def markdown_path(out: Path) -> Path:
    """Return the path of the Markdown file that goes beside an HTML file.

    Raises:
        UserError: the name of the HTML file does not end in .html.

    Example:
        >>> markdown_path(Path("report.html"))
        PosixPath('report.md')
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out} should end in .html: the Markdown twin goes beside it with .md")
    return out.with_suffix(".md")


def check_out(out: Path) -> None:
    """Refuse, before any work, to take the place of a file that no report wrote: it lacks the mark at its beginning.

    Raises:
        UserError: there is such a file, a file where a folder is needed, or a folder that cannot be written to. One
            that is missing is made later.

    Example:
        >>> check_out(Path("missing/report.txt"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing/report.txt should end in .html: the Markdown twin goes beside it with .md
    """
    for path in (out, markdown_path(out)):
        if path.exists() and not is_written_by(path, TOOL):
            raise UserError(f"{path} exists and was not written by uiat report: give another --out, or move it away")
    probe(out)


def write_report(
    folders: Sequence[str | Path], out: str | Path = "report.html", *, samples: Mapping[Path, Samples] | None = None
) -> list[Path]:
    """Report on run folders, side by side, in an HTML file and a Markdown file beside it; each is written whole or not.

    Args:
        folders: run folders.
        out: the HTML file; an earlier report is replaced, any other file is refused.
        samples: predictions of a run's model on test images, by run folder; without them there is no gallery and no
            confusion matrix.

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
    page = describe(Inputs(runs, samples or {})) | {"twin": markdown_path(out).name, "page": out.name}
    texts = {path: render(name, page) for path, name in ((out, "report.html.j2"), (markdown_path(out), "report.md.j2"))}
    ensure_folder(out.parent)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def read_all(folders: Sequence[str | Path]) -> list[RunFiles]:
    """Read the files of each run folder, and of each run of a sweep; what is neither is passed over with a warning.

    Raises:
        UserError: no run, one of them twice, or a damaged file.

    Example:
        >>> read_all([])
        Traceback (most recent call last):
        uiat.errors.UserError: name at least one run folder to report on
    """
    paths = [path for folder in folders for path in find_runs(Path(folder), alone=len(folders) == 1)]
    if not paths:
        named = f": {', '.join(map(str, folders))} holds none" if folders else ""
        raise UserError(f"name at least one run folder to report on{named}")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise UserError(f"{path} is named twice: each run counts once")
        seen.add(path.resolve())
    return [read_files(path) for path in paths]


def runs_with_images(runs: Sequence[RunFiles]) -> list[RunFiles]:
    """Return the runs of which a report shows images: the first of those that differ only in the seed.

    Example:
        >>> [
        ...     run.folder.name
        ...     for run in runs_with_images([RunFiles(Path("a"), {"seed": 0}), RunFiles(Path("b"), {"seed": 1})])
        ... ]
        ['a']
    """
    return [group.first for group in group_runs(runs)]


def describe(inputs: Inputs) -> dict[str, Any]:
    """Gather everything that the templates show.

    Example:
        >>> [section.title for section in describe(Inputs([RunFiles(Path("a"), {})]))["sections"]]
        ['Summary', 'Environment']
    """
    labels = [group.label for group in inputs.groups]
    panels = [summary(inputs), *(_make_panel(panel, inputs) for panel in PANELS[1:])]
    return {
        "mark": MARK,
        "title": "Robustness report: " + (", ".join(labels[:3]) or "no runs"),
        "runs": len(inputs.runs),
        "rows": len(labels),
        "sections": [panel for panel in panels if not panel.is_empty],
        "made_by": provenance.made_by(inputs, "pictures and confusion"),
    }


def _make_panel(panel: Callable[[Inputs], Section], inputs: Inputs) -> Section:
    """Make a panel; one that fails is left out and said to be, and the others stand."""
    try:
        return panel(inputs)
    except UserError:
        raise
    except Exception as error:
        logger.warning(
            "the report has no %s: %s: %s", panel.__name__, type(error).__name__, " ".join(str(error).split())
        )
        return Section("")


def render(template: str, page: Mapping[str, Any]) -> str:
    """Fill in a template; what is put into HTML is escaped, into Markdown as well.

    Example:
        >>> page = describe(Inputs([])) | {"twin": "a.md", "page": "a.html"}
        >>> render("report.html.j2", page)[:15]
        '<!DOCTYPE html>'
    """
    environment = Environment(
        loader=PackageLoader("uiat.report"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_plain,
    )
    environment.filters["cell"] = markdown_text
    environment.filters["code"] = markdown_code
    environment.filters["dotted"] = dotted
    return environment.get_template(template).render(**page)


def _plain(value: Any) -> Any:
    """Take what a terminal or a browser would obey out of text, of drawings too."""
    if isinstance(value, Markup):
        return Markup(strip_controls(value))  # escaped already
    return strip_controls(value) if isinstance(value, str) else value
