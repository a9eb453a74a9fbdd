"""Import the user's own code by name: file.py:NAME, package.module:NAME, or an entry point of an installed package.

Importing runs the code. So a name reaches this module only where the user gave it, in Python or on the command line, or
allowed it (`--own-code`): one that merely stands in a received folder does not.
"""

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from uiat.errors import UserError, nearest
from uiat.system.home import expand_home


@contextmanager
def own_code(name: str, *, what: str) -> Iterator[Any]:
    """Import what a name stands for; inside, imports fall back on the folder of the code.

    That folder (for a module, the working folder) is searched last, so that it cannot hide an installed package.

    Args:
        name: path/to/file.py:NAME or package.module:NAME; NAME is a function, a class or anything else callable.
        what: what it is to be, for messages, such as "attack".

    Raises:
        UserError: no such file, module or name, or one that does not import.

    Example:
        >>> with own_code("torch.nn:Identity", what="model") as found:
        ...     found
        <class 'torch.nn.modules.linear.Identity'>
    """
    source, _, member = name.rpartition(":")
    if not source or not member:
        raise UserError(f"{name!r} is not {_article(what)}; write path/to/file.py:FUNCTION or package.module:FUNCTION")
    is_file = source.endswith(".py")
    with _searched_last(str(expand_home(source).resolve().parent) if is_file else os.getcwd()):
        module = _from_file(source, what) if is_file else _from_package(source, what)
        found = getattr(module, member, None)
        if not callable(found):
            known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
            raise nearest(f"function in {source}", member, known)
        try:
            yield found
        except SystemExit as error:
            raise UserError(f"{name!r} ended the program when it was called ({_reason(error)})") from error


def find_entry_point(group: str, name: str) -> Callable[..., Any] | None:
    """Return what an installed package offers under a name, such as an attack; None where none does.

    Args:
        group: "uiat.attacks", "uiat.objectives", "uiat.datasets" or "uiat.models".
        name: name of the entry point.

    Raises:
        UserError: it does not import.

    Example:
        >>> find_entry_point("uiat.attacks", "no-such-attack")
    """
    for entry in entry_points(group=group, name=name):
        try:
            found: Callable[..., Any] = entry.load()
        except (Exception, SystemExit) as error:
            raise UserError(f"{name!r}, of {entry.value}, does not import: {_reason(error)}") from error
        return found
    return None


def find_source(name: str, *, group: str | None = None) -> Path | None:
    """Return the file that holds what a name stands for; None where there is none, or none is to be found.

    The code itself is not run; for package.module:NAME the packages around the module are imported, to know where it
    lies.

    Args:
        name: as for `own_code`, or the name of an entry point.
        group: the group of the entry point.

    Example:
        >>> find_source("missing.py:noise") is None, find_source("json:loads").name
        (True, '__init__.py')
    """
    if ":" not in name:
        found = None if group is None else next(iter(entry_points(group=group, name=name)), None)
        return None if found is None else find_source(found.value)
    source = name.rpartition(":")[0]
    if source.endswith(".py"):
        path = expand_home(source)
        return path if path.is_file() else None
    with _searched_last(os.getcwd()):
        try:
            spec = importlib.util.find_spec(source)
        except (ImportError, ValueError):
            return None
    path = Path(spec.origin) if spec is not None and spec.origin is not None else Path()
    return path if path.is_file() else None


def describe_code(value: object) -> str:
    """Return module and name of a function, class or object, and a checksum of the file that defines it.

    Example:
        >>> import json
        >>> describe_code(json.loads)
        'json:loads, sha256 ...'
    """
    defined = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    name = f"{getattr(defined, '__module__', '?')}:{getattr(defined, '__qualname__', type(value).__qualname__)}"
    try:
        content = Path(inspect.getsourcefile(inspect.unwrap(defined)) or "").read_bytes()
    except (OSError, TypeError):  # written in C, or typed into a shell
        return name
    return f"{name}, sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def _article(what: str) -> str:
    return f"an {what}" if what[0] in "aeio" else f"a {what}"


@contextmanager
def _searched_last(folder: str) -> Iterator[None]:
    """Inside, imports fall back on `folder`."""
    sys.path.append(folder)
    try:
        yield
    finally:
        # The last entry equal to it is ours, unless the user's code rearranged the list.
        for i in reversed(range(len(sys.path))):
            if sys.path[i] == folder:
                del sys.path[i]
                break


def _from_file(source: str, what: str) -> ModuleType:
    path = expand_home(source).resolve()
    if not path.is_file():
        raise UserError(f"there is no file {source!r} to read the {what} from; the folder searched is {path.parent}")
    # The module is registered, because dataclasses and pickling look it up; under a name that no other file has.
    name = f"uiat_{what.replace(' ', '_')}_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{source!r} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"{source!r} could not be imported: {_reason(error)}") from error
    return module


def _from_package(source: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is not None and (source == error.name or source.startswith(f"{error.name}.")):
            raise UserError(
                f"there is no module {error.name!r} to import the {what} from; "
                "for a file write path/to/file.py:FUNCTION"
            ) from error
        raise UserError(f"{source!r} could not be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{source!r} could not be imported: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Say why code of the user's did not run to its end, and of one that exits what to do."""
    if isinstance(error, SystemExit):  # a script that parses arguments or ends in sys.exit(main())
        return f"SystemExit: {error.code}; put what a program does under if __name__ == '__main__'"
    return f"{type(error).__name__}: {error}"
