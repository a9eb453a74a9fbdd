"""Typer's options, built from the fields of a dataclass that holds their help texts."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from uiat.experiments.options import EvaluateOptions

ARGUMENTS = ("run",)  # given by their place and not by a name


def _make_option(field: "dataclasses.Field[Any]") -> Any:
    facts = field.metadata
    if field.name in ARGUMENTS:
        return typer.Argument(metavar=facts["metavar"], help=facts["help"], show_default=False)
    text = facts["help"] + (f" [default: {facts['by_default']}]" if facts["by_default"] else "")
    show = facts["by_default"] is None and field.default is not None and field.default is not False
    return typer.Option(*facts["flags"], metavar=facts["metavar"], help=text, show_default=show, min=facts["at_least"])


# By the name of the field. Several are options of other commands too.
OPTIONS = {field.name: _make_option(field) for field in dataclasses.fields(EvaluateOptions)}
Which = Annotated[str, OPTIONS["which"]]
Root = Annotated[str | None, OPTIONS["root"]]
Device = Annotated[str | None, OPTIONS["device"]]
OwnCode = Annotated[bool, OPTIONS["own_code"]]


def takes_options(kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command whose arguments are `**options` the fields of a dataclass as parameters, for typer to read.

    Args:
        kind: the dataclass, with a row of OPTIONS for each field.

    Example:
        >>> @takes_options(EvaluateOptions)
        ... def show(**options):
        ...     return options
        >>> list(inspect.signature(show).parameters)[:2]
        ['run', 'model']
    """
    hints = get_type_hints(kind)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[hints[field.name], OPTIONS[field.name]],
        )
        for field in dataclasses.fields(kind)
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate
