"""Ctrl-C and SIGTERM as a question that training answers between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """Whether someone has asked the run to stop.

    Example:
        >>> Stop().asked
        False
    """

    asked = False


@contextmanager
def stop_on_signal(stop: Stop) -> Iterator[None]:
    """Inside, the first Ctrl-C or SIGTERM only sets `stop.asked`; a second one raises KeyboardInterrupt at once.

    Does nothing outside the main thread, where Python delivers no signals.

    Example:
        >>> stop = Stop()
        >>> with stop_on_signal(stop):
        ...     signal.raise_signal(signal.SIGINT)
        >>> stop.asked
        True
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: object) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, signal.SIG_DFL if handler is None else handler)
