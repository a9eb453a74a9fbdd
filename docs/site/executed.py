"""Tutorials and notebooks with what their code printed and drew when the site was built.

Outputs are kept in build/outputs under a hash of the code and of the package's source: a second build runs nothing
that has not changed.
"""

import functools
import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import code_blocks
from code_blocks import CUT, ROOT

CACHE = ROOT / "build" / "outputs"
FIGURE = re.compile(r"""savefig\(\s*["']([\w-]+\.(?:png|svg))["']""")
LONGEST = 36  # lines of an output; a longer one is cut in the middle
PICTURES = "drawn"  # folder of the figures, beside a page
Pictures = dict[str, Path]


def tutorial(text: str, pictures: Pictures) -> str:
    """Return a document with the output after each block that is run.

    Args:
        text: the document, in Markdown.
        pictures: figures that the blocks write, by name, are added to it.
    """
    outputs: dict[str, Iterator[str]] = {}
    for name, blocks in code_blocks.chains(text).items():
        found, files = cached(
            [f"{language}\n{code}" for language, code in blocks], functools.partial(run_chain, blocks)
        )
        outputs[name] = iter(found)
        pictures.update(files)

    def show(match: re.Match[str]) -> str:
        output = next(outputs[code_blocks.name_of_chain(match)])
        if match["language"] == "console":
            return fence(output, "console")
        return fence(match["code"], match["language"]) + shown(output, match["code"])

    return code_blocks.BLOCK.sub(show, text)


def notebook(text: str, pictures: Pictures) -> str:
    """Return a notebook in jupytext's percent format as Markdown, with the output after each cell of code."""
    found = cells(text)
    code = [source for kind, source in found if kind == "code"]
    outputs, files = cached(code, functools.partial(run_notebook, code))
    pictures.update(files)
    left, parts = iter(outputs), []
    for kind, source in found:
        parts.append(source if kind == "markdown" else fence(source, "python") + shown(next(left), source))
    return "\n\n".join(parts) + "\n"


def cells(text: str) -> list[tuple[str, str]]:
    """Return ("markdown" or "code", source) of each cell of a notebook in percent format."""
    found = []
    for part in re.split(r"^# %%", text, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            found.append(("markdown", re.sub(r"^# ?", "", body.strip("\n"), flags=re.M)))
        elif body.strip():
            found.append(("code", body.strip("\n") + "\n"))
    return found


def run_chain(blocks: list[tuple[str, str]], folder: Path) -> list[str]:
    """Return what each block of a chain prints; of a console block, each command followed by its output."""
    outputs = []
    for language, code in blocks:
        if language != "console":
            outputs.append(run(code_blocks.command(language, code), folder))
            continue
        lines = code_blocks.commands(code)
        if code_blocks.is_plain(lines):
            said = run(code_blocks.command(language, code, cut=CUT), folder).split(CUT)
        else:
            said = [run(code_blocks.command(language, f"$ {line}\n"), folder) for line in lines]
        pairs = zip(lines, said, strict=False)
        outputs.append("\n".join(f"$ {line}\n{shorten(output)}".rstrip() for line, output in pairs))
    return outputs


def run_notebook(code: list[str], folder: Path) -> list[str]:
    """Return what each cell prints, run one after another in one process."""
    script = f"\nprint({CUT!r}, flush=True)\n".join(code)
    return run([sys.executable, "-c", script], folder).split(f"{CUT}\n")


def run(process: list[str], folder: Path) -> str:
    """Return what a process prints; one that fails ends the build."""
    done = code_blocks.run(process, folder)
    if done.returncode:
        raise SystemExit(f"an example fails ({done.returncode}):\n{process[-1]}\n{done.stdout[-3000:]}")
    return done.stdout.replace(f"{folder}/", "").rstrip() + "\n" * bool(done.stdout)


def cached(code: list[str], make: Callable[[Path], list[str]]) -> tuple[list[str], Pictures]:
    """Return the outputs of code and the figures that it writes: those of an earlier build, or else of now."""
    sum_ = hashlib.sha256("\0".join([source_sum(), *code]).encode()).hexdigest()[:20]
    kept = CACHE / sum_
    if not (kept / "outputs.json").exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as folder:
            outputs = make(Path(folder))
            for figure in FIGURE.findall("\n".join(code)):
                shutil.copyfile(Path(folder, figure), kept / figure)
        (kept / "outputs.json").write_text(json.dumps(outputs), encoding="utf-8")
    figures = {figure: kept / figure for figure in FIGURE.findall("\n".join(code))}
    return json.loads((kept / "outputs.json").read_text(encoding="utf-8")), figures


@functools.cache
def source_sum() -> str:
    """Return a hash of the package's source, of which every output is."""
    sum_ = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        sum_.update(path.read_bytes())
    return sum_.hexdigest()


def shown(output: str, code: str) -> str:
    """Return the output of a block as Markdown: what it printed, and the figures that it saved."""
    text = f"\n\n{fence(shorten(output), 'text', ' .output')}" if output.strip() else ""
    return text + "".join(f"\n\n![Figure drawn by the code above]({PICTURES}/{each})" for each in FIGURE.findall(code))


def fence(code: str, language: str, extra: str = "") -> str:
    """Return code as a fenced block."""
    head = f"{{ .{language}{extra} }}" if extra else language
    return f"```{head}\n{code.rstrip()}\n```"


def shorten(output: str) -> str:
    """Leave out the middle of a long output."""
    lines = [line.rstrip() for line in output.splitlines()]
    if len(lines) > LONGEST:
        left_out = len(lines) - LONGEST
        lines = [*lines[: LONGEST // 2], f"... ({left_out} lines left out)", *lines[-LONGEST // 2 :]]
    return "\n".join(lines)
