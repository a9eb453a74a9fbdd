"""Objectives of the user's own by name: file.py:NAME, package.module:NAME, or an installed package's entry point."""

import dataclasses
import inspect
import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from uiat.checks import checked_fields
from uiat.errors import UserError
from uiat.objectives import METHOD_NAMES, check_objective
from uiat.system.manifest import sum_of_file
from uiat.system.own_code import find_entry_point, find_source, own_code

ENTRY_POINTS = "uiat.objectives"
# Classes by name, working folder and contents of the file: an import gives a new class, and none is equal to another.
_FOUND: dict[tuple[str, str, str | None], type] = {}


def is_objective_code(name: object) -> bool:
    """True if the name of an objective says where it is to be imported from. Imports nothing.

    Example:
        >>> is_objective_code("mine.py:Pairing"), is_objective_code("uiat")
        (True, False)
    """
    if not isinstance(name, str) or name in METHOD_NAMES:
        return False
    return ":" in name or bool(entry_points(group=ENTRY_POINTS, name=name))


def find_objective(name: str) -> type:
    """Import a training objective: a dataclass whose fields are its settings, each with a default. Runs its code.

    Its fields are checked by their annotations from then on, as those of the package's own methods are.

    Args:
        name: file.py:NAME, package.module:NAME, or the name of an entry point in the group "uiat.objectives".

    Raises:
        UserError: no such file, module or name, or no dataclass that can be trained with and kept in a run folder.

    Example:
        >>> find_objective("uiat.objectives:Mart").__name__
        'Mart'
        >>> find_objective("json:loads")
        Traceback (most recent call last):
        uiat.errors.UserError: the objective json:loads is no class: name a frozen dataclass, see uiat.Objective
    """
    source = find_source(name, group=ENTRY_POINTS)
    key = (name, os.getcwd(), None if source is None else sum_of_file(Path(source)))
    if key not in _FOUND:
        if ":" in name:
            with own_code(name, what="objective") as found:
                _FOUND[key] = _check_class(found, name)
        else:
            _FOUND[key] = _check_class(find_entry_point(ENTRY_POINTS, name), name)
    return _FOUND[key]


def _check_class(found: Any, name: str) -> type:
    """Refuse what is no objective; check the fields of the others whenever one is made."""
    if not inspect.isclass(found):
        raise UserError(f"the objective {name} is no class: name a frozen dataclass, see uiat.Objective")
    kind: type = found
    if not dataclasses.is_dataclass(kind):
        raise UserError(f"the objective {name} is no dataclass: its fields are its settings, so write @dataclass")
    if "name" not in {f.name for f in dataclasses.fields(kind) if f.init}:
        raise UserError(f'the objective {name} has no field "name", in which config.yaml keeps where it comes from')
    missing = dataclasses.MISSING
    bare = [f.name for f in dataclasses.fields(kind) if f.init and f.default is f.default_factory is missing]
    if bare:
        raise UserError(f"the objective {name} needs a default for each field, and {bare[0]} has none")
    try:
        get_type_hints(kind)
        made = (kind if kind.__module__.startswith("uiat.") else checked_fields(kind))()
    except Exception as error:  # whatever the user's code raises
        raise UserError(f"the objective {name} cannot be made: {type(error).__name__}: {error}") from error
    try:
        check_objective(made)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    for f in dataclasses.fields(kind):
        _check_plain(getattr(made, f.name), f.name, name)
    return kind


def _check_plain(value: Any, field: str, name: str) -> None:
    if dataclasses.is_dataclass(value):
        for f in dataclasses.fields(value):
            _check_plain(getattr(value, f.name), f"{field}.{f.name}", name)
        return
    try:
        yaml.safe_dump(list(value) if isinstance(value, tuple) else value)
    except yaml.YAMLError:
        raise UserError(
            f"the objective {name} keeps a {type(value).__name__} in {field}, which config.yaml cannot hold: its "
            "fields are numbers, texts, lists and dataclasses of them"
        ) from None
