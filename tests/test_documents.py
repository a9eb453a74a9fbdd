"""The examples of README.md, CONTRIBUTING.md and the guides in docs/ are run as they stand there.

A fenced block is run when the line before it is a directive: `<!-- test: run -->` runs it in an empty folder of its
own, `<!-- test: run NAME -->` runs all blocks of that name one after another in one folder, so that a later block can
use what an earlier one has written. In `console` blocks the lines after `$ ` are commands; the rest is their output,
which is not compared.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md"),
    *(
        "docs/methods.md",
        "docs/data.md",
        "docs/export.md",
        "docs/coming-from.md",
        "docs/fine-tune.md",
        "docs/own-model-and-data.md",
        "docs/own-loop.md",
        "docs/evaluate.md",
        "docs/report-and-sweep.md",
        "docs/scale-out.md",
    ),
)
BLOCK = re.compile(
    r"^<!-- test: run ?(?P<name>[\w-]*) -->\n+(?P<fence>`{3,})(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=fence)$",
    re.M | re.S,
)
# Plain commands of a block are run by one process: importing takes most of the time of a small run.
SHELL = re.compile(r"[|<>&;*$\\]")
IN_ONE_PROCESS = (
    "import shlex, sys; from uiat.cli import main; "
    "sys.exit(next((code for line in sys.argv[1:] if (code := main(shlex.split(line)[1:]))), 0))"
)
DIRECTIVE = re.compile(r"^<!-- test:.*$", re.M)


def chains(text: str) -> dict[str, list[tuple[str, str]]]:
    """Chain name -> its (language, code) blocks in the order of the text; a block without a name is its own chain."""
    found: dict[str, list[tuple[str, str]]] = {}
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        found.setdefault(match["name"] or f"line-{line}", []).append((match["language"], match["code"]))
    return found


def command(language: str, code: str) -> list[str]:
    """The process that runs one block."""
    if language == "python":
        return [sys.executable, "-c", code]
    if language == "console":
        lines = commands(code)
        if all(line.startswith("uiat ") and not SHELL.search(line) for line in lines):
            return [sys.executable, "-c", IN_ONE_PROCESS, *lines]
        code = "\n".join(lines)
    elif language not in {"bash", "sh"}:
        raise ValueError(f"a {language} block cannot be run; use python, bash, sh or console")
    return ["bash", "-euo", "pipefail", "-c", code]


def commands(code: str) -> list[str]:
    """The commands of a console block, with the lines that continue them after a backslash."""
    kept: list[str] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            kept.append(line[2:])
        elif kept and kept[-1].endswith("\\"):
            kept.append(line.removeprefix("> "))
    return kept


CHAINS = {
    (document, name): blocks
    for document in DOCUMENTS
    for name, blocks in chains((ROOT / document).read_text(encoding="utf-8")).items()
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_document_has_examples_that_are_run(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    mine = [blocks for (where, _), blocks in CHAINS.items() if where == document]
    assert mine, f"no block of {document} is marked with <!-- test: run -->"
    assert len(DIRECTIVE.findall(text)) == sum(map(len, mine)), "a test directive without a block after it"


# The guides: each block costs some seconds, and `make test-all` runs them.
LATER = {*DOCUMENTS} - {"README.md", "CONTRIBUTING.md"}


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=pytest.mark.slow if key[0] in LATER else (), id="-".join(key)) for key in CHAINS],
)
def test_example_runs(key, tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    sources = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"PATH": path, "PYTHONPATH": sources, "NO_COLOR": "1"}
    for language, code in CHAINS[key]:
        done = subprocess.run(command(language, code), cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_blocks_are_found():
    text = (
        "<!-- test: run -->\n```python\nprint(1)\n```\n```bash\nfalse\n```\n"
        "<!-- test: run a -->\n\n```console\n$ echo 1 \\\n>   2\n1 2\n$ echo 3\n3\n```\n"
        "<!-- test: run a -->\n```bash\ntrue\n```\n"
    )
    found = chains(text)
    assert found["line-3"] == [("python", "print(1)\n")]
    assert [language for language, _ in found["a"]] == ["console", "bash"]
    assert commands(found["a"][0][1]) == ["echo 1 \\", "  2", "echo 3"]
    assert command("console", "$ uiat show a\nrun a\n$ uiat show 'b c'\n")[2:] == [
        *(IN_ONE_PROCESS, "uiat show a", "uiat show 'b c'")
    ]
    assert command("console", "$ uiat show a\n$ uiat show b | cat\n")[-1] == "uiat show a\nuiat show b | cat"
