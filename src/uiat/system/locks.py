"""One kind of lock for trainings, evaluations and sweeps: it dies with the process that holds it."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from uiat.errors import Busy

SECONDS_BETWEEN_LOOKS = 0.2


@contextmanager
def locked(path: Path, message: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Inside, no other process, nor another thread of this one, can lock the same name.

    The lock is the system's, on an empty file `.NAME.lock` beside `path`: a kill releases it at once, and a file left
    behind means nothing. Processes that are forked inside, such as data workers, do not share it. Where the file
    system has no locks, or the folder cannot be written to, nothing is locked and nothing is refused.

    Args:
        path: what is locked; it need not exist, and where its folder does not, nothing is locked.
        message: what to say if somebody else holds the lock.
        on_wait: called once, before waiting for the lock; without it, nothing is waited for.

    Raises:
        Busy: somebody else holds it, and `on_wait` is None.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "a"
        ...     with locked(path, "in use"), locked(path, "in use"):
        ...         pass
        Traceback (most recent call last):
        uiat.errors.Busy: in use
    """
    file = path.absolute().parent / f".{path.name}.lock"
    if not file.parent.is_dir():  # FileLock would make it
        yield
        return
    lock = FileLock(file, thread_local=False, fallback_to_soft=False)
    try:
        held = _take(lock, message, on_wait)
        try:
            yield
        finally:
            if held:
                with suppress(OSError):  # while it is held: whoever waits for it sees that the file has gone
                    os.unlink(file)
    finally:
        with suppress(OSError):
            lock.release()


def clear_locks(folder: Path) -> None:
    """Remove the files of locks that nobody holds: a kill leaves them; they mean nothing, but stand there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for file in (".a.lock", ".b.lock"):
        ...         _ = (Path(name) / file).write_text("")
        ...     with locked(Path(name) / "a", "in use"):
        ...         clear_locks(Path(name))
        ...         print([path.name for path in Path(name).iterdir()])
        ['.a.lock']
    """
    for file in folder.glob(".*.lock"):
        with suppress(Busy), locked(folder / file.name.removeprefix(".").removesuffix(".lock"), "in use"):
            pass  # whoever has held a lock removes its file


def _take(lock: FileLock, message: str, on_wait: Callable[[], None] | None) -> bool:
    """Take the lock; False where there can be none."""
    waiting = False
    while True:
        try:
            lock.acquire(timeout=0)
            return True
        except Timeout:
            if on_wait is None:
                raise Busy(message) from None
        except (OSError, NotImplementedError):  # no locks here, which must not keep anyone from working
            return False
        if not waiting:
            waiting = True
            on_wait()
        time.sleep(SECONDS_BETWEEN_LOOKS)
