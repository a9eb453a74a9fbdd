"""Temporary folders that become a folder at one stroke, which of them a kill has left; and links, which are refused."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor

from uiat.errors import UserError
from uiat.system.atomic_files import create_file, is_partial, partial_name


@contextmanager
def marked_in_use(temporary: Path) -> Iterator[None]:
    """Inside, the folder is there, and `clear_abandoned` of another process leaves it alone.

    Between its making and its mark another process may take it for abandoned and remove it: then it is made again.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, marked_in_use(Path(folder)):
        ...     pass
    """
    with ExitStack() as inside:
        with suppress(OSError):  # no descriptors of folders on Windows, nor locks everywhere
            while not _mark(temporary, inside):
                temporary.mkdir(exist_ok=True)
        yield


def _mark(temporary: Path, inside: ExitStack) -> bool:
    """Lock a folder until the stack is closed; False if it has been removed in the meantime."""
    try:
        descriptor = os.open(temporary, os.O_RDONLY)
        inside.callback(os.close, descriptor)
        lock_descriptor(descriptor)  # waits for a process that looks at it or removes it
        return os.path.samestat(os.fstat(descriptor), os.stat(temporary))
    except FileNotFoundError:
        return False


def clear_abandoned(folder: Path, remove: Callable[[Path], object]) -> None:
    """Remove the temporary folders that were to become a folder, and whose processes were killed before.

    Args:
        folder: what they were to become; it need not exist, its parent has to.
        remove: removes one of them, such as `shutil.rmtree`.

    Raises:
        OSError: the parent cannot be read.

    Example:
        >>> import shutil, tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     (Path(parent) / ".a.0f.partial").mkdir()
        ...     clear_abandoned(Path(parent) / "a", shutil.rmtree)
        ...     list(Path(parent).iterdir())
        []
    """
    for left in folder.absolute().parent.iterdir():
        if is_partial(left.name, folder.name) and left.is_dir() and not left.is_symlink():
            with suppress(OSError):
                descriptor = os.open(left, os.O_RDONLY)
                try:
                    if lock_descriptor(descriptor, blocking=False):
                        remove(left)
                finally:
                    os.close(descriptor)


def probe(path: Path, *, advice: str = "") -> None:
    """Refuse, before any work, a file that could not be written: a temporary neighbour is made, and removed again.

    Args:
        path: the file; where its folder is not there yet, the nearest folder above is tried, in which it would be made.
        advice: what to do, put behind the reason.

    Raises:
        UserError: its folder cannot be written to or made.

    Example:
        >>> probe(Path("missing/a.json"))
    """
    there = next(each for each in path.absolute().parents if os.path.lexists(each))
    if not there.is_dir():
        raise UserError(f"cannot write {path}: {there} is not a folder{advice}")
    neighbour = there / partial_name(path.name)
    try:
        os.close(create_file(neighbour))
        neighbour.unlink(missing_ok=True)  # another process may have taken it for a leftover
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}{advice}") from None


def refuse_link(path: Path) -> Path:
    """Return a path to write to, unless it is a link: a received folder must not choose where that is.

    Raises:
        UserError: it is a link.

    Example:
        >>> refuse_link(Path("missing"))
        PosixPath('missing')
    """
    if path.is_symlink():
        raise UserError(f"{path} is a link, and nothing is written through one: remove it")
    return path
