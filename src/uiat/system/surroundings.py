"""What the caller has set in torch, kept out of a computation and put back after it."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch
from torch import Tensor, nn

from uiat.errors import UserError

_DEVICE_TYPES = ("cpu", "cuda", "mps")


@contextmanager
def neutral_surroundings() -> Iterator[None]:
    """Inside, torch computes as it does by default, whatever surrounds the call; afterwards all is as it was.

    Autocast, inference mode and no_grad are off, new tensors are float32 on the CPU, and products of matrices are in
    full precision. The number of threads and the deterministic flag are the caller's, inside too, and are put back.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        ...     with neutral_surroundings():
        ...         print(torch.is_autocast_enabled("cpu"), torch.is_grad_enabled())
        ...     print(torch.is_autocast_enabled("cpu"), torch.is_grad_enabled())
        False True
        True False
    """
    with ExitStack() as stack:
        stack.enter_context(_restored_settings())
        for device in _DEVICE_TYPES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":  # a mode that each call of torch goes through: only where needed
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def _restored_settings() -> Iterator[None]:
    """Inside, the settings that are no context managers of torch have their defaults."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = _matmul_precision()
    try:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
        if precision not in (None, "highest"):
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        torch.set_default_dtype(dtype)
        if precision not in (None, "highest"):
            torch.set_float32_matmul_precision(precision)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _matmul_precision() -> str | None:
    """Return torch's setting for float32 products; None where it was set by the newer interface, which refuses this."""
    with suppress(RuntimeError):
        return torch.get_float32_matmul_precision()
    return None


@contextmanager
def restored_random_state() -> Iterator[None]:
    """Inside, torch's random numbers go on as they would; afterwards the generators are as the caller had them.

    Example:
        >>> state = torch.get_rng_state()
        >>> with restored_random_state():
        ...     _ = torch.rand(3)
        >>> torch.equal(state, torch.get_rng_state())
        True
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the random numbers of torch, numpy and Python begin at a seed; afterwards they go on as before.

    For code that is not this package's, which may draw from any of them.

    Example:
        >>> def draw():
        ...     with seeded(3):
        ...         return torch.rand(1).item(), np.random.rand(), random.random()
        >>> draw() == draw()
        True
    """
    others = np.random.get_state(), random.getstate()
    try:
        with restored_random_state():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(others[0])
        random.setstate(others[1])


def ordinary(x: Tensor) -> Tensor:
    """Return images that gradients can be taken at: a copy of a tensor that inference mode has made, others as is.

    Example:
        >>> with torch.inference_mode():
        ...     x = torch.rand(2)
        >>> ordinary(x).is_inference()
        False
    """
    with torch.inference_mode(False):
        return x.clone() if x.is_inference() else x


def check_ordinary(model: nn.Module) -> None:
    """Refuse a model whose weights inference mode has made: nothing can be differentiated through them.

    Raises:
        UserError: there are such weights.
    """
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and tensor.is_inference():
            raise UserError(f"the model's {name!r} was made inside torch.inference_mode(): build and load it outside")
