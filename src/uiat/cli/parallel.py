"""One evaluation in several processes, as `torchrun` starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from uiat.errors import UserError
from uiat.evaluation.split import Share, share

# Processes wait for the slowest, and all of them for the first while it does what only one need do.
PATIENCE = timedelta(days=7)


def local_device(name: str) -> str:
    """The device of this process: with several on a machine and GPUs to choose from, each has its own.

    Example:
        >>> local_device("cpu")
        'cpu'
    """
    if _processes() > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    return name


@contextmanager
def processes() -> Iterator[Share]:
    """This process's share, with `torch.distributed` initialised inside where `torchrun` started several.

    Raises:
        UserError: the processes cannot find each other.

    Example:
        >>> with processes() as part:
        ...     part.size
        1
    """
    if _processes() == 1 or dist.is_initialized():
        yield share()
        return
    try:
        # Only small objects travel between them, which NCCL would need a GPU for.
        dist.init_process_group("gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"WORLD_SIZE says that there are {_processes()} processes, but: {reason}") from None
    try:
        yield share()
    finally:
        dist.destroy_process_group()


def _processes() -> int:
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdigit() else 1
