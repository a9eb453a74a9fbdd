"""Attacks of the user's own under the judge: objects, callables, files, entry points, and those of other libraries."""

import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from uiat.attacks import PGD, External, Search
from uiat.errors import UserError
from uiat.evaluation.libraries import LIBRARIES, library_attack
from uiat.system.own_code import describe_code, find_entry_point, own_code
from uiat.threat import Threat

ENTRY_POINTS = "uiat.attacks"
# What `evaluate` takes beside names: settings of the package's attacks, searches, callables, and (name, any of these).
OwnAttack = PGD | Search | Callable[..., Any] | tuple[str, Any]


def is_own_name(name: str) -> bool:
    """True if a name says where an attack is to be imported from: file.py:NAME, package.module:NAME, library:NAME.

    So does that of an installed package's entry point. Imports nothing.

    Example:
        >>> is_own_name("mine.py:noise"), is_own_name("torchattacks:PGD(steps=20)"), is_own_name("pgd-20")
        (True, True, False)
    """
    return ":" in name or bool(entry_points(group=ENTRY_POINTS, name=name))


def split_names(text: str) -> list[str]:
    """Split names at commas, save those inside brackets.

    Example:
        >>> split_names("pgd-20, torchattacks:PGD(steps=5,alpha=0.1),mine.py:noise")
        ['pgd-20', 'torchattacks:PGD(steps=5,alpha=0.1)', 'mine.py:noise']
    """
    names, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth <= 0:
            names.append("")
        else:
            names[-1] += character
    return [name.strip() for name in names if name.strip()]


def load_attack(name: str, threat: Threat) -> PGD | Search | External | None:
    """Import the attack that a name stands for; None where it names neither code, nor a library, nor an entry point.

    A class is called without arguments, or with `threat=` if it takes that. Runs the code that is named.

    Raises:
        UserError: no such file, module, function or library, or what it names is no attack.

    Example:
        >>> from uiat.threat import Linf
        >>> load_attack("no-such-attack", Linf(0.1)) is None
        True
    """
    if ":" not in name:
        found = find_entry_point(ENTRY_POINTS, name)
        return None if found is None else make_attack(found, name=name, threat=threat)
    if name.partition(":")[0] in LIBRARIES:
        return External(name=name, find=library_attack(name, threat), threat=threat, origin=name)
    with own_code(name, what="attack") as found:
        return make_attack(found, name=name, threat=threat)


def make_attack(value: Any, *, name: str, threat: Threat) -> PGD | Search | External:
    """Return an attack as an evaluation runs it.

    Args:
        value: a PGD, a search, a callable `(model, x, y) -> images`, or a class of one of these.
        name: name in results.
        threat: the threat model of the evaluation; an attack that has one must have the same.

    Raises:
        UserError: it is none of these, or has another threat model.

    Example:
        >>> from uiat.threat import Linf
        >>> make_attack(lambda model, x, y: x, name="nothing", threat=Linf(0.1)).name
        'nothing'
    """
    made_by = value
    if inspect.isclass(value):
        make: Any = value
        try:
            value = make(threat=threat) if _takes(value, "threat") else make()
        except TypeError as error:
            raise UserError(f"the attack {name} cannot be made without arguments: {error}") from None
    own = getattr(value, "threat", None)
    if isinstance(own, Threat) and own != threat:
        raise UserError(f"the attack {name} is for {own}, and the evaluation for {threat}: give both the same")
    if isinstance(value, PGD | Search):
        return value
    if not callable(value):
        raise UserError(
            f"the attack {name} is of class {type(value).__name__}: give a name, a PGD, a search, or a function "
            "of (model, x, y) that returns images"
        )
    return External(name=name, find=value, threat=threat, origin=describe_code(made_by))


def name_attack(value: Any) -> str:
    """Return the name in results of an attack that was given without one.

    Example:
        >>> name_attack(PGD()), name_attack(lambda model, x, y: x)
        ('PGD', 'attack')
    """
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__ if value.__name__.isidentifier() else "attack"
    name = getattr(value, "name", None)
    return name if isinstance(name, str) and name else type(value).__name__


def _takes(value: type, argument: str) -> bool:
    try:
        return argument in inspect.signature(value).parameters
    except ValueError:  # a class written in C may not say what it takes
        return False
