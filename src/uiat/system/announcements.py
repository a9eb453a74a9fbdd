"""Announce work beside the main one that takes its time, such as measuring what a machine is faster with."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from uiat.system.distributed import current_rank
from uiat.system.log_lines import ANNOUNCED

logger = logging.getLogger("uiat")


def announce(sentence: str, *, level: int = logging.INFO) -> None:
    """Log what was done, in the first process; commands show it on stderr.

    Args:
        sentence: what was done.
        level: `logging.WARNING` for what a user of Python is to see too.

    Example:
        >>> announce("start from weights.pth")
    """
    if current_rank().first:
        logger.log(level, "%s", sentence, extra={ANNOUNCED: True})


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Log that some work begins, and in the end how long it took, in the first process; commands show it on stderr.

    Args:
        what: the work, as a noun with its purpose.

    Example:
        >>> with announced("measuring the machine"):
        ...     pass
    """
    started, first = time.perf_counter(), current_rank().first
    if first:
        logger.info("%s ...", what, extra={ANNOUNCED: True})
    yield
    if first:
        logger.info("%s: %.1f s", what, time.perf_counter() - started, extra={ANNOUNCED: True})
