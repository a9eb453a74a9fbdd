"""Refuse, before any work, files to write to that cannot be written, or that hold something else."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path
from typing import Any

from uiat.errors import UserError
from uiat.experiments.overview import FILES
from uiat.experiments.sweep_file import SWEEP_FILE
from uiat.runs.reader import CONFIG_FILE, EVALUATION_FILE, EXTRA_TEACHER_FOLDER, TEACHER_FOLDER
from uiat.system.atomic_folder import probe
from uiat.system.bounded_files import read_file
from uiat.system.manifest import OWN_CODE, read_manifest
from uiat.system.tensor_files import read_metadata

EXAMPLES = "uiat.examples"  # the kind of a file of adversarial examples
LINK = "it is a link: name the file itself"
_NUMBERED = ("evaluation-*.json", "evaluation-state-*.safetensors")  # evaluations that stand side by side
_INNER_FOLDERS = (OWN_CODE, TEACHER_FOLDER, EXTRA_TEACHER_FOLDER)
_LOGS = (".log", ".txt", ".out", ".err")
_LOGGED = (b"initial accuracy: ", b"robust accuracy", b"in the worst case so far", b"the evaluation was begun")


def check_writable(
    outputs: Mapping[str, Path | None], *, inputs: Sequence[tuple[str, Path]] = (), results: Path | None = None
) -> None:
    """Refuse files that cannot be written, two of one name, and those that hold what would be lost.

    These are files of a run, files that the command reads, and any that the option did not write.

    Args:
        outputs: the files to write, by the name of their option; None for an option that was not given.
        inputs: the files that the command reads, each with what names it.
        results: the folder of the command's own results, which may not be there yet.

    Raises:
        UserError: names the option and what is wrong with its file.

    Example:
        >>> check_writable({"--json": None, "--log-file": Path("missing/a.log")})
        Traceback (most recent call last):
        uiat.errors.UserError: cannot write missing/a.log: there is no folder missing
    """
    given = {option: path for option, path in outputs.items() if path is not None}
    for option, path in given.items():
        _check_place(path)
        if is_run_file(path, results=results):
            raise UserError(f"{option} {path} is a file of a run or a sweep, and would be overwritten: name another")
        for other, source in inputs:
            if _are_same(path, source):
                raise UserError(f"{option} {path} is the file of {other}, and would be overwritten: name another")
        if path.is_symlink():
            raise UserError(f"cannot write {path}: {LINK}")
        what, is_own = _WRITTEN[option]
        # An empty file, as mktemp makes one, holds nothing to be lost.
        if path.exists() and path.stat().st_size and not is_own(path):
            raise UserError(f"{option} {path} exists and is not {what}: name another file, or move it away")
        if option != "--log-file":  # which is added to where it is, and opened before the work anyway
            probe(path)
    for (one, path), (other, second) in combinations(given.items(), 2):
        if os.path.realpath(path) == os.path.realpath(second) or _are_same(path, second):
            raise UserError(f"both {one} and {other} are {path}: one would overwrite the other")


def check_results(folder: Path | None, *, is_run: bool) -> None:
    """Refuse, before any work, a folder that cannot take evaluation.json.

    Args:
        folder: the folder, if a result is kept; what is not there yet is made later, before the evaluation.
        is_run: it is the folder of the run itself, in place of which there is --out.

    Raises:
        UserError: says what is wrong, and what helps.

    Example:
        >>> check_results(Path("missing"), is_run=True)
    """
    if folder is None:
        return
    path = folder / EVALUATION_FILE
    advice = "; --out DIR gives the result a folder of its own" if is_run else "; choose another --out"
    if os.path.isdir(path):  # anything else is replaced, and kept where it is a result
        raise UserError(f"cannot write {path}: it is a folder{advice}")
    probe(path, advice=advice)


def _check_place(path: Path) -> None:
    """Refuse a path at which there is no folder, or something that is no file."""
    try:
        if not path.absolute().parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is not a regular file")
        if path.is_symlink() and not path.exists():
            raise UserError(f"cannot write {path}: {LINK}")
    except OSError as error:  # too long a name, or a folder that may not be looked into
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _are_same(path: Path, other: Path) -> bool:
    """True for two names of one file that is there, by a link or in other letters too."""
    with suppress(OSError):
        return os.path.samefile(path, other)
    return False


def is_run_file(path: Path, *, results: Path | None = None) -> bool:
    """True for the name of a file that a run folder has or may come to have, and for the record of a sweep.

    Args:
        path: the file, which need not be there.
        results: a folder that counts as that of a run.

    Example:
        >>> is_run_file(Path("missing-run/config.yaml")), is_run_file(Path("a/config.yaml"), results=Path("a"))
        (False, True)
    """
    path = path.resolve()  # a link is as good as the file itself
    folder = path.parent
    if folder.name in _INNER_FOLDERS and (folder.parent / CONFIG_FILE).is_file():
        return True
    if (path.name == SWEEP_FILE and path.exists()) or path.name in _list_manifest(folder):
        return True
    is_known = path.name in FILES or any(fnmatch(path.name, pattern) for pattern in _NUMBERED)
    is_of_run = (folder / CONFIG_FILE).is_file() or (results is not None and results.resolve() == folder)
    return is_known and is_of_run


def _list_manifest(folder: Path) -> list[str]:
    try:
        return list((read_manifest(folder) or {"files": {}})["files"])
    except UserError:  # a damaged one; the usual names are known all the same
        return []


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, empty where there is none."""
    try:
        value = json.loads(read_file(path).decode())
    except (UserError, OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_evaluation(path: Path) -> bool:
    record = _read_object(path)
    return isinstance(record.get("accuracy"), dict) and {"threat", "n"} <= record.keys()


def _is_entry(path: Path) -> bool:
    """True for a record for RobustBench with the footnote of an evaluation: those of others have the same fields."""
    record = _read_object(path)
    return "clean_acc" in record and re.match(r"On [\d,]+ test images", str(record.get("footnote"))) is not None


def _is_examples(path: Path) -> bool:
    try:
        return read_metadata(path).get("kind") == EXAMPLES
    except UserError:
        return False


def _is_log(path: Path) -> bool:
    """True for a name that logs have, and for a file that begins as those of evaluations do."""
    if path.suffix.lower() in _LOGS or path.name.lower() == "log":
        return True
    try:
        with open(path, "rb") as file:
            return file.read(100).startswith(_LOGGED)
    except OSError:
        return False


# What each option writes, and how a file of it is told from any other.
_WRITTEN: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "--json": ("an evaluation in JSON", _is_evaluation),
    "--robustbench-json": ("a record for RobustBench of an evaluation", _is_entry),
    "--save-examples": ("a file of saved examples", _is_examples),
    "--log-file": (f"a log, whose name ends in {' or '.join(_LOGS[:2])}", _is_log),
}
