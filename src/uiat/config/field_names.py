"""Short and mistyped names of fields, answered with the full ones."""

import difflib
from collections.abc import Iterable

from uiat.checks.names import ALIASES
from uiat.errors import UserError, nearest

MOST_ANSWERS = 3


def find_fields(name: str, fields: Iterable[str], *, exact: bool = False) -> list[str]:
    """Return the full names of the fields that a short or mistyped name may mean, the likeliest first.

    Args:
        name: as it was written: the end of a full name, one of ALIASES, or either with letters wrong.
        fields: the full names, dotted.
        exact: True to leave mistyped names alone.

    Example:
        >>> fields = ["data.batch_size", "optimisation.epochs", "optimisation.learning_rate", "evaluation.batch_size"]
        >>> find_fields("epochs", fields), find_fields("lr", fields)
        (['optimisation.epochs'], ['optimisation.learning_rate'])
        >>> find_fields("batchsize", fields)
        ['data.batch_size', 'evaluation.batch_size']
    """
    known = list(fields)
    group, _, last = name.replace("-", "_").rpartition(".")
    for meant in (last, *ALIASES.get(last, ())):
        wanted = f"{group}.{meant}".removeprefix(".")
        ending = [path for path in known if f".{path}".endswith(f".{wanted}")]
        if ending:
            return ending[:MOST_ANSWERS]
    if exact:
        return []
    wanted = f"{group}.{last}".removeprefix(".")
    # The same number of parts is compared, so that `objective.wieght` finds `objective.weight` and no other weight.
    depth = wanted.count(".") + 1
    ends: dict[str, list[str]] = {}
    for path in known:
        ends.setdefault(".".join(path.split(".")[-depth:]), []).append(path)
    close = difflib.get_close_matches(wanted, ends, n=MOST_ANSWERS, cutoff=0.7)
    return [path for end in close for path in ends[end]][:MOST_ANSWERS]


def unknown_field(name: str, fields: Iterable[str], *, value: str | None = None) -> UserError:
    """Return the error for a field that does not exist, with the full names that may be meant.

    Args:
        name: as it was written.
        fields: the full names, dotted.
        value: as it was written on a command line, to be repeated in the answer.

    Example:
        >>> print(unknown_field("epochs", ["seed", "optimisation.epochs"], value="3"))
        unknown field 'epochs'; did you mean optimisation.epochs=3?
    """
    known = list(fields)
    found = find_fields(name, known)
    if not found:
        return nearest("field", name, known)
    answers = [repr(path) if value is None else f"{path}={value}" for path in found]
    return UserError(f"unknown field {name!r}; did you mean {' or '.join(answers)}?")
