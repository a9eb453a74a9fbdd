"""Throughput of a machine: operations a second in matrix products and convolutions, and timing that waits for a GPU."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Sizes large enough to reach the full rate: side of a square matrix; images in a 3x3 convolution of 64 channels.
MATRIX = {"cpu": 1_024, "cuda": 8_192}
IMAGES = {"cpu": 64, "cuda": 512}


def matrix_rate(device: torch.device, precision: str) -> float:
    """Measure the operations a second in a product of two square matrices.

    Example:
        >>> matrix_rate(torch.device("cpu"), "fp32") > 0
        True
    """
    n = MATRIX.get(device.type, 1_024)
    a = torch.rand(n, n, device=device, dtype=_dtype(precision))
    return 2.0 * n**3 / median_seconds(lambda: a @ a, 7, device)


def convolution_rate(device: torch.device, precision: str) -> float:
    """Measure the operations a second in a 3x3 convolution from 64 to 64 channels of 32x32 images, channels-last.

    Example:
        >>> convolution_rate(torch.device("cpu"), "fp32") > 0
        True
    """
    images = IMAGES.get(device.type, 64)
    options: dict[str, Any] = {"device": device, "dtype": _dtype(precision)}
    x = torch.rand(images, 64, 32, 32, **options).contiguous(memory_format=torch.channels_last)
    w = torch.rand(64, 64, 3, 3, **options).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        seconds = median_seconds(lambda: nn.functional.conv2d(x, w, padding=1), 7, device)
    return 2.0 * images * 32 * 32 * 64 * 64 * 9 / seconds


def _dtype(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


def median_seconds(work: Callable[[], object], times: int, device: torch.device, *, warm: int = 1) -> float:
    """Measure the seconds that work takes: the median of several times.

    Args:
        work: function to time.
        times: number of timed calls.
        device: device of the work, which is waited for.
        warm: number of calls before the timed ones.

    Example:
        >>> median_seconds(lambda: None, 3, torch.device("cpu")) < 1
        True
    """
    seconds = []
    for _ in range(times + warm):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[warm:])
