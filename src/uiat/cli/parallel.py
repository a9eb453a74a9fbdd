"""One training run or evaluation in several processes, as `torchrun` starts them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from uiat.errors import Lost, UserError
from uiat.processes import Share, launched, local_device, share

# Processes wait for the slowest, and all of them for the first while it does what only one need do.
PATIENCE = timedelta(days=7)
# What the backends say when a process that others wait for has gone.
_GONE = ("Connection closed", "Connection reset", "Broken pipe", "connection error", "NCCL", "remote process")


@contextmanager
def processes() -> Iterator[Share]:
    """This process's share, with `torch.distributed` initialised inside where `torchrun` started several.

    Raises:
        UserError: the processes cannot find each other.
        Lost: another process ended while this one waited for it.

    Example:
        >>> with processes() as part:
        ...     part.size
        1
    """
    if launched() == 1 or dist.is_initialized():
        yield share()
        return
    on_gpu = torch.cuda.is_available()
    try:
        if on_gpu:
            torch.cuda.set_device(local_device("cuda"))
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"WORLD_SIZE says that there are {launched()} processes, but: {reason}") from None
    try:
        yield share()
    except RuntimeError as error:
        if any(words in str(error) for words in _GONE):
            raise Lost(f"process {share().rank} of {share().size} lost another one, which has ended") from error
        raise
    finally:
        dist.destroy_process_group()
