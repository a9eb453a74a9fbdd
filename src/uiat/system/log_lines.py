"""Show what the package logs as lines on standard error."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from uiat.errors import strip_controls

# An attribute of log records that commands show on standard error although they are no warnings.
ANNOUNCED = "announced"


class PlainFormatter(logging.Formatter):
    """Formats a log line without the control characters of names in it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return strip_controls(super().format(record))


class _Stderr:
    """Writes to `sys.stderr` as it is at the time: a live display replaces it so that text comes out above the bars."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Lines(logging.Formatter):
    """Writes a record as a line that says if it is a warning."""

    def format(self, record: logging.LogRecord) -> str:
        kind = "warning: " if record.levelno >= logging.WARNING else ""
        return strip_controls(f"uiat: {kind}{record.getMessage()}")


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show the warnings that the package logs, and what it announces, as lines on standard error.

    Example:
        >>> with warnings_shown():
        ...     logging.getLogger("uiat").debug("not this")
    """
    logger, handler = logging.getLogger("uiat"), logging.StreamHandler(_Stderr())
    level = logger.level
    handler.setFormatter(_Lines())
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or hasattr(record, ANNOUNCED))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
