"""Stop after the current step on Ctrl-C or SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """A flag: `requested` is True once someone has asked the run to stop.

    Example:
        >>> Stop().requested
        False
    """

    requested = False


@contextmanager
def stop_on_signal(stop: Stop) -> Iterator[None]:
    """Inside, the first Ctrl-C or SIGTERM only sets `stop.requested`; the second one raises KeyboardInterrupt.

    Does nothing outside the main thread, where Python delivers no signals.

    Example:
        >>> stop = Stop()
        >>> with stop_on_signal(stop):
        ...     signal.raise_signal(signal.SIGINT)
        >>> stop.requested
        True
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, before in previous.items():
            signal.signal(s, signal.SIG_DFL if before is None else before)
