"""Read a file that may come from somebody else: a pipe would be waited for, and a device or a file of /proc never ends.

Every file of a run folder is read through here, or by safetensors, which maps no more of it than its size says.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uiat.errors import UserError

LARGEST = 2**26  # bytes of a record; the evaluation of a million images is not as long
_PIECE = 2**20


def read_file(path: Path, *, most: int = LARGEST) -> bytes:
    """Return the contents of a file.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        UserError: as for `pieces_of`.
        OSError: there is none, or it may not be read.

    Example:
        >>> read_file(Path("/dev/null"))
        Traceback (most recent call last):
        uiat.errors.UserError: cannot read /dev/null: it is no file
    """
    return b"".join(pieces_of(path, most=most))


def pieces_of(path: Path, *, most: int) -> Iterator[bytes]:
    """Yield the contents of a file piece by piece, up to the size that it has when it is opened.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        UserError: it is no regular file, has more than `most` bytes, or goes on behind its end, as files of /proc do.
        OSError: there is none, or it may not be read.

    Example:
        >>> list(pieces_of(Path("/dev/zero"), most=10))
        Traceback (most recent call last):
        uiat.errors.UserError: cannot read /dev/zero: it is no file
    """
    if not stat.S_ISREG(path.stat().st_mode):  # before it is opened, which would wait for a pipe
        raise UserError(f"cannot read {path}: it is no file")
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size  # of this very file: another may have taken its place since
        if left > most:
            raise UserError(f"cannot read {path}: it is larger than {most:,} bytes")
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece
        if file.read(1):
            raise UserError(f"cannot read {path}: it goes on behind the end that its size says")


@contextmanager
def nothing_of_links(path: Path, what: str) -> Iterator[None]:
    """Inside, an error about a file that is a link, which may lead to any file of this machine, repeats nothing of it.

    Args:
        path: the file.
        what: what it should hold.

    Example:
        >>> with nothing_of_links(Path("missing.yaml"), "the settings of a run"):
        ...     raise UserError("missing.yaml is no YAML")
        Traceback (most recent call last):
        uiat.errors.UserError: missing.yaml is no YAML
    """
    try:
        yield
    except UserError:
        if path.is_symlink():
            raise UserError(f"{path} is a link to something that does not hold {what}") from None
        raise
