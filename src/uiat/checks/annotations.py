"""What an annotation allows: it is read once into a `Kind`, which takes a value or says what it should be."""

import collections.abc
import math
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, is_typeddict

import numpy as np
import torch
from torch import Tensor, nn

from uiat.checks.names import NOUNS
from uiat.checks.ranges import Between, Or
from uiat.checks.values import (
    DTYPES,
    NO,
    describe,
    fits,
    take_bool,
    take_device,
    take_number,
    take_path,
    take_tensor,
    take_text,
    take_whole,
)
from uiat.errors import ArgumentError, UserError, nearest
from uiat.shapes import Shape


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Args:
        words: what it is, for messages: "NAME must be WORDS, not VALUE".
        take: returns the value to be used, or NO.
        own_check: `own_check(value, name)` in place of the usual check, where there is more to say.
        dims: names and sizes of a tensor's dimensions.
        members: the kinds of which this is one, such as labels or probabilities.
    """

    words: str
    take: Callable[[Any], Any]
    own_check: Callable[[Any, str], Any] | None = None
    dims: tuple[str | int, ...] | None = None
    members: "tuple[Kind, ...]" = ()

    def dims_of(self, value: Any) -> tuple[str | int, ...] | None:
        """Return the dimensions of the member that takes a value."""
        return next((kind.dims for kind in self.members if kind.take(value) is not NO), self.dims)

    def check(self, value: Any, name: str) -> Any:
        """Return the value to be used for an argument.

        Raises:
            UserError: the value is of another kind, or out of range; names the argument.
        """
        if self.own_check is not None:
            return self.own_check(value, name)
        try:
            taken = self.take(value)
        except UserError as error:  # a threat model's text, a device or a path that cannot be
            raise UserError(f"{name}: {error}") from None
        if taken is NO:
            raise ArgumentError(f"{name} must be {self.words}, not {describe(value)}")
        return taken


_ANYTHING = Kind("anything", lambda value: value)


@cache
def kind_of(hint: Any) -> Kind:
    """Return the kind of value that an annotation stands for.

    Example:
        >>> kind_of(int | None).check(None, "n"), kind_of(float).check(1, "weight")
        (None, 1.0)
        >>> kind_of(bool).check("no", "descend")
        Traceback (most recent call last):
        uiat.errors.ArgumentError: descend must be True or False, not 'no'
    """
    if hint in _PLAIN:
        return _PLAIN[hint]
    if isinstance(hint, TypeVar):
        return _ANYTHING if hint.__bound__ is None else kind_of(hint.__bound__)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(arguments[0], hint.__metadata__)
    if origin is Literal:
        return _choice(arguments)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is tuple:
        return _tuple(arguments)
    if origin is os.PathLike:
        return _PLAIN[Path]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(*(kind_of(argument) for argument in arguments))
    if origin in (collections.abc.Sequence, collections.abc.Iterable, list):
        return _sequence(kind_of(arguments[0]), lazy=origin is collections.abc.Iterable)
    if origin is collections.abc.Callable or hint is Callable:
        return _FUNCTION
    return _of_class(hint) if isinstance(hint, type) and not is_typeddict(hint) else _ANYTHING


def _annotated(hint: Any, metadata: Sequence[Any]) -> Kind:
    if shapes := [each for each in metadata if isinstance(each, Shape)]:
        return _array(shapes[0])
    kind = kind_of(hint)
    if others := [kind_of(each.kind) for each in metadata if isinstance(each, Or)]:
        return _first_of([kind, *others], words=kind.words)
    ranges = [each for each in metadata if isinstance(each, Between)]
    return _number(kind.take, kind.words, *ranges) if ranges else kind


def _number(take: Callable[[Any], Any], words: str, *ranges: Between) -> Kind:
    """Return the kind of finite numbers in these ranges."""

    def check(value: Any, name: str) -> Any:
        taken = take(value)
        if taken is NO:
            raise ArgumentError(f"{name} must be {words}, not {describe(value)}")
        if taken == math.inf:
            raise UserError(f"{name} must be finite, but is {taken:g}")
        for bounds in ranges:
            bounds.check(taken, name)
        if isinstance(taken, float) and not math.isfinite(taken):
            raise UserError(f"{name} must be finite, but is {taken:g}")
        return taken

    return Kind(words, take, check)


def _choice(values: tuple[Any, ...]) -> Kind:
    words = " or ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in values)

    def take(value: Any) -> Any:
        return next((each for each in values if type(value) is type(each) and value == each), NO)

    def check(value: Any, name: str) -> Any:
        if (taken := take(value)) is not NO:
            return taken
        if isinstance(value, str):
            raise nearest(NOUNS.get(name, name), value, map(str, values))
        raise ArgumentError(f"{name} must be {words}, not {describe(value)}")

    return Kind(words, take, check)


def _union(hints: tuple[Any, ...]) -> Kind:
    if Any in hints:
        return _ANYTHING
    members = [kind_of(hint) for hint in hints if hint is not type(None)]
    if any(kind is _PLAIN[Path] for kind in members):  # str | Path: a path either way
        members = [kind for kind in members if kind is not _PLAIN[str]]
    if type(None) not in hints:
        return _first_of(members, words=" or ".join(dict.fromkeys(kind.words for kind in members)))
    kind = members[0] if len(members) == 1 else _first_of(members, words=" or ".join(k.words for k in members))
    words = f"{kind.words} or None"

    def take(value: Any) -> Any:
        return None if value is None else kind.take(value)

    def check(value: Any, name: str) -> Any:
        return None if value is None else kind.check(value, name)

    return Kind(words, take, check, kind.dims, kind.members)


def _first_of(kinds: list[Kind], *, words: str) -> Kind:
    """Return the kind of what one of several kinds takes; the first that does checks its range."""

    def take(value: Any) -> Any:
        return next((taken for kind in kinds if (taken := kind.take(value)) is not NO), NO)

    def check(value: Any, name: str) -> Any:
        try:
            kind = next((kind for kind in kinds if kind.take(value) is not NO), None)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        if kind is not None:
            return kind.check(value, name)
        raise ArgumentError(f"{name} must be {words}, not {describe(value)}")

    return Kind(words, take, check, next((kind.dims for kind in kinds if kind.dims is not None), None), tuple(kinds))


_PLURALS = {"text": "names", "a whole number": "whole numbers", "a number": "numbers", "a path": "paths"}


def _tuple(arguments: tuple[Any, ...]) -> Kind:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list(kind_of(arguments[0]), lambda value: tuple(value) if isinstance(value, list | tuple) else NO)
    items = [kind_of(each) for each in arguments]
    words = f"{len(items)} values, each {items[0].words}" if items else "an empty tuple"

    def take(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(items):
            return NO
        taken = [kind.take(each) for kind, each in zip(items, value, strict=True)]
        return NO if any(each is NO for each in taken) else tuple(taken)

    def check(value: Any, name: str) -> Any:
        if take(value) is NO:
            raise ArgumentError(f"{name} must be {words}, not {describe(value)}")
        return tuple(kind.check(each, name) for kind, each in zip(items, value, strict=True))

    return Kind(words, take, check)


def _sequence(item: Kind, *, lazy: bool) -> Kind:
    def as_list(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.ndim == 1:
            return value.tolist()
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return value
        if lazy and isinstance(value, Iterable) and not isinstance(value, str | bytes | Tensor):
            return list(value)
        return NO

    return _list(item, as_list)


def _list(item: Kind, as_list: Callable[[Any], Any]) -> Kind:
    """Return the kind of lists whose items are of one kind; `as_list` gives the list, or NO for what is none."""
    words = f"a list of {_PLURALS[item.words]}" if item.words in _PLURALS else f"a list, each item {item.words}"
    words = "a list" if item is _ANYTHING else words

    def take(value: Any) -> Any:
        values = as_list(value)
        return NO if values is NO or any(item.take(each) is NO for each in values) else values

    def check(value: Any, name: str) -> Any:
        if (values := take(value)) is NO:
            hint = ""
            if isinstance(value, str):
                hint = f", such as {describe(value.split(','))}"
            raise ArgumentError(f"{name} must be {words}{hint}, not {'the text ' * bool(hint)}{describe(value)}")
        checked = [item.check(each, name) for each in values]
        return tuple(checked) if isinstance(values, tuple) else values

    return Kind(words, take, check)


def _mapping(key: Kind = _ANYTHING, item: Kind = _ANYTHING) -> Kind:
    def take(value: Any) -> Any:
        whole = isinstance(value, Mapping) and all(
            key.take(k) is not NO and item.take(v) is not NO for k, v in value.items()
        )
        return value if whole else NO

    more = f" from {key.words} to {item.words}" if key is not _ANYTHING else ""
    return Kind(f"a mapping{more}", take)


def _of_class(kind: type) -> Kind:
    if getattr(kind, "_is_protocol", False):
        return _protocol(kind)
    read = getattr(kind, "from_text", None)  # a threat model may be written as on the command line

    def take(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        made = read(value) if read is not None and isinstance(value, str) else NO
        return made if isinstance(made, kind) else NO

    words = "a torch.nn.Module" if kind is nn.Module else f"a {kind.__name__}"
    return Kind(getattr(kind, "IN_WORDS", words), take)


def _protocol(kind: Any) -> Kind:
    """Return the kind of objects that have what a protocol names; of one that names nothing but a call, functions."""
    names = [name for name in vars(kind) if not name.startswith("_")]
    if not names:
        return _FUNCTION

    def lacking(value: Any) -> list[str]:
        return [name for name in names if not hasattr(value, name)]

    def take(value: Any) -> Any:
        return NO if isinstance(value, type) or lacking(value) else value

    def check(value: Any, name: str) -> Any:
        if isinstance(value, type):
            raise ArgumentError(f"{name} must be an object, not the class itself: write {value.__name__}()")
        if missing := lacking(value):
            raise ArgumentError(f"{name} has no {' or '.join(missing)}: see {kind.__name__}; it is {describe(value)}")
        return value

    return Kind(f"a {kind.__name__}", take, check)


def _array(shape: Shape) -> Kind:
    if shape.dtype not in DTYPES:  # any dtype: the function says what it takes
        return _PLAIN[Tensor]
    what, is_allowed = DTYPES[shape.dtype]
    dims = tuple(int(dim) if dim.isdigit() else dim for dim in shape.dims.split())

    def take(value: Any) -> Any:
        is_tensor = take_tensor(value) is not NO
        return value if is_tensor and is_allowed(value.dtype) and fits(value.shape, dims, {}) else NO

    return Kind(f"a tensor of {what} of shape ({', '.join(map(str, dims))})", take, dims=dims)


_FUNCTION = Kind("a function", lambda value: value if callable(value) and not isinstance(value, type) else NO)
_DEVICE = Kind("a device such as cpu or cuda:1", take_device)
_PLAIN: dict[Any, Kind] = {
    Any: _ANYTHING,
    object: _ANYTHING,
    bool: Kind("True or False", take_bool),
    int: _number(take_whole, "a whole number", Between(-(2**63), 2**63 - 1)),
    float: _number(take_number, "a number"),
    str: Kind("text", take_text),
    Path: Kind("a path", take_path),
    Tensor: Kind("a plain torch tensor", take_tensor),
    torch.device: _DEVICE,
    str | torch.device: _DEVICE,
    type(None): Kind("None", lambda value: value if value is None else NO),
}
