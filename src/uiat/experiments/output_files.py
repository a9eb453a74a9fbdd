"""Refuse, before any work, files to write to that cannot be written, or that hold something else."""

from collections.abc import Mapping
from fnmatch import fnmatch
from itertools import combinations
from pathlib import Path

from uiat.errors import UserError
from uiat.experiments.overview import FILES
from uiat.experiments.sweep_file import SWEEP_FILE
from uiat.runs.reader import CONFIG_FILE, EXTRA_TEACHER_FOLDER, TEACHER_FOLDER
from uiat.system.manifest import OWN_CODE, read_manifest

_NUMBERED = ("evaluation-*.json", "evaluation-state-*.safetensors")  # evaluations that stand side by side
_INNER_FOLDERS = (OWN_CODE, TEACHER_FOLDER, EXTRA_TEACHER_FOLDER)


def check_writable(
    outputs: Mapping[str, Path | None], *, inputs: Mapping[str, Path | None] | None = None, results: Path | None = None
) -> None:
    """Refuse files that cannot be written, two of one name, and those that a run or this command itself needs.

    Args:
        outputs: the files to write, by the name of their option; None for an option that was not given.
        inputs: the files that the command reads, likewise.
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
        if not path.absolute().parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is not a regular file")
        if is_run_file(path, results=results):
            raise UserError(f"{option} {path} is a file of a run or a sweep, and would be overwritten: name another")
        for other, source in (inputs or {}).items():
            if source is not None and source.resolve() == path.resolve():
                raise UserError(f"{option} {path} is the file of {other}, and would be overwritten: name another")
    for (one, path), (other, second) in combinations(given.items(), 2):
        if path.resolve() == second.resolve():
            raise UserError(f"both {one} and {other} are {path}: one would overwrite the other")


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
