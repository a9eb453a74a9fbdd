"""Standard output and error that work outlives: a closed pipe, a full disk, a terminal that is gone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class LastingStream:
    """Text stream whose writes never fail: after the first that does, what is written goes nowhere.

    Characters that the stream's encoding lacks are written as escapes.

    Args:
        stream: the text stream.
        name: what the stream is, for the note on standard error that it is lost; "" for none.

    Example:
        >>> import io
        >>> full = io.StringIO()
        >>> full.close()
        >>> stream = LastingStream(full)
        >>> stream.write("text"), stream.lost is not None
        (4, True)
    """

    def __init__(self, stream: Any, name: str = "") -> None:
        self.stream, self.name = stream, name
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        """Write the text, or nothing."""
        if self.lost is None:
            try:
                self.stream.write(text)
            except UnicodeEncodeError as error:
                self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except (OSError, ValueError) as error:  # ValueError: it is closed
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush what was written, if it can be."""
        if self.lost is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def isatty(self) -> bool:
        """True for a terminal that is there."""
        with suppress(OSError, ValueError):
            return self.lost is None and self.stream.isatty()
        return False

    def _lose(self, error: Exception) -> None:
        self.lost = error
        with suppress(OSError, ValueError):  # what is left in its buffer would fail again when the process ends
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        if self.name and not isinstance(error, BrokenPipeError):  # a reader that has seen enough is no trouble
            reason = error.strerror if isinstance(error, OSError) else error
            with suppress(OSError, ValueError):
                print(f"uiat: warning: {self.name} cannot be written to: {reason}", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def lasting_output() -> Iterator[LastingStream]:
    """Inside, `sys.stdout` and `sys.stderr` never fail; yields the former, which says whether it was lost.

    Example:
        >>> with lasting_output() as out:
        ...     print("text")
        text
        >>> out.lost is None
        True
    """
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        # A process that is started without one of them (`>&-`) has None there.
        out, error = (stream if stream is not None else nowhere for stream in before)
        lasting = LastingStream(out, "standard output")
        replaced: tuple[Any, Any] = lasting, LastingStream(error)
        sys.stdout, sys.stderr = replaced
        try:
            yield lasting
            lasting.flush()
            sys.stderr.flush()
        finally:
            sys.stdout, sys.stderr = before
