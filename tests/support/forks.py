"""Commands in forked processes, which need not import torch again: several at once, or killed at a chosen moment."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import jaxtyping
import torch

from uiat.cli import main


def start(
    words: Sequence[object], output: Path, *, errors: Path | None = None, before: Callable[[], None] = lambda: None
) -> int:
    """Run a command in a forked process and return the process's number.

    Args:
        words: the command line without `uiat`.
        output: the file of its standard output, and of standard error too if that has none of its own.
        errors: the file of its standard error.
        before: called in the process before the command.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        torch.set_num_threads(1)
        jaxtyping.config.update("jaxtyping_disable", True)  # typer's context is not of the class it names
        sys.stdout = sys.stderr = open(output, "w")  # noqa: SIM115 - for as long as the process lives
        sys.stderr = sys.stdout if errors is None else open(errors, "w")  # noqa: SIM115
        before()
        code = main([str(word) for word in words])
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """Wait for a forked process; returns its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Moments:
    """Counts the calls that change the disk, and kills the process at one of them (kill -9), before or after it.

    Args:
        at: number of the call, from 0; None only counts.
        after: True to let the call itself happen.
    """

    NAMES = ("mkdir", "open", "fsync", "replace", "rename", "chmod", "unlink", "rmdir")

    def __init__(self, at: int | None, *, after: bool = False) -> None:
        self.at, self.after, self.count = at, after, 0

    def watch(self) -> None:
        """Put the counting calls in place of those of `os`."""
        for name in self.NAMES:
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **options: object) -> object:
            now, self.count = self.count, self.count + 1
            if now == self.at and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*args, **options)
            finally:
                if now == self.at:
                    os.kill(os.getpid(), signal.SIGKILL)

        return counted
