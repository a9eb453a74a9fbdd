"""`uiat paper`: the map from the paper to the code, read from PAPER.md."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from uiat.cli.output import console, table
from uiat.errors import UserError

FILE = "PAPER.md"
COLUMNS = ("statement", "mark", "code", "test", "recipe")


@dataclass(frozen=True)
class Row:
    """One statement of the paper and where it lives.

    Args:
        statement: what is claimed or defined.
        mark: how sure it is; a key of `read_marks`.
        symbol: dotted name of the code, importable.
        test: file::test, which fails if the code says otherwise.
        recipe: a recipe that uses it.

    Example:
        >>> read_rows()[0].mark
        'P'
    """

    statement: str
    mark: str
    symbol: str
    test: str
    recipe: str


@cache
def _read_file() -> str:
    """Return the text of PAPER.md, which an installation has beside this module and a checkout at its root."""
    here = Path(__file__).resolve()
    places = (here.with_name(FILE), here.parents[3] / FILE)
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise UserError(f"no {FILE} in this installation: looked for {' and '.join(map(str, places))}")


def read_marks() -> dict[str, str]:
    """Return what each mark means.

    Example:
        >>> read_marks()["I"]
        'inferred'
    """
    return dict(re.findall(r"^- \*\*(.)\*\* (.+)$", _read_file(), re.M))


def read_rows() -> list[Row]:
    """Return the rows of the table.

    Example:
        >>> read_rows()[0].symbol
        'uiat.attacks.PGD'
    """
    lines = [line for line in _read_file().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rows = [row for row in cells if len(row) == len(COLUMNS) and tuple(row) != COLUMNS]
    return [Row(row[0].replace("\\|", "|"), row[1], *(cell.strip("`") for cell in row[2:])) for row in rows]


def paper() -> None:
    """Show where each statement of the paper is.

    The statement, how sure it is (mark), which symbol of the code implements it, which test holds it, and which recipe
    uses it.
    """
    out = console()
    rows = ((row.statement, row.mark, row.symbol, row.test, row.recipe) for row in read_rows())
    shown = table(*COLUMNS, rows=rows)
    shown.columns[0].no_wrap = False
    out.print(shown)
    out.print("\nmarks")
    for mark, meaning in read_marks().items():
        out.print(f"  {mark}  {meaning}", soft_wrap=True)
