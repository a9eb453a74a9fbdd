"""Load weights that another program saved: without running anything in them, unwrapped and fitted to a model."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat.checks import checked
from uiat.errors import UserError
from uiat.system.home import expand_home
from uiat.system.manifest import check_file
from uiat.system.tensor_files import read_tensors

# Where checkpoints keep the weights, the likeliest first; an entry of another name is found too.
ENTRIES = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "best", "last")
# What wrappers put before every name: DataParallel and its kin, and torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel, beside the weights of its "module"
# Constants of a normalisation inside a model, which its constructor sets and many checkpoints leave out.
CONSTANTS = ("mean", "std", "mu", "sigma")
# The largest standard deviation of a new last layer, as usual in fine-tuning. Some networks draw it by the number of
# classes (EfficientNet: 0.18 for 10): their loss would start at 20, and the first steps would undo what was learned.
NEW_LAYER_STD = 0.01
_DEEPEST, _NAMES = 3, 3


@checked
def load_weights(model: nn.Module, path: str | Path) -> list[str]:
    """Load the weights of a file into a model, and return a line for each change that made them fit.

    A .safetensors file is read as one; every other file by `torch.load(weights_only=True)`, which runs nothing that
    the file names. Wrappers are undone: an entry such as "state_dict", prefixes such as "module." of DataParallel and
    "_orig_mod." of torch.compile, one prefix that all names share, or that all names of the model share.

    Args:
        model: the model, changed in place.
        path: the file of weights.

    Raises:
        UserError: no such file, a file that is damaged or holds more than tensors, weights that do not fit the model.

    Example:
        >>> import tempfile
        >>> net = nn.Linear(2, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, f"{folder}/w.pth")
        ...     load_weights(net, f"{folder}/w.pth")
        ["the weights are its entry 'state_dict'", "'module.' was taken off the names"]
    """
    tensors, notes = read_state_dict(path)
    return notes + fit_state_dict(model, tensors, source=path)


def read_state_dict(path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """Read the weights of a file, and notes on where in it they lie; nothing in it is run.

    Raises:
        UserError: no such file, or a file that is damaged or holds more than tensors.

    Example:
        >>> read_state_dict("missing.pth")
        Traceback (most recent call last):
        uiat.errors.UserError: no such file: missing.pth
    """
    path = expand_home(path)
    entry, tensors, notes = _choose(_read(path), path)
    return tensors, [f"the weights are its entry {entry!r}", *notes] if entry else notes


def fit_state_dict(
    model: nn.Module, tensors: dict[str, Tensor], *, source: str | Path, num_classes: int | None = None
) -> list[str]:
    """Load weights into a model, unwrapped and renamed to fit, and return a line for each change that it took.

    Args:
        model: the model, changed in place.
        tensors: the weights, by name.
        source: where they come from, for messages.
        num_classes: K of the model, if a last layer of another number of classes is to be left out: the model keeps its
            own, new one, see `shrink_new_layer`. None refuses such weights.

    Raises:
        UserError: weights that do not fit the model.

    Example:
        >>> old, net = nn.Linear(4, 10), nn.Linear(4, 2)
        >>> fit_state_dict(net, old.state_dict(), source="w.pth", num_classes=2)
        ['the last layer (weight, bias) is new: the weights are of 10 classes, the model has 2']
    """
    own = model.state_dict()
    tensors, removed = _unwrap(tensors, own)
    notes = [f"{prefix!r} was taken off the names" for prefix in removed]
    tensors, changes = _fix_prefix(tensors, own)
    notes += changes
    absent = [name for name in _missing(tensors, own) if name.rpartition(".")[2] in CONSTANTS]
    if absent and not set(tensors) - set(own):
        notes.append(f"{_list(absent)} not in it: as the model was built")
        tensors = tensors | {name: own[name] for name in absent}
    if num_classes is not None and (last := _last_layer(tensors, own, num_classes)):
        classes = len(tensors[last[0]])
        notes.append(
            f"the last layer ({_list(last)}) is new: the weights are of {classes} classes, the model has {num_classes}"
        )
        tensors = tensors | {name: shrink_new_layer(own[name]) for name in last}
    _check(tensors, own, Path(source))
    model.load_state_dict(tensors)
    return notes


def shrink_new_layer(weight: Tensor) -> Tensor:
    """Scale the matrix of a new last layer down to a standard deviation of 0.01, if it is larger; a bias is kept.

    Example:
        >>> shrink_new_layer(torch.tensor([[2.0, -2.0], [1.0, 1.0]])).std(correction=0).item()
        0.009999999776482582
    """
    deviation = weight.detach().std(correction=0).item() if weight.ndim > 1 else 0.0
    return weight * (NEW_LAYER_STD / deviation) if deviation > NEW_LAYER_STD else weight


def _last_layer(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], num_classes: int) -> list[str]:
    """Return the names whose shapes differ in nothing but the number of classes, their first side; none if others do.

    A network with heads beside its last layer, such as a distilled transformer, has more than one such layer.
    """
    differ = [name for name in tensors if name in own and tensors[name].shape != own[name].shape]
    of_classes = all(
        own[name].ndim == tensors[name].ndim > 0
        and len(own[name]) == num_classes
        and own[name].shape[1:] == tensors[name].shape[1:]
        for name in differ
    )
    return differ if of_classes and len({len(tensors[name]) for name in differ}) == 1 else []


def _read(path: Path) -> Any:
    """Read a file without running anything in it."""
    if path.is_dir():
        inside = next((name for name in ("best.safetensors", "last.safetensors") if (path / name).is_file()), None)
        raise UserError(f"{path} is a folder: give {f'its {path / inside}' if inside else 'a file of weights in it'}")
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    if path.suffix == ".safetensors":
        tensors = read_tensors(path)[0]
        check_file(path)  # of a run folder
        return tensors
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever bytes make of the reader
        raise _unreadable_error(path, error) from None


def _unreadable_error(path: Path, error: Exception) -> UserError:
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return UserError(f"{path} is a web page and holds no weights: its download has failed")
    if type(error).__name__ == "UnpicklingError":
        _, marker, rest = str(error).partition("GLOBAL ")
        what = f", such as {rest.split()[0]}" if marker else ""
        return UserError(
            f"{path} is damaged or holds Python objects beside tensors{what}; nothing in it was run: save the model's "
            "state_dict alone, with torch.save(model.state_dict(), ...)"
        )
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{path} is not a readable file of weights (truncated, damaged or foreign): {reason}")


def _choose(content: Any, path: Path) -> tuple[str, dict[str, Tensor], list[str]]:
    """Choose the state dict in a file: (its entry, the state dict, notes on others that it might have been)."""
    candidates = dict(_state_dicts(content))
    if not candidates:
        keys = f" but {_list(map(str, content))}" if isinstance(content, Mapping) and content else ""
        raise UserError(f"{path} holds no named weights{keys}")
    first = min(candidates, key=lambda entry: (_rank(entry), len(entry)))
    others = [entry for entry in candidates if entry != first]
    return first, candidates[first], [f"it also holds {_list(others)}, not used"] if others else []


def _rank(entry: str) -> int:
    outer = entry.partition("/")[0]
    return ENTRIES.index(outer) if outer in ENTRIES else len(ENTRIES) if outer else -1


def _state_dicts(content: Any, entry: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping from names to tensors alone, with the path to it."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return
    if content and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        yield entry, dict(content)
    for key, value in content.items():
        yield from _state_dicts(value, f"{entry}/{key}" if entry else str(key), depth + 1)


def _unwrap(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Remove the prefixes of wrappers, however deeply nested, unless the model's names have them too."""
    removed: list[str] = []
    tensors = {name: value for name, value in tensors.items() if name != COUNTER or name in own}
    prefixes = [prefix for prefix in WRAPPERS if not any(name.startswith(prefix) for name in own)]
    while prefix := next((p for p in prefixes if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        removed.append(prefix)
    return tensors, removed


def _fix_prefix(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Remove or add one prefix on every name, if that and nothing else makes them the model's names."""
    if _fits(tensors, own):
        return tensors, []
    for prefix in {f"{name.partition('.')[0]}." for name in tensors}:
        fewer = {name.removeprefix(prefix): value for name, value in tensors.items()}
        if all(name.startswith(prefix) for name in tensors) and _fits(fewer, own):
            return fewer, [f"{prefix!r} was taken off the names"]
    for prefix in {f"{name.partition('.')[0]}." for name in own}:
        more = {prefix + name: value for name, value in tensors.items()}
        if _fits(more, own):
            return more, [f"{prefix!r} was put before the names"]
    return tensors, []


def _fits(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    left = (name.rpartition(".")[2] for name in _missing(tensors, own))
    return set(tensors) <= set(own) and all(name in CONSTANTS for name in left)


def _missing(tensors: Iterable[str], own: Iterable[str]) -> list[str]:
    """Return the names that the model lacks, but for the counters of BatchNorm, which no prediction reads."""
    have = set(tensors)
    return [name for name in own if name not in have and not name.endswith("num_batches_tracked")]


def _check(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Refuse names or shapes that are not the model's, with the nearest names."""
    missing, unexpected = _missing(tensors, own), [name for name in tensors if name not in own]
    parts = []
    if missing:
        parts.append(f"missing {_list(missing, near=_nearest_in(unexpected))}")
    if unexpected:
        parts.append(f"unexpected {_list(unexpected, near=_nearest_in(() if missing else own))}")
    wrong = [name for name in tensors if name in own and tensors[name].shape != own[name].shape]
    shapes = (f"{name} is {tuple(tensors[name].shape)} and not {tuple(own[name].shape)}" for name in wrong[:_NAMES])
    if wrong:
        parts.append(", ".join(shapes) + (f" and {len(wrong) - _NAMES} more" if len(wrong) > _NAMES else ""))
    if parts:
        raise UserError(f"the weights in {path} do not fit the model: {'; '.join(parts)}")


def _nearest_in(names: Iterable[str]) -> Callable[[str], str]:
    known = list(names)

    def near(name: str) -> str:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f" (the nearest is {close[0]})" if close else ""

    return near


def _list(names: Iterable[str], *, near: Callable[[str], str] = lambda name: "") -> str:
    shown = list(names)
    more = f" and {len(shown) - _NAMES} more" if len(shown) > _NAMES else ""
    return ", ".join(name + near(name) for name in shown[:_NAMES]) + more
