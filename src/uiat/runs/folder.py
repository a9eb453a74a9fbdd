"""Make the folder of a run, never over one that exists, and lock it so that one run at a time writes to it."""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import yaml

from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.runs.config_file import FORMAT, dump_settings
from uiat.runs.reader import CONFIG_FILE, ENVIRONMENT_FILE
from uiat.system.atomic_files import PARTIAL, locked_folder, write_json, write_text
from uiat.system.distributed import current_rank
from uiat.system.environment import describe_environment
from uiat.system.manifest import start_manifest


def make_folder(run: Run, run_dir: str | Path | None) -> Path:
    """Make the run's folder, never one that exists, and write config.yaml, environment.json and manifest.json.

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
    if run_dir is None and (run.name in ("", ".", "..") or set(run.name) & set("/\\\0")):
        raise UserError(f"the run's name {run.name!r} cannot name its folder: choose a plain one, or give a run folder")
    numbered = (Path("runs") / (run.name if i == 1 else f"{run.name}-{i}") for i in itertools.count(1))
    for folder in numbered if run_dir is None else [Path(run_dir)]:
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:  # the next number: another run of this name may have started this moment
            continue
        except OSError as error:
            raise UserError(f"cannot make the run folder {folder}: {error.strerror}") from None
    else:
        raise _taken(run_dir)
    try:
        write_text(folder / CONFIG_FILE, config)
        write_json(folder / ENVIRONMENT_FILE, describe_environment())
        start_manifest(folder, [ENVIRONMENT_FILE], format=FORMAT, settings=yaml_io.to_dict(run))
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)  # made just now, so nothing but these can be in it
        raise
    return folder


def new_folder(run: Run, run_dir: str | Path | None) -> Path:
    """Make the run's folder in the first of several processes, and return it in all; see `make_folder`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     new_folder(Run(), Path(folder) / "mine").name
        'mine'
    """
    rank = current_rank()
    own = rank.agree(lambda: make_folder(run, run_dir) if rank.first else None)
    return Path(next(folder for folder in rank.gather(own) if folder is not None))


def remove_unborn(folder: Path) -> None:
    """Remove a folder that a kill left before its settings were in it: it is empty but for half-written files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     (Path(parent) / "run").mkdir()
        ...     remove_unborn(Path(parent) / "run")
        ...     (Path(parent) / "run").exists()
        False
    """
    if folder.is_dir() and all(path.name.startswith(".") and path.name.endswith(PARTIAL) for path in folder.iterdir()):
        for path in folder.iterdir():
            path.unlink()
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Inside, no other run can write to the folder; all processes of this run share the lock.

    Raises:
        UserError: somebody else is writing to it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked_run(Path(folder)):
        ...     pass
    """
    rank = current_rank()
    with ExitStack() as inside:
        rank.agree(lambda: inside.enter_context(locked_folder(folder)) if rank.first else None)
        yield


def check_new_folder(run_dir: str | Path | None) -> None:
    """Refuse a run folder that exists, before any work is done, and in all processes alike.

    Example:
        >>> check_new_folder(".")
        Traceback (most recent call last):
        uiat.errors.UserError: . exists and is never overwritten: choose another, or resume it with --resume
    """

    def check() -> None:
        if run_dir is not None and Path(run_dir).exists():
            raise _taken(run_dir)

    current_rank().agree(check)


def _taken(run_dir: str | Path | None) -> UserError:
    return UserError(f"{run_dir} exists and is never overwritten: choose another, or resume it with --resume")
