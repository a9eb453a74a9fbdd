"""Commands in forked processes, which need not import torch again: several at once, or killed at a chosen moment."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from uiat.cli import main


def start(words: Sequence[object], output: Path, *, before: Callable[[], None] = lambda: None) -> int:
    """Run a command in a forked process, its output in a file; returns the process's number."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        torch.set_num_threads(1)
        with open(output, "w") as file:
            sys.stdout = sys.stderr = file
            before()
            code = main([str(word) for word in words])
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """Wait for a forked process; returns its exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
