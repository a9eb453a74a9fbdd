"""Adversarial training with inverse adversaries (UIAT, CVPR 2023): train, attack and evaluate robust classifiers.

The public interface is what `uiat.api` gathers, grouped by meaning; everything else may change between versions. It is
loaded by the first use of one of its names, so that `uiat --help` does not wait for torch.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uiat.api import *  # noqa: F403
    from uiat.api import __version__ as __version__


def __getattr__(name: str) -> Any:
    """Import a submodule, or the public interface, at the first use of a name."""
    if name == "__all__" or name == "__version__" or not name.startswith("_"):
        if find_spec(f"{__name__}.{name}") is not None:
            return import_module(f"{__name__}.{name}")
        api = import_module(f"{__name__}.api")
        if hasattr(api, name):
            return globals().setdefault(name, getattr(api, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
