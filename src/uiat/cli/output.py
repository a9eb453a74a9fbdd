"""Consoles and tables of the commands."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from uiat.config.yaml_io import write_value
from uiat.errors import strip_controls
from uiat.markup import json_text

# Columns of output that goes to a file or a pipe, where cutting lines to a screen would only lose text.
PIPE_WIDTH = 240
NARROWEST, LARGEST = 20, 10_000  # columns; a table needs some
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and anything else on standard error.")
]


class _PlainConsole(Console):
    """A console that prints no control character of a name or a verdict; its own colours and bars stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else strip_controls(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


def console(*, quiet: bool = False) -> Console:
    r"""Standard output, with nothing in the text taken for markup; or nothing at all, where another process prints.

    Example:
        >>> console().print("[8/255]\x1b[2J")
        [8/255][2J
    """
    width, height = _size("COLUMNS", NARROWEST), _size("LINES", 1)
    if width is None and not sys.stdout.isatty():
        width = PIPE_WIDTH
    elif width is None and "COLUMNS" in os.environ:  # rich would take a 0, too
        width = shutil.get_terminal_size().columns
    if height is None and "LINES" in os.environ:
        height = shutil.get_terminal_size().lines
    return _PlainConsole(highlight=False, markup=False, emoji=False, width=width, height=height, quiet=quiet)


def _size(variable: str, least: int) -> int | None:
    """Return the columns or lines that the environment asks for; None where it asks for none that there can be."""
    text = os.environ.get(variable, "")
    asked = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0
    return min(max(asked, least), LARGEST) if asked > 0 else None


def table(*columns: str, rows: Iterable[Iterable[str]], numbers: Iterable[str] = (), narrow: bool = False) -> Table:
    """Return a table of text; the first column is never broken.

    Args:
        columns: headings of the columns.
        rows: cells of each row.
        numbers: headings of columns that are set flush right.
        narrow: True for less space between columns.

    Example:
        >>> Console(width=40).print(table("attack", "n", rows=[("clean", "540")], numbers=["n"]))
         attack    n
        ──────────────
         clean   540
    """
    padding = (0, 1, 0, 0) if narrow else (0, 1)
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=padding)
    flush_right = set(numbers)
    for i, column in enumerate(columns):
        justify = "right" if column in flush_right else "left"
        result.add_column(column, justify=justify, no_wrap=i == 0, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        result.add_row(*row)
    return result


def fields(described: Iterable[tuple[str, Any, str]]) -> Table:
    """Return a table of dotted fields with their values and meanings.

    Example:
        >>> fields([("seed", 0, "of weights")]).row_count
        1
    """
    return table(
        "field", "value", "what it is", rows=((path, write_value(value), what) for path, value, what in described)
    )


def command(*words: str | Path, own_code: bool = False) -> str:
    """Return a `uiat` command to be copied.

    Example:
        >>> command("evaluate", "runs/my run")
        "uiat evaluate 'runs/my run'"
    """
    return shlex.join(["uiat", *map(str, words), *(["--own-code"] if own_code else [])])


@contextmanager
def json_printed(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """Give a function that prints JSON on standard output; all else that is printed inside goes to standard error.

    Args:
        wanted: False prints as ever, and the function does nothing.

    Example:
        >>> with json_printed(True) as give:
        ...     print("under way")
        ...     give({"n": 2})
        {
          "n": 2
        }
    """
    out = sys.stdout

    def give(value: Any) -> None:
        if wanted:
            print(json_text(value), file=out)

    with redirect_stdout(sys.stderr) if wanted else nullcontext():
        yield give
