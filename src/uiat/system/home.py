"""The home folder in the paths that users write."""

import os
from pathlib import Path


def expand_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of a leading `~`.

    `~name` of a user who is not known stays as it is, a path that does not exist: `Path.expanduser` raises a
    RuntimeError there.

    Args:
        path: as a user wrote it, or as it stands in a file.

    Example:
        >>> expand_home("~nobody-of-this-name/x.npz"), expand_home("~") == Path.home()
        (PosixPath('~nobody-of-this-name/x.npz'), True)
    """
    return Path(os.path.expanduser(path))


def seen_from(path: str | os.PathLike[str]) -> str:
    """Say from which folder a relative path was looked up, for messages; nothing of an absolute one.

    Example:
        >>> seen_from("/images"), seen_from("images").startswith(", seen from ")
        ('', True)
    """
    return "" if expand_home(path).is_absolute() else f", seen from {os.getcwd()}"
