"""Gather the pages of the documentation site in build/docs: documents, a reference of public names, every error.

Run by `make docs` before mkdocs. Nothing is imported: names and errors are read from the source.
"""

import ast
import functools
import io
import os
import re
import shutil
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE, OUT = ROOT / "src" / "uiat", ROOT / "build" / "docs"
# Where a document stands on the site, by its path in the repository; of docs/ everything else keeps its place.
PAGES = {
    "README.md": "index.md",
    "docs/README.md": "conventions.md",
    "PAPER.md": "paper.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "benchmarks/RESULTS.md": "results/summary.md",
}
FILES = {
    "docs/pictures/method.png": "pictures/method.png",
    "docs/cifar10-small/report.html": "cifar10-small/report.html",
    "docs/explore-digits.html": "explore-digits.html",
}
INSTEAD = {"docs/cifar10-small/report.md": "docs/cifar10-small/report.html"}  # the page that a browser shows
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]+)\]\((?P<target>[^()\s]+)\)")
BLOCK = re.compile(r"(^```.*?^```$)", re.M | re.S)  # in which nothing is a link

# Rooms of the package -> titles of the page of errors, in the order of a first week with it.
AREAS = {
    "data": "Data",
    "models": "Models and weights",
    "config": "Settings of a run",
    "recipes": "Recipes",
    "objectives": "Methods",
    "inverse": "Inverse adversaries",
    "threat": "Threat models",
    "losses": "Losses",
    "checks": "Arguments",
    "training": "Training",
    "speed": "Speed",
    "runs": "Run folders",
    "attacks": "Attacks",
    "evaluation": "Evaluation",
    "compat": "Attacks in the words of torchattacks",
    "experiments": "Sweeps, exports and evaluations of anything",
    "analyse": "Studies",
    "report": "Reports",
    "explore": "The page to explore",
    "cli": "The command line",
    "system": "Files, processes and packages",
    "formatting": "Numbers in texts",
}
ERRORS = {"UserError", "ArgumentError", "NotFinite", "Lost", "Busy", "Stopped"}


def main() -> None:
    """Make the folder anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    pages = find_pages()
    for source, target in pages.items():
        write(target, rewrite((ROOT / source).read_text(encoding="utf-8"), source, pages))
    for source, target in FILES.items():
        (OUT / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, OUT / target)
    shutil.copyfile(Path(__file__).with_name("style.css"), OUT / "style.css")
    for name, text in reference().items():
        write(f"reference/{name}.md", text)
    write("troubleshooting.md", troubleshooting())


def write(target: str, text: str) -> None:
    """Write a page of the site."""
    path = OUT / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def find_pages() -> dict[str, str]:
    """Return where each document stands on the site, by its path in the repository."""
    guides = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*.md")]
    own = {path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix() for path in guides}
    return own | PAGES


def rewrite(text: str, source: str, pages: dict[str, str]) -> str:
    """Let links lead to pages of the site; one to a file that the site has not becomes the file's name."""

    def turn(match: re.Match[str]) -> str:
        target, hash_, anchor = match["target"].partition("#")
        if "//" in target or not target:
            return match[0]
        place = os.path.normpath(os.path.join(os.path.dirname(source), target))
        place = INSTEAD.get(place, place)
        if (there := (pages | FILES).get(place)) is None:
            return match["text"] if match["text"].strip("`") == place else f"{match['text']} (`{place}`)"
        way = os.path.relpath(there, os.path.dirname(pages[source]) or ".")
        return f"{match['image']}[{match['text']}]({way}{hash_}{anchor})"

    return "".join(part if part.startswith("```") else LINK.sub(turn, part) for part in BLOCK.split(text))


def reference() -> dict[str, str]:
    """Return a page for each group of public names, as the comments of `uiat.api.__all__` divide them."""
    pages, index = {}, ["# API", "", "Everything that `import uiat` gives, from the docstrings.", ""]
    modules = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    for title, names in public_names(SOURCE / "api.py"):
        page = re.sub(r"[^a-z]+", "-", title.split(":")[0].lower()).strip("-")
        lines = [f"# {title}", ""]
        for name in names:
            if name in modules:
                lines += [f"## uiat.{name}", ""]
                inner = [n for _, group in public_names(SOURCE / name / "__init__.py") for n in group]
                lines += [f"::: uiat.{name}.{each}\n" for each in inner]
            elif name not in ("MART", "TRADES", "sweep"):  # the same under another name
                lines += [f"::: uiat.api.{name}\n"]
        pages[page] = "\n".join(lines)
        index.append(f"- [{title}]({page}.md): " + ", ".join(f"`{name}`" for name in names))
    return pages | {"index": "\n".join(index) + "\n"}


def public_names(file: Path) -> list[tuple[str, list[str]]]:
    """Return the names in `__all__`, in the groups that comments between them head."""
    source = file.read_text(encoding="utf-8")
    start = source.index("__all__ = [")
    groups: list[tuple[str, list[str]]] = [("", [])]
    for token in tokenize.generate_tokens(io.StringIO(source[start:]).readline):
        if token.type == tokenize.COMMENT:
            groups.append((token.string.lstrip("# ").rstrip("."), []))
        elif token.type == tokenize.STRING:
            groups[-1][1].append(ast.literal_eval(token.string))
        elif token.string == "]":
            break
    return [(title, names) for title, names in groups if names]


def troubleshooting() -> str:
    """Return the page of all messages that a mistake is answered with, by the part of the package that says them."""
    lines = [
        "# Troubleshooting",
        "",
        "Every mistake is answered in one line that names what is wrong and what to do; the command line puts",
        "`uiat: error:` before it and exits with 2. Below are all of them, as the source has them. Words in",
        "capitals stand for values of yours: search for the words around them. Anything else, with a traceback,",
        "is a fault of the program: report it.",
        "",
        "A number that seems wrong is no error: `uiat evaluate` ends with a verdict: see [Evaluate](evaluate.md).",
    ]
    for area, title in AREAS.items():
        found = sorted({message for file in files_of(area) for message in messages(file)}, key=str.lower)
        if found:
            lines += ["", f"## {title}", "", *(f"- {quote(message)}" for message in found)]
    unknown = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()} - set(AREAS)
    nameless = [area for area in unknown - {"errors"} if any(list(messages(file)) for file in files_of(area))]
    assert not nameless, f"AREAS lacks a title of {nameless}"
    return "\n".join(lines) + "\n"


def files_of(area: str) -> list[Path]:
    """Return the source files of a room of the package."""
    return [SOURCE / f"{area}.py"] if (SOURCE / f"{area}.py").exists() else sorted((SOURCE / area).rglob("*.py"))


def quote(message: str) -> str:
    """Return a message as code in Markdown."""
    return f"`` {message} ``" if "`" in message else f"`{message}`"


def messages(file: Path) -> Iterator[str]:
    """Return what the errors that a file makes say, with capitals for what is filled in."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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


if __name__ == "__main__":
    main()
