"""Tell glibc to keep freed memory (mallopt), which makes passes on a CPU about an eighth faster."""

import ctypes
import functools
import platform

import torch

# glibc's mallopt, malloc.h: a parameter's number, and its value. An allocation of this many bytes or more is a mapping
# of its own, given back when freed (32 MiB is the most that glibc allows) ...
_MMAP_THRESHOLD = (-3, 32 * 2**20)
# ... free memory at the end of the heap beyond this goes back to the system ...
_TRIM_THRESHOLD = (-1, 2**31 - 1)
# ... and the heap grows by at least this.
_TOP_PAD = (-2, 64 * 2**20)


def keep_memory(device: torch.device) -> bool:
    """Let this process keep the memory that it frees, for work on a CPU; once, and for good.

    A pass of a network allocates and frees the same tens of megabytes over and over. By default, glibc gives large
    blocks back to the system each time, and the kernel clears every page anew: an eighth of the time of a small
    network's passes in batches of 256 (docs/results/attacks.md), more where other processes do the same. torch does the
    same on a GPU, in its caching allocator. The process stays as large as it once was; weights and results do not
    change.

    Args:
        device: device of the passes; nothing is done unless it is a CPU.

    Returns:
        True if the process keeps its memory, False on a GPU and with a C library other than glibc.

    Example:
        >>> keep_memory(torch.device("meta"))
        False
    """
    return device.type == "cpu" and _set_malloc_options()


@functools.cache
def _set_malloc_options() -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # An allocator that was loaded instead of glibc's may have no such function, or ignore it.
    return mallopt is not None and all(mallopt(*setting) for setting in (_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD))
