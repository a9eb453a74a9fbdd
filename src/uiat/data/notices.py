"""What a reader of data decided by itself, said once in a process however often the data are opened."""

import logging

logger = logging.getLogger("uiat")
_said: set[str] = set()


def warn_once(message: str, *, key: str | None = None) -> None:
    """Log a warning, unless one of the same key was logged before.

    Args:
        message: what was decided, and about which file or folder.
        key: what it is about; the message itself by default.

    Example:
        >>> warn_once("imagefolder:example: passed over .cache")
    """
    about = key if key is not None else message
    if about not in _said:
        _said.add(about)
        logger.warning(message)
