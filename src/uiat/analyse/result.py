"""Hold the result of a study, and write its files: data (JSON), a figure (SVG and PNG), a paragraph (Markdown)."""

import io
import json
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uiat.analyse.figures import Width, styled
from uiat.analyse.fitting import fit_texts
from uiat.analyse.study import Data, Study
from uiat.errors import UserError, strip_controls
from uiat.formatting import Summary
from uiat.markup import markdown_text
from uiat.runs.reader import read_object
from uiat.system.atomic_files import ensure_folder, write_bytes, write_text

logger = logging.getLogger("uiat")
DRAWN = ("svg", "png", "pdf")
ENDINGS = ("json", *DRAWN, "md")


@dataclass(frozen=True)
class Result:
    """The result of a study.

    Args:
        study: name of the study.
        data: the numbers, with the runs, n, seed, threat model and versions: plain values, as in the JSON file.
        paragraph: what the numbers say.
        table: a heading and rows, where the study has them.
        files: the files that were written.

    Example:
        >>> Result("strength", {}, "The curves do not cross.").files
        []
    """

    study: str
    data: Data
    paragraph: str
    table: list[list[str]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def __repr__(self) -> str:
        return self.summary().text

    def _repr_html_(self) -> str:
        return self.summary().html

    def summary(self) -> Summary:
        """Return what `print` shows: the table, and what the numbers say."""
        return Summary(
            f"study {self.study}", self.table, [self.paragraph, *(f"written: {path}" for path in self.files)]
        )


def check_free(folder: Path, study: str, inputs: Data) -> None:
    """Refuse a folder that holds this study of other inputs, or folders of the names of its files.

    Files of the same inputs will be written again.

    Example:
        >>> check_free(Path("missing"), "strength", {})
    """
    paths = [folder / f"{study}.{ending}" for ending in ENDINGS]
    there = next((path for path in paths if os.path.lexists(path)), None)  # also in a folder that cannot be read
    if there is None:
        return
    if (odd := next((path for path in paths if path.is_dir()), None)) is not None:
        raise UserError(f"cannot write {odd}: it is a folder; choose another --out")
    known = read_object(paths[0])
    if known is None:
        raise UserError(f"{there} is there without {paths[0].name}, and is never overwritten: choose another --out")
    if known.get("study") != study or not _are_same(known.get("inputs"), json.loads(json.dumps(inputs))):
        raise UserError(
            f"{paths[0]} is of other runs or options, and is never overwritten: choose another --out; the same ones "
            "would be written again"
        )


def _are_same(known: Any, inputs: Data) -> bool:
    """True if the inputs in a file are these; files of earlier versions name no weights, and options that go unread."""
    if not isinstance(known, dict):
        return False
    return all(known.get(name) == value for name, value in inputs.items() if name != "weights" or name in known)


def write(folder: Path, study: Study, result: Result, *, width: Width = "screen") -> list[Path]:
    """Write all files, each of them whole or not at all; the JSON, which says what the others are of, first.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    ensure_folder(folder)
    paths = {ending: folder / f"{study.name}.{ending}" for ending in ENDINGS}
    text = compact(result.data)
    write_text(paths["json"], text + "\n")
    figure = _draw(study, json.loads(text), width)  # from what the file holds, so that it can be drawn again
    for ending, content in figure.items():
        write_bytes(paths[ending], content)
    write_text(paths["md"], markdown(study, result, with_figure=bool(figure)))
    return [path for ending, path in paths.items() if ending in ("json", "md") or ending in figure]


def _draw(study: Study, data: Data, width: Width) -> dict[str, bytes]:
    """Draw the figure, by the ending of each of its files; one that fails costs the figure, never the numbers."""
    try:
        with styled(width):
            figure = study.draw(_plain(data))
            fit_texts(figure)
            return {ending: _render(figure, ending) for ending in DRAWN}
    except Exception as error:  # whatever it is: the study has taken the time, and its numbers are written
        logger.warning("no figure of %s: %s: %s", study.name, type(error).__name__, " ".join(str(error).split()))
        return {}


def _render(figure: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    facts = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}[
        kind
    ]  # the same each time
    figure.savefig(buffer, format=kind, metadata=facts)
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """Take out of the words of a figure what cannot be drawn."""
    if isinstance(value, dict):
        return {_plain(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return strip_controls(value) if isinstance(value, str) else value


def compact(value: Any) -> str:
    """Write JSON, indented, with each list of plain values on one line.

    Example:
        >>> print(compact({"a": [1, 2]}))
        {
          "a": [1, 2]
        }
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if strip_controls(text) != text:  # JSON takes any character as a number, and no value is changed by that
        text = "".join(c if strip_controls(c) == c else f"\\u{ord(c):04x}" for c in text)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda match: "[" + re.sub(r",\s+", ", ", match[1]) + "]", text)


def markdown(study: Study, result: Result, *, with_figure: bool = True) -> str:
    """Write the paragraph with its figure, if it could be drawn, and, where there is one, its table.

    Example:
        >>> from uiat.analyse.runner import STUDIES
        >>> markdown(STUDIES["strength"], Result("strength", {}, "The curves do not cross.")).splitlines()[0]
        '# strength: accuracy against the radius of the attack'
    """
    paragraph = markdown_text(result.paragraph)
    lines = [f"# {study.name}: {study.about}", "", paragraph]
    if with_figure:
        lines += ["", f"![{study.about}]({study.name}.svg)"]
    if result.table:
        heading, *rows = [[markdown_text(cell) for cell in row] for row in result.table]
        lines += ["", _row(heading), _row(["---"] * len(heading)), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
