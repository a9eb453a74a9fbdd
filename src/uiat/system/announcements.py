"""Announce work beside the main one that takes its time, such as measuring what a machine is faster with."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("uiat")
# An attribute of log records that commands show on standard error although they are no warnings.
ANNOUNCED = "announced"


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Log that some work begins, and in the end how long it took; commands show it on standard error.

    Args:
        what: the work, as a noun with its purpose.

    Example:
        >>> with announced("measuring the machine"):
        ...     pass
    """
    started = time.perf_counter()
    logger.info("%s ...", what, extra={ANNOUNCED: True})
    yield
    logger.info("%s: %.1f s", what, time.perf_counter() - started, extra={ANNOUNCED: True})
