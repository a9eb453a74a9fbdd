"""cudnn.benchmark as a context manager: cuDNN tries its kernels and keeps to the fastest."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cudnn_benchmark(on: bool) -> Iterator[None]:
    """Let cuDNN try its kernels at each new shape of a convolution and keep to the fastest, inside.

    Its guess, used outside, can be far off: one strided 1x1 convolution in bf16 did without tensor cores. ResNet-18's
    step fell from 16.8 ms to 14.9 (docs/results/speed.md). The trials cost some seconds a run, so
    they are for work that meets few shapes many times; results differ in the last digits.

    Args:
        on: False leaves everything as it is.

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
