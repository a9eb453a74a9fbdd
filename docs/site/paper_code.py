"""The source of each statement of the paper, for the page that PAPER.md becomes on the site."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import griffe

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(
    r"^\| (?P<statement>.+?) \| (?P<mark>[A-Z?]) \| `(?P<symbol>uiat\.[\w.]+)` \| `(?P<test>[^`]+)` \|", re.M
)
LONGEST = 60  # lines of source that are shown


def beside(text: str) -> str:
    """Return, of the table in PAPER.md, each symbol with the statements that it implements and its source."""
    import griffe  # of the extra `docs`

    package = griffe.load("uiat", search_paths=[ROOT / "src"], resolve_aliases=True)
    statements: dict[str, list[re.Match[str]]] = {}
    for row in ROW.finditer(text):
        statements.setdefault(row["symbol"], []).append(row)
    lines = ["", "## The code beside it", "", "Each symbol of the table, what it implements, and its source.", ""]
    for symbol, rows in statements.items():
        lines += [f"### {symbol.removeprefix('uiat.')}", ""]
        lines += [f"- {row['statement']} ({row['mark']}; held by `{row['test'].split('::')[-1]}`)" for row in rows]
        lines += ["", *source(package[symbol.removeprefix("uiat.")]), ""]
    return "\n".join(lines)


def source(found: "griffe.Object | griffe.Alias") -> list[str]:
    """Return the place of an object and its source without the docstring, as a block that opens on a click."""
    path = Path(str(found.filepath)).relative_to(ROOT).as_posix()
    first, last = found.lineno or 1, found.endlineno or 1
    code = (ROOT / path).read_text(encoding="utf-8").splitlines()[first - 1 : last]
    if (docstring := found.docstring) is not None and docstring.lineno and docstring.endlineno:
        del code[docstring.lineno - first : docstring.endlineno - first + 1]
    if len(code) > LONGEST:
        code = [*code[:LONGEST], f"    ...  # to line {last}"]
    shown = ["```python", *code, "```"]
    return [f'??? example "{path}, line {first}"', "", *(f"    {line}".rstrip() for line in shown)]
