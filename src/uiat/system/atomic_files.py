"""Write files atomically: whole or not at all, flushed to the disk, and never through a link."""

import errno
import json
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import lock_descriptor

from uiat.errors import UserError

PARTIAL = ".partial"
# A temporary file that another process has taken for a leftover is written once more, at most so often.
ATTEMPTS = 3
LONGEST_NAME = 200  # bytes of a file's name that go into that of its temporary file; file systems take 255
# What a folder answers to fsync where there is no such thing.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: to a temporary neighbour, flushed to disk, then renamed over `path`.

    A file that is written again keeps its permissions. The temporary file has a name that cannot be foreseen, and is
    made by this call or not at all, so that nobody can plant a link in its place.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_bytes(Path(folder) / "a.txt", b"hello")
        ...     (Path(folder) / "a.txt").read_text()
        'hello'
    """
    clear_partial(path.parent, path.name)
    for attempt in range(ATTEMPTS):
        try:
            _write_and_rename(path, content)
            return
        except FileNotFoundError as error:
            if attempt == ATTEMPTS - 1 or not path.parent.is_dir():
                raise UserError(f"cannot write {path}: {error.strerror}") from error
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _write_and_rename(path: Path, content: bytes) -> None:
    temporary, mode = path.parent / partial_name(path.name), _permissions(path)
    descriptor = create_file(temporary, mode=0o666 if mode is None else stat.S_IRUSR | stat.S_IWUSR)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with suppress(OSError):  # a file system without locks: nobody can tell that this file is in use
                lock_descriptor(file.fileno(), blocking=False)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def partial_name(name: str) -> str:
    """Return a name for the temporary neighbour of a file or folder, another one each time.

    Example:
        >>> partial_name("a.txt").startswith(".a.txt."), partial_name("a.txt") == partial_name("a.txt")
        (True, False)
    """
    return f"{_partial_start(name)}{secrets.token_hex(8)}{PARTIAL}"


def _partial_start(name: str) -> str:
    return f".{os.fsdecode(os.fsencode(name)[:LONGEST_NAME])}."


def _permissions(path: Path) -> int | None:
    """Return the permissions of the file that is about to be replaced; None if there is none, or a link."""
    with suppress(OSError):
        found = os.lstat(path)
        return stat.S_IMODE(found.st_mode) & 0o777 if stat.S_ISREG(found.st_mode) else None
    return None


def create_file(path: Path, *, mode: int = 0o666, append: bool = False) -> int:
    """Open a new file for writing, or one to append to, and return its descriptor; a link is never followed.

    Raises:
        OSError: it is there already, or, to be appended to, is a link.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "link").symlink_to(Path(folder) / "elsewhere")
        ...     create_file(Path(folder) / "link")
        Traceback (most recent call last):
        FileExistsError: ...
    """
    how = os.O_APPEND if append else os.O_EXCL
    alone = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, os.O_WRONLY | os.O_CREAT | how | alone | getattr(os, "O_BINARY", 0), mode)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of files to disk, so that a rename in it outlives a power cut; nothing on Windows."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def clear_partial(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files that a kill left in a folder; nothing reads them, but they take space.

    One that a living process writes is left: it holds a lock.

    Args:
        folder: the folder.
        name: of the file that they were to become; any by default.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / ".a.txt.123.partial").write_text("hel")
        ...     clear_partial(Path(folder))
        ...     list(Path(folder).iterdir())
        []
    """
    with suppress(OSError):
        for entry in os.scandir(folder):
            if is_partial(entry.name, name) and not entry.is_dir(follow_symlinks=False):
                with suppress(OSError):
                    _remove_abandoned(Path(entry.path))


def is_partial(name: str, of: str | None = None) -> bool:
    """True for the name of a temporary file or folder: any, or that of a certain one.

    Example:
        >>> is_partial(".a.txt.0f.partial"), is_partial(".a.txt.0f.partial", "b.txt"), is_partial("a.partial")
        (True, False, False)
    """
    start = re.escape("." if of is None else _partial_start(of))
    return re.fullmatch(rf"{start}.*{re.escape(PARTIAL)}", name, re.DOTALL) is not None


def _remove_abandoned(path: Path) -> None:
    if not path.is_symlink() and path.is_file():
        # Non-blocking, so that nothing that stands in its place can keep this waiting.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            if not lock_descriptor(descriptor, blocking=False):
                return
        finally:
            os.close(descriptor)
    path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "a.txt", "hello")
    """
    write_bytes(path, text.encode())


def ensure_folder(folder: Path) -> Path:
    """Make a folder and those above it where they are missing, and return it.

    Raises:
        UserError: it cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ensure_folder(Path(folder) / "a" / "b").is_dir()
        True
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from None
    return folder


def check_page(out: Path, tool: str) -> None:
    """Refuse to `--save` a page in the place of a file that the tool did not write.

    Raises:
        UserError: there is such a file, or the name does not end in .html.

    Example:
        >>> check_page(Path("page.pdf"), "uiat explore")
        Traceback (most recent call last):
        uiat.errors.UserError: --save page.pdf should end in .html
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--save {out} should end in .html")
    if out.exists() and not is_written_by(out, tool):
        raise UserError(f"{out} exists and was not written by {tool}: give another name, or move it away")


def is_written_by(path: Path, tool: str) -> bool:
    """True if the first 400 bytes of a file say "written by" and the tool, such as `uiat report`, which may replace it.

    Example:
        >>> is_written_by(Path("missing.html"), "uiat report")
        False
    """
    try:
        with open(path, "rb") as file:
            return f"written by {tool}".encode() in file.read(400)
    except OSError:
        return False


def write_json(path: Path, value: Any) -> None:
    """Write a value atomically as an indented JSON document.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"accuracy": 0.5})
    """
    write_text(path, json.dumps(value, indent=2) + "\n")
