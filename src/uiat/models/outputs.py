"""Unwrap the logits of models that return an object or a dictionary which holds them, as those of Hugging Face do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

# Models that were seen to return a plain tensor, by whether they were in train mode: these need no hook.
_PLAIN: WeakKeyDictionary[nn.Module, set[bool]] = WeakKeyDictionary()
_WRAPPING: WeakSet[nn.Module] = WeakSet()  # models that were seen to return something else
_HOOKED: WeakSet[nn.Module] = WeakSet()  # models that an outer context has unwrapped


def logits_of(output: Any) -> Any:
    """Return the `logits` of an object or a dictionary that holds them; anything else as it is.

    Example:
        >>> import torch
        >>> logits_of({"loss": None, "logits": torch.zeros(1, 2)}).shape
        torch.Size([1, 2])
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


@contextmanager
def logits_only(model: nn.Module) -> Iterator[None]:
    """Inside, a model that returns an object or a dictionary with `logits` returns these alone.

    The model stays the user's own: its state dict is unchanged, and outside it returns what it always did. A model that
    returned a tensor in its present mode before is not touched, nor is a script, which takes no hooks, nor a compiled
    model, unless the module that it was made of is known to return something else: a hook would compile it anew.

    Example:
        >>> import torch
        >>> class Wrapped(nn.Module):
        ...     def forward(self, x):
        ...         return {"logits": x}
        >>> model = Wrapped()
        >>> with logits_only(model):
        ...     type(model(torch.zeros(1, 2))).__name__
        'Tensor'
        >>> type(model(torch.zeros(1, 2))).__name__
        'dict'
    """
    compiled, model = hasattr(model, "_orig_mod"), getattr(model, "_orig_mod", model)
    mode = bool(getattr(model, "training", False))  # a frozen script has none
    untouched = isinstance(model, torch.jit.ScriptModule) or (compiled and model not in _WRAPPING)
    if untouched or model in _HOOKED or mode in _PLAIN.get(model, ()):
        yield
        return

    def unwrap(module: nn.Module, args: Any, output: Any) -> Any:
        if not torch.compiler.is_compiling():  # what is noted here is no part of a graph
            if isinstance(output, Tensor):
                _PLAIN.setdefault(module, set()).add(module.training)
            else:
                _WRAPPING.add(module)
        return logits_of(output)

    handle = model.register_forward_hook(unwrap)
    _HOOKED.add(model)
    try:
        yield
    finally:
        _HOOKED.discard(model)
        handle.remove()
