"""The type checker of the jaxtyping hook in tests: beartype, an int passing for a float as PEP 484 says.

It looks at the first item of a container, not at one drawn from Python's random generator: a draw in a step would keep
it from being recorded (`uiat.speed.cuda_graphs`).
"""

import functools
import operator
import types
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype

SHAPE = "uiat.shapes.Shape"  # by name: this is imported before the package is
_check = beartype(conf=BeartypeConf(is_pep484_tower=True, is_random=False))


def check(function):
    """Check the arguments and the result of a function against its annotations, shapes included."""
    function.__annotations__ = {name: to_jaxtyping(hint) for name, hint in function.__annotations__.items()}
    return _check(function)


def to_jaxtyping(hint: Any) -> Any:
    """The annotation with each of the package's shapes, however deep inside, as jaxtyping's, which beartype checks."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        shape = next(
            (each for each in hint.__metadata__ if f"{type(each).__module__}.{type(each).__name__}" == SHAPE), None
        )
        return hint if shape is None else getattr(jaxtyping, shape.dtype)[arguments[0], shape.dims]
    inner = [list(map(to_jaxtyping, each)) if isinstance(each, list) else to_jaxtyping(each) for each in arguments]
    if inner == list(arguments):
        return hint
    if origin is types.UnionType:
        return functools.reduce(operator.or_, inner)
    return origin[tuple(inner)] if origin is not Callable else Callable[inner[0], inner[1]]
