"""torch.compile for training: compile a model, and check that this machine has a compiler."""

import os
import shutil
import sys

import torch
from torch import nn

from uiat.errors import UserError


def compile_model(model: nn.Module) -> nn.Module:
    """Compile a module's forward pass, for each shape of images that it meets; the parameters stay the module's.

    Raises:
        UserError: there is no C++ compiler or, for a GPU, no C compiler.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> not can_compile(torch.device("cpu")) or compile_model(model).weight is model.weight
        True
    """
    if not can_compile(next(model.parameters()).device):
        names = " or ".join(_compilers(next(model.parameters()).device))
        raise UserError(f"compile needs a compiler, but there is no {names}: install one, or train without")
    result: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return result


def can_compile(device: torch.device) -> bool:
    """True if this machine has what torch.compile needs: a C++ compiler on a CPU, a C compiler for an NVIDIA GPU.

    Example:
        >>> can_compile(torch.device("mps"))
        True
    """
    names = _compilers(device)
    return not names or any(shutil.which(name) for name in names)


def _compilers(device: torch.device) -> tuple[str, ...]:
    """Names of the programs of which one is needed: torch's choice on a CPU, Triton's on an NVIDIA GPU."""
    match device.type:
        case "cpu":
            return (os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"),)
        case "cuda":
            return (os.environ["CC"],) if "CC" in os.environ else ("gcc", "clang")
    return ()
