"""Check the arguments of a public function, or the fields of a dataclass, by their annotations, before it runs."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar, Unpack, get_args, get_origin, get_type_hints

from torch import Tensor

from uiat.checks.annotations import Kind, kind_of
from uiat.checks.images import check_shapes
from uiat.checks.names import unknown_argument
from uiat.checks.values import NO, fits
from uiat.errors import ArgumentError, UserError

P = ParamSpec("P")
R = TypeVar("R")
AClass = TypeVar("AClass", bound=type)


@dataclass(frozen=True)
class _Plan:
    """What a function takes: a kind for each argument that is checked, and the rules of how they are given."""

    owner: str
    kinds: Mapping[str, Kind]
    by_place: tuple[str, ...]
    required: tuple[str, ...]
    takes_any_name: bool
    shaped: tuple[str, ...]  # tensors whose named dimensions have to agree
    is_batch: bool  # images x and labels y are among them

    def name_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name; refuse what is not taken, and what is missing."""
        if len(args) > len(self.by_place):
            self.refuse_place(len(args))
        given = dict(zip(self.by_place, args, strict=False))
        for name in kwargs:
            if name in given:
                raise ArgumentError(f"{self.owner} is given {name!r} twice")
            if name not in self.kinds and not self.takes_any_name:
                raise unknown_argument(self.owner, name, self.kinds)
        given |= kwargs
        if missing := [name for name in self.required if name not in given]:
            raise ArgumentError(f"{self.owner} needs {' and '.join(map(repr, missing))}")
        return given

    def refuse_place(self, count: int) -> None:
        """Raise for more arguments than are taken without a name."""
        most = f"takes {len(self.by_place)} arguments by their place" if self.by_place else "takes no argument by place"
        names = [name for name in self.kinds if name not in self.by_place]
        hint = f"; name the others: {', '.join(f'{name}=' for name in names)}" if names else ""
        raise ArgumentError(f"{self.owner} {most}, not {count}{hint}")

    def check(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments as they are to be used."""
        is_batch = self.is_batch and not self.is_stream(given)
        if is_batch:
            check_shapes(given["x"], given["y"])
        taken = {}
        for name, value in given.items():
            kind = self.kinds.get(name)
            done = is_batch and name in ("x", "y")
            taken[name] = value if kind is None or done else kind.check(value, name)
        if len(self.shaped) > (not is_batch):
            self.check_sizes(taken, is_batch=is_batch)
        return taken

    def is_stream(self, given: Mapping[str, Any]) -> bool:
        """True where labels may be left out, and are, or come with images that are no tensor."""
        if "y" in self.required:
            return False
        x = given["x"]
        return given.get("y") is None or (not isinstance(x, Tensor) and self.kinds["x"].take(x) is not NO)

    def check_sizes(self, given: Mapping[str, Any], *, is_batch: bool) -> None:
        """Refuse tensors that do not fit together."""
        rows = (self.kinds["x"].dims or ("",))[0] if is_batch else ""
        sizes = {str(rows): len(given["x"])} if is_batch else {}
        for name in self.shaped:
            value = given.get(name)
            dims = self.kinds[name].dims_of(value)
            if isinstance(value, Tensor) and dims is not None and not fits(value.shape, dims, sizes):
                known = ", ".join(f"{dim} = {size}" for dim, size in sizes.items() if dim in dims)
                raise UserError(
                    f"{name} must have the shape ({', '.join(map(str, dims))}) with {known}, not {tuple(value.shape)}"
                )


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of each call by their annotations, and take a threat model in the words of the command line.

    Types, ranges (`uiat.checks.ranges`), choices, and shapes of tensors that have to agree. A number that is whole is
    taken for a float, True is no number, and a text is no list. Reads no value of a tensor, so it never waits for the
    device.

    Raises:
        UserError: names the argument and its value; an `ArgumentError` where the name or the type is wrong.

    Example:
        >>> @checked
        ... def double(number: int, *, loud: bool = False) -> int:
        ...     return 2 * number
        >>> double(3)
        6
        >>> double("3")
        Traceback (most recent call last):
        uiat.errors.ArgumentError: number must be a whole number, not '3'
        >>> double(3, lound=True)
        Traceback (most recent call last):
        uiat.errors.ArgumentError: double takes no 'lound'; did you mean 'loud'? It takes: number, loud
    """
    plan: list[_Plan] = []  # made at the first call: some names in annotations are defined further down
    own = int(_is_method(function))

    @wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        if not plan:
            plan.append(_make_plan(function))
        given = plan[0].check(plan[0].name_arguments(args[own:], kwargs))
        return function(*args[:own], **given)  # type: ignore[arg-type]

    return checking


def checked_fields(kind: AClass) -> AClass:
    """Check the fields of a dataclass, or the arguments of a class, by their annotations whenever one is made.

    Example:
        >>> @checked_fields
        ... @dataclass(frozen=True, kw_only=True)
        ... class Settings:
        ...     steps: int = 10
        >>> Settings(step=3)
        Traceback (most recent call last):
        uiat.errors.ArgumentError: Settings takes no 'step'; did you mean 'steps'? It takes: steps
    """
    kind.__init__ = checked(kind.__init__)  # type: ignore[misc]
    return kind


def _make_plan(function: Callable[..., Any]) -> _Plan:
    parameters = list(inspect.signature(function).parameters.values())[_is_method(function) :]
    hints = _read_hints(function)
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    kinds = {p.name: kind_of(hints.get(p.name, Any)) for p in named}
    more = next((p for p in parameters if p.kind is p.VAR_KEYWORD), None)
    if more is not None and get_origin(hints.get(more.name)) is Unpack:
        (listed,) = get_args(hints[more.name])
        kinds |= {name: kind_of(hint) for name, hint in get_type_hints(listed, include_extras=True).items()}
        more = None
    shaped = tuple(name for name, kind in kinds.items() if kind.dims is not None)
    is_batch = {"x", "y"} <= {*shaped}
    return _Plan(
        owner=function.__qualname__.removesuffix(".__init__").removesuffix(".__call__").rpartition("<locals>.")[2],
        kinds=kinds,
        by_place=tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD),
        required=tuple(p.name for p in parameters if p.name in kinds and p.default is p.empty),
        takes_any_name=more is not None,
        shaped=tuple(name for name in shaped if not is_batch or name not in ("x", "y")),
        is_batch=is_batch,
    )


def _read_hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # an annotation in quotes, for type checkers alone
        return {}


def _is_method(function: Callable[..., Any]) -> bool:
    return next(iter(inspect.signature(function).parameters), "") == "self"
