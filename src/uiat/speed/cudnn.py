"""Convolutions on a GPU: of the kernels that compute one, cuDNN's guess or the fastest of those tried."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cudnn_benchmark(on: bool) -> Iterator[None]:
    """Inside, cuDNN tries its kernels at each new shape of a convolution and keeps to the fastest.

    Its guess, used outside, can be far off: one strided 1x1 convolution in bf16 did without tensor cores. ResNet-18's
    step fell from 16.8 ms to 14.9 (docs/results/speed.md). The trials cost some seconds a run, so
    they are for work that meets few shapes many times; results differ in the last digits.

    Args:
        on: off, everything is as it was.

    Example:
        >>> with cudnn_benchmark(True):
        ...     torch.backends.cudnn.benchmark
        True
        >>> torch.backends.cudnn.benchmark
        False
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
