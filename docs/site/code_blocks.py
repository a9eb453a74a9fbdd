"""The code blocks of documents that are run: found, run, and shown with what they print.

A fenced block is run when the line before it is a directive: `<!-- test: run -->` runs it in an empty folder of its
own, `<!-- test: run NAME -->` runs all blocks of that name one after another in one folder, so that a later block can
use what an earlier one has written. In `console` blocks the lines after `$ ` are commands; the rest is their output.
The tests run all blocks of README.md, CONTRIBUTING.md and the guides; the site runs those of the tutorials.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"^<!-- test: run ?(?P<name>[\w-]*) -->\n+(?P<fence>`{3,})(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=fence)$",
    re.M | re.S,
)
DIRECTIVE = re.compile(r"^<!-- test:.*$", re.M)
# Plain commands of a block are run by one process: importing takes most of the time of a small run.
SHELL = re.compile(r"[|<>&;*$\\]")
IN_ONE_PROCESS = (
    "import shlex, sys; from uiat.cli import main; "
    "sys.exit(next((code for line in sys.argv[1:] if (code := main(shlex.split(line)[1:])) or print(end={!r})), 0))"
)
CUT = "\x1e"  # printed behind each command of a process that runs several


def chains(text: str) -> dict[str, list[tuple[str, str]]]:
    """Return chain name -> its (language, code) blocks in order; a block without a name is a chain of its own."""
    found: dict[str, list[tuple[str, str]]] = {}
    for match in BLOCK.finditer(text):
        found.setdefault(name_of_chain(match), []).append((match["language"], match["code"]))
    return found


def name_of_chain(match: re.Match[str]) -> str:
    """Return the name of the chain that a block belongs to: its own, or that of its line."""
    return match["name"] or f"line-{match.string.count(chr(10), 0, match.start('code')) + 1}"


def command(language: str, code: str, *, cut: str = "") -> list[str]:
    """Return the process that runs one block; `cut` is printed behind each of several `uiat` commands."""
    if language == "python":
        return [sys.executable, "-c", code]
    if language == "console":
        lines = commands(code)
        if is_plain(lines):
            return [sys.executable, "-c", IN_ONE_PROCESS.format(cut), *lines]
        code = "\n".join(lines)
    elif language not in {"bash", "sh"}:
        raise ValueError(f"a {language} block cannot be run; use python, bash, sh or console")
    return ["bash", "-euo", "pipefail", "-c", code]


def is_plain(lines: list[str]) -> bool:
    """Return whether commands are `uiat` commands without anything of the shell, which one process can run."""
    return all(line.startswith("uiat ") and not SHELL.search(line) for line in lines)


def commands(code: str) -> list[str]:
    """Return the commands of a console block, with the lines that continue them after a backslash."""
    kept: list[str] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            kept.append(line[2:])
        elif kept and kept[-1].endswith("\\"):
            kept[-1] += "\n" + line.removeprefix("> ")
    return kept


def run(process: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a process in a folder, with this source of the package, without colours; stderr goes to stdout."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    sources = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    plain = {"NO_COLOR": "1", "COLUMNS": "100", "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}
    env = os.environ | {"PATH": path, "PYTHONPATH": sources} | plain
    return subprocess.run(
        process, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
