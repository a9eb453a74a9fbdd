"""Stop after the current step on Ctrl-C, SIGTERM, and what clusters and closing terminals send."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

# SIGUSR1 is what a cluster sends some minutes before it takes the machine back; SIGHUP comes when a terminal closes.
# Windows has neither.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
Handler = Callable[[int, FrameType | None], None]


class Stop:
    """A flag: `requested` is True once someone has asked the run to stop.

    Example:
        >>> Stop().requested
        False
    """

    requested = False


@contextmanager
def stop_on_signal(stop: Stop) -> Iterator[None]:
    """Inside, the first of these signals only sets `stop.requested`; Ctrl-C or SIGTERM after it stop at once.

    They raise KeyboardInterrupt. The others come several times to one process (a cluster warns a job and each of its
    steps) and only ever ask. A SIGHUP that is ignored stays ignored: `nohup` asks for that. Does nothing outside the
    main thread, where Python delivers no signals.

    Example:
        >>> stop = Stop()
        >>> with stop_on_signal(stop):
        ...     signal.raise_signal(signal.SIGINT)
        >>> stop.requested
        True
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested and number in (signal.SIGINT, signal.SIGTERM):
            raise KeyboardInterrupt
        stop.requested = True

    with _handled(dict.fromkeys(NAMES, handle)):
        yield


@contextmanager
def interrupt_on_signal() -> Iterator[None]:
    """Inside, SIGTERM, SIGHUP and SIGUSR1 raise KeyboardInterrupt, as Ctrl-C does.

    Example:
        >>> with interrupt_on_signal():
        ...     try:
        ...         signal.raise_signal(signal.SIGTERM)
        ...     except KeyboardInterrupt:
        ...         print("stopped")
        stopped
    """

    def handle(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled(dict.fromkeys(NAMES[1:], handle)):
        yield


@contextmanager
def _handled(handlers: Mapping[str, Handler]) -> Iterator[None]:
    """Inside, signals have these handlers, by name; afterwards those that they had."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    ignored = signal.SIGHUP if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else None
    previous = {number: signal.signal(number, new) for number, new in numbers.items() if number != ignored}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
