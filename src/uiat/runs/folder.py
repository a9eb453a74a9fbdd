"""Make the folder of a run, never over one that exists, and lock it so that one run at a time writes to it."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.runs.config_file import FORMAT, dump_settings
from uiat.runs.own_files import keep_own_code
from uiat.runs.reader import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    WEIGHTS_FILES,
    read_environment,
)
from uiat.system.atomic_files import is_partial, partial_name, sync_folder, write_json, write_text
from uiat.system.atomic_folder import clear_abandoned, marked_in_use
from uiat.system.distributed import current_rank
from uiat.system.environment import describe_environment
from uiat.system.locks import clear_locks, locked
from uiat.system.manifest import MANIFEST_FILE, OWN_CODE, start_manifest, write_recorded

# What a rename answers if something has taken the name in the meantime.
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def make_folder(run: Run, run_dir: str | Path | None, **facts: Any) -> Path:
    """Make the run's folder, never one that exists, with config.yaml, environment.json and manifest.json in it.

    They are written into a temporary folder beside it, which is then renamed: a kill leaves a whole run, or none.

    Args:
        run: every setting.
        run_dir: the folder to make; `runs/NAME`, numbered where that exists, by default.
        facts: further JSON values for manifest.json, such as the weights that the run starts from.

    Raises:
        UserError: the folder exists or cannot be made, or the run's name is no name for a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_folder(Run(), Path(folder) / "mine").name
        'mine'
    """
    try:
        config = dump_settings(run)
    except yaml.YAMLError:
        raise UserError("the objective must be a frozen dataclass of plain values to be kept in a run folder") from None
    if run_dir is None and (run.name in ("", ".", "..") or set(run.name) & set("/\\\0") or not _is_text(run.name)):
        raise UserError(f"the run's name {run.name!r} cannot name its folder: choose a plain one, or give a run folder")
    numbered = (Path("runs") / (run.name if i == 1 else f"{run.name}-{i}") for i in itertools.count(1))
    for folder in numbered if run_dir is None else [Path(run_dir)]:
        if _make_whole(folder, config, run, facts):  # otherwise the next number
            return folder
    raise _taken(run_dir)


def _make_whole(folder: Path, config: str, run: Run, facts: dict[str, Any]) -> bool:
    """Make a folder with its first files at one stroke; False if there is one of that name."""
    if os.path.lexists(folder) and not is_killed_start(folder):
        return False
    temporary = folder.absolute().parent / partial_name(folder.name)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        clear_abandoned(folder, _remove_first_files)
        temporary.mkdir()
    except OSError as error:
        reason = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"cannot make the run folder {folder}: {reason}") from None
    try:
        with marked_in_use(temporary):
            write_text(temporary / CONFIG_FILE, config)
            write_json(temporary / ENVIRONMENT_FILE, describe_environment())
            facts = facts | {"settings": yaml_io.to_dict(run), OWN_CODE: keep_own_code(temporary, run)}
            start_manifest(temporary, [ENVIRONMENT_FILE], format=FORMAT, **facts)
            remove_killed_start(folder)
            os.rename(temporary, folder)  # only ever over an empty folder
            sync_folder(temporary.parent)
    except UserError as error:  # which names the temporary folder
        raise UserError(str(error).replace(str(temporary), str(folder))) from error
    except OSError as error:
        if error.errno in _TAKEN:  # another run of this name has started this moment
            return False
        raise UserError(f"cannot make the run folder {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _remove_first_files(folder: Path) -> None:
    """Remove a folder in which there is nothing but what a start writes; anything else is left, and the folder too."""
    for path in folder.iterdir():
        if path.name in (CONFIG_FILE, ENVIRONMENT_FILE, MANIFEST_FILE) or is_partial(path.name):
            path.unlink()
        elif path.name == OWN_CODE and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    folder.rmdir()


def is_killed_start(folder: Path) -> bool:
    """True if a folder holds half-written files and nothing else: a start of version 0.1 that was killed leaves it.

    Example:
        >>> is_killed_start(Path("missing"))
        False
    """
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir()]
    return bool(names) and all(map(is_partial, names))


def remove_killed_start(folder: Path) -> None:
    """Remove the half-written files of a killed start, and their folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     (Path(name) / "run").mkdir()
        ...     _ = (Path(name) / "run" / ".config.yaml.77.partial").write_text("name: a")
        ...     remove_killed_start(Path(name) / "run")
        ...     list(Path(name).iterdir())
        []
    """
    if is_killed_start(folder):
        _remove_first_files(folder)


def remove_unsaved_start(folder: Path) -> None:
    """Remove the folder of a run that was killed before it saved anything; any other is left.

    Example:
        >>> remove_unsaved_start(Path("missing"))
    """
    saved = (CHECKPOINT_FILE, METRICS_FILE, *WEIGHTS_FILES.values())
    if folder.is_symlink() or not (folder / CONFIG_FILE).is_file() or any((folder / name).exists() for name in saved):
        return
    clear_locks(folder)
    with suppress(OSError):  # there is something else in it
        _remove_first_files(folder)


def new_folder(run: Run, run_dir: str | Path | None, **facts: Any) -> Path:
    """Make the run's folder in the first of several processes, and return it in all; see `make_folder`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     new_folder(Run(), Path(folder) / "mine").name
        'mine'
    """
    rank = current_rank()
    own = rank.agree(lambda: make_folder(run, run_dir, **facts) if rank.first else None)
    return Path(next(folder for folder in rank.gather(own) if folder is not None))


@contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Inside, no other run can write to the folder; all processes of this run share the lock.

    Raises:
        Busy: another process trains in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked_run(Path(folder)):
        ...     pass
    """
    rank = current_rank()
    message = f"{folder} is being trained in already: wait for that run to end, or stop it first"
    with ExitStack() as inside:
        rank.agree(lambda: inside.enter_context(locked(folder / CHECKPOINT_FILE, message)) if rank.first else None)
        yield


def restore_environment(folder: Path, *, begins: bool) -> dict[str, Any]:
    """Return the environment that a run began in, from its file; where that is missing, write down the present one.

    Args:
        folder: the run folder; only the first of several processes writes to it.
        begins: True for a run that starts over, since nothing of it was saved: its environment is the present one.

    Raises:
        UserError: the file is damaged, or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     restore_environment(folder, begins=True) == restore_environment(folder, begins=False)
        True
    """
    if not begins and (folder / ENVIRONMENT_FILE).exists():
        return read_environment(folder)
    now = describe_environment()
    if current_rank().first:
        write_recorded(folder / ENVIRONMENT_FILE, (json.dumps(now, indent=2) + "\n").encode())
    return now


def check_new_folder(run_dir: str | Path | None) -> None:
    """Refuse a run folder that exists, or whose files could not be read again, before any work is done.

    All processes refuse it alike.

    Example:
        >>> check_new_folder(".")
        Traceback (most recent call last):
        uiat.errors.UserError: . exists and is never overwritten: choose another, or resume it with --resume
    """

    def check() -> None:
        if run_dir is not None and os.path.lexists(run_dir) and not is_killed_start(Path(run_dir)):
            raise _taken(run_dir)
        if run_dir is not None and not _is_text(str(run_dir)):
            raise UserError(
                f"{str(run_dir)!r} is not UTF-8, and safetensors could not read its files again: choose another folder"
            )

    current_rank().agree(check)


def _is_text(name: str) -> bool:
    """True for a name of UTF-8; Python keeps the bytes of any other one as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _taken(run_dir: str | Path | None) -> UserError:
    what = Path(str(run_dir))
    if what.is_dir() and not any(what.iterdir()):
        return UserError(f"{run_dir} exists and is never overwritten: it is empty, so remove it or choose another")
    return UserError(f"{run_dir} exists and is never overwritten: choose another, or resume it with --resume")
