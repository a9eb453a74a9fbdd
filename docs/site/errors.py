"""The messages of the package's errors, read from the source, for the page of troubleshooting.

Nothing is imported: f-strings are read as they stand, with capitals for what is filled in.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "uiat"
ERRORS = {"UserError", "ArgumentError", "NotFinite", "Lost", "Busy", "Stopped"}
MARK = re.compile(r"^<!-- errors: (?P<areas>[\w ]+) -->$", re.M)


def insert(text: str) -> str:
    """Return the page of troubleshooting with all messages of the parts of the package that each section names.

    Messages that the page already has in a table are not said again.

    Raises:
        ValueError: a part of the package has messages, and no section names it.
    """
    named = {area for match in MARK.finditer(text) for area in match["areas"].split()}
    if left_out := sorted({area for area in areas() if any(of_area(area).values())} - named):
        raise ValueError(f"docs/troubleshooting.md has no <!-- errors: ... --> for {left_out}")
    return MARK.sub(lambda match: listing(match["areas"].split(), text), text)


def areas() -> list[str]:
    """Return the folders and modules at the top of the package."""
    return sorted({path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__pycache__"})


def listing(names: list[str], text: str) -> str:
    """Return the messages of parts of the package as a block that opens on a click, in groups by what a module does."""
    groups: dict[str, list[str]] = {}
    for name in names:
        for title, found in of_area(name).items():
            groups.setdefault(title, []).extend(each for each in found if each not in text)
    groups = {title: found for title, found in groups.items() if found}
    if not groups:
        return ""
    lines = [f'??? note "All other messages ({sum(map(len, groups.values()))})"', ""]
    for title, found in sorted(groups.items()):
        lines += [f"**{title}**", "", *(f"- {quote(message)}" for message in found), ""]
    return "\n".join([lines[0], *(f"    {line}".rstrip() for line in lines[1:])])


@functools.cache
def of_area(area: str) -> dict[str, list[str]]:
    """Return what modules of a part of the package do, in a line, -> the messages of their errors."""
    found: dict[str, list[str]] = {}
    for file in files_of(area):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if said := sorted(set(messages(tree)), key=str.lower):
            title = (ast.get_docstring(tree) or file.stem).splitlines()[0].rstrip(".").replace("*", "\\*")
            found.setdefault(title, []).extend(said)
    return found


def files_of(area: str) -> list[Path]:
    """Return the source files of a room of the package."""
    return [SOURCE / f"{area}.py"] if (SOURCE / f"{area}.py").exists() else sorted((SOURCE / area).rglob("*.py"))


def quote(message: str) -> str:
    """Return a message as code in Markdown."""
    return f"`` {message} ``" if "`" in message else f"`{message}`"


def messages(tree: ast.Module) -> Iterator[str]:
    """Return what the errors that a module makes say, with capitals for what is filled in."""
    for node in ast.walk(tree):
        name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if name == "nearest" and isinstance(node, ast.Call):
            yield f"unknown {text_of(node.args[0])} 'NAME'; did you mean 'OTHER'?"
        elif name in ERRORS and isinstance(node, ast.Call) and node.args:
            text = " ".join(text_of(node.args[0]).split())
            if len(re.findall(r"\b[a-z]{2,}\b", text)) > 2:
                yield text


def text_of(node: ast.expr) -> str:
    """Return a text as it is read: what is filled in is the last name of its expression, in capitals."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return functools.reduce(_append, parts, "")
        case ast.FormattedValue(value=ast.Constant(value=str(text))):
            return text
        case ast.FormattedValue(value=value, conversion=conversion):
            return f"'{name_of(value)}'" if conversion == ord("r") else name_of(value)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
        case ast.IfExp(body=body):
            return text_of(body)
    return name_of(node)


def _append(text: str, part: ast.expr) -> str:
    """Append a part of an f-string; a value that follows a word without a space is an ending that may be empty."""
    is_ending = isinstance(part, ast.FormattedValue) and text[-1:].isalnum()
    return text if is_ending else text + text_of(part)


def name_of(node: ast.expr) -> str:
    """Return the name of a value in capitals; of a call that of its first argument."""
    if isinstance(node, ast.Call) and node.args:
        return name_of(node.args[0])
    names = [each for each in ast.walk(node) if isinstance(each, ast.Name | ast.Attribute)]
    if not names:
        return "..."
    return (names[0].attr if isinstance(names[0], ast.Attribute) else names[0].id).strip("_").upper()
