"""The user's own code of a run: a copy of each file in RUN/own-code, its sha256 in the manifest, and what has changed.

The copies are never imported. They are there to be read, and to be put back: what runs is the file that the settings
name, and only while both are what the run began with.
"""

import shutil
from pathlib import Path
from typing import Any, Literal

from uiat.config.own_objectives import ENTRY_POINTS as OBJECTIVES
from uiat.config.own_objectives import is_objective_code
from uiat.config.schema import Run, is_own_data, is_own_model
from uiat.data.notices import warn_once
from uiat.data.own_data import ENTRY_POINTS as DATA_SETS
from uiat.errors import UserError
from uiat.system.manifest import MANIFEST_FILE, OWN_CODE, check_copy, read_manifest, sum_of_file
from uiat.system.own_code import find_source

# False: code that a run folder names does not run. True: it runs as it was. "changed": it runs as it is now.
AllowOwnCode = bool | Literal["changed"]


def keep_own_code(folder: Path, run: Run) -> dict[str, Any]:
    """Copy the files of a run's own code into its folder, and return what the manifest says of them.

    Args:
        folder: the run folder, which exists.
        run: the run.

    Returns:
        By the name in the settings: the copy's name and its sha256; nothing of code that is in no file.

    Raises:
        UserError: a copy cannot be written.

    Example:
        >>> keep_own_code(Path("runs/mine"), Run())
        {}
    """
    kept: dict[str, Any] = {}
    for name in own_names(run):
        source = _find_file(name)
        if source is None:
            continue
        copies = [entry["copy"] for entry in kept.values()]
        copy = f"{OWN_CODE}/{source.name}"
        if copy in copies:
            copy = f"{OWN_CODE}/{len(copies) + 1}-{source.name}"
        try:
            (folder / OWN_CODE).mkdir(exist_ok=True)
            shutil.copyfile(source, folder / copy)
        except OSError as error:
            raise UserError(f"cannot copy {source} to {folder / copy}: {error.strerror}") from None
        kept[name] = {"copy": copy, "sha256": sum_of_file(folder / copy)}
    return kept


def own_names(run: Run) -> list[str]:
    """Return the names of the user's own code in the settings of a run: its model, its data set, its objective.

    Example:
        >>> own_names(Run())
        []
    """
    names = [run.model.name] if is_own_model(run) else []
    names += [run.data.name] if is_own_data(run) else []
    return [*names, run.objective.name] if is_objective_code(run.objective.name) else names


def _find_file(name: str) -> Path | None:
    """Return the file of the code of an objective, a data set or a model."""
    return find_source(name, group=OBJECTIVES) or find_source(name, group=DATA_SETS)


def check_own_code(folder: Path, name: str, *, allowed: AllowOwnCode) -> None:
    """Refuse code of the user's own that a run names and that is not what the run began with; comes before its import.

    Args:
        folder: the run folder.
        name: what the settings name, such as mine.py:Pairing.
        allowed: "changed" to take the code as it is now.

    Raises:
        UserError: the file, or its copy in the folder, has changed or is missing; or the manifest does not list it.

    Example:
        >>> check_own_code(Path("missing-run"), "mine.py:Pairing", allowed=True)
    """
    if allowed == "changed":
        return
    manifest = read_manifest(folder)
    kept = (manifest or {}).get(OWN_CODE, {}).get(name)
    if kept is None:
        _check_unlisted(folder, name, whole=manifest is not None)
        return
    check_copy(folder, kept)
    source, copy = _find_file(name), folder / kept["copy"]
    where = str(source) if source is not None else name.rpartition(":")[0] or name
    if source is None:
        raise UserError(f"{where}, which {folder} names, is not there: put its copy {copy} back in its place")
    if sum_of_file(source) != kept["sha256"]:
        raise UserError(
            f"{where} has changed since {folder} began with it (as {copy}): put that back, start a new run, or allow "
            'the file as it is now with own_code="changed" (--changed-code)'
        )


def _check_unlisted(folder: Path, name: str, *, whole: bool) -> None:
    """Refuse code in a file of which a manifest has no entry; where there is no manifest, warn that it is unchecked."""
    source = _find_file(name)
    if source is None:  # code in no file has no copy, and a file that is not there is refused by its import
        return
    if whole:
        raise UserError(
            f"{source} is unchecked: {folder / MANIFEST_FILE} has no entry for {name!r}, so nothing says that it is "
            'the file that the run began with; read it, then allow it as it is with own_code="changed" (--changed-code)'
        )
    warn_once(f"{source} runs unchecked: {folder} has no {MANIFEST_FILE} to compare it with")
