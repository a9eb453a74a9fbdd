"""Gather the pages of the documentation site in build/docs: documents, tutorials with outputs, public names, errors.

Run by `make docs` before mkdocs. Names and errors are read from the source; the code of tutorials and notebooks is run
in processes of its own, the first time in some minutes (`executed.py`).
"""

import ast
import io
import os
import re
import shutil
import tokenize
from pathlib import Path

import errors
import executed
import paper_code

ROOT = Path(__file__).resolve().parents[2]
SOURCE, OUT = ROOT / "src" / "uiat", ROOT / "build" / "docs"
GUIDES = ("docs/*.md", "docs/results/*.md", "docs/tutorials/*.md", "docs/notebooks/*.py")
# Where a document stands on the site, by its path in the repository; of docs/ everything else keeps its place.
PAGES = {
    "README.md": "readme.md",
    "docs/README.md": "conventions.md",
    "docs/tutorials/README.md": "tutorials/index.md",
    "PAPER.md": "paper.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "benchmarks/RESULTS.md": "results/summary.md",
}
FILES = {
    "docs/pictures/method.png": "pictures/method.png",
    "docs/pictures/ball.svg": "pictures/ball.svg",
    "docs/cifar10-small/report.html": "cifar10-small/report.html",
    "docs/cifar10-medium/report.html": "cifar10-medium/report.html",
    "docs/explore-digits.html": "explore-digits.html",
}
INSTEAD = {  # the page that a browser shows
    "docs/cifar10-small/report.md": "docs/cifar10-small/report.html",
    "docs/cifar10-medium/report.md": "docs/cifar10-medium/report.html",
}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]+)\]\((?P<target>[^()\s]+)\)")
BLOCK = re.compile(r"(^```.*?^```$)", re.M | re.S)  # in which nothing is a link


def main() -> None:
    """Make the folder anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    pages = find_pages()
    for source, target in pages.items():
        pictures: executed.Pictures = {}
        text = prepare(source, (ROOT / source).read_text(encoding="utf-8"), pictures)
        write(target, rewrite(text, source, pages))
        for figure, path in pictures.items():
            copy(path, f"{os.path.dirname(target)}/{executed.PICTURES}/{figure}")
    write("index.md", start_page(pages))
    for source, target in FILES.items():
        copy(ROOT / source, target)
    for asset in ("style.css", "focus.js"):
        copy(Path(__file__).with_name(asset), asset)
    for name, text in reference().items():
        write(f"reference/{name}.md", text)


def prepare(source: str, text: str, pictures: executed.Pictures) -> str:
    """Return a document with what the site adds to it: outputs, messages, source."""
    if source.startswith("docs/tutorials/"):
        return executed.tutorial(text, pictures)
    if source.endswith(".py"):
        return executed.notebook(text, pictures)
    if source == "docs/troubleshooting.md":
        return errors.insert(text)
    return text + paper_code.beside(text) if source == "PAPER.md" else text


def start_page(pages: dict[str, str]) -> str:
    """Return the start page, with the picture of the method and tables of benchmarks/RESULTS.md.

    Raises:
        ValueError: RESULTS.md has no table of that title.
    """
    text = Path(__file__).with_name("start.md").read_text(encoding="utf-8")
    picture = (ROOT / "docs" / "pictures" / "ball.svg").read_text(encoding="utf-8")
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    head, titles, tail = re.split(r"<!-- results: (.+) -->", rewrite(text, "README.md", pages, "index.md"))
    tables = []
    for title in titles.split("; "):
        found = re.search(rf"^\*\*{re.escape(title)}.*?(?=^\*\*|^#|\Z)", results, re.M | re.S)
        if found is None:
            raise ValueError(f"benchmarks/RESULTS.md has no results of {title!r}")
        tables.append(rewrite(found[0].strip(), "benchmarks/RESULTS.md", pages, "index.md"))
    figure = f'<figure class="picture" tabindex="0">\n{picture}</figure>'  # a block, which Markdown leaves as it is
    return head.replace("<!-- picture -->", figure) + "\n\n".join(tables) + tail


def copy(source: Path, target: str) -> None:
    """Copy a file to the site."""
    (OUT / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, OUT / target)


def write(target: str, text: str) -> None:
    """Write a page of the site."""
    path = OUT / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def find_pages() -> dict[str, str]:
    """Return where each document stands on the site, by its path in the repository."""
    found = [path for where in GUIDES for path in sorted(ROOT.glob(where))]
    own = {path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").with_suffix(".md") for path in found}
    return {source: target.as_posix() for source, target in own.items()} | PAGES


def rewrite(text: str, source: str, pages: dict[str, str], page: str | None = None) -> str:
    """Let links lead to pages of the site; one to a file that the site has not becomes the file's name.

    Args:
        text: the document.
        source: its path in the repository, which its links start from.
        pages: where each document stands on the site.
        page: where this one does; by default that of `source`.
    """
    folder = os.path.dirname(page or pages[source]) or "."

    def turn(match: re.Match[str]) -> str:
        target, hash_, anchor = match["target"].partition("#")
        if "//" in target or not target or (match["image"] and target.startswith(executed.PICTURES)):
            return match[0]
        place = os.path.normpath(os.path.join(os.path.dirname(source), target))
        place = INSTEAD.get(place, place)
        if (there := (pages | FILES).get(place)) is None:
            return match["text"] if match["text"].strip("`") == place else f"{match['text']} (`{place}`)"
        way = os.path.relpath(there, folder)
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


if __name__ == "__main__":
    main()
