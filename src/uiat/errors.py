"""The errors that are the user's to correct, each said in one sentence."""

import difflib
import re
from collections.abc import Iterable

# Names that a message lists before it only counts.
MOST_NAMES = 20
LONGEST_NAME = 80  # characters of a name that does not exist


# Control characters but tab and newline, and those that turn the direction of text: a terminal obeys them.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_HALF = re.compile("[\ud800-\udfff]")  # of a character, as in names of files that are no UTF-8: nothing can print it


def strip_controls(text: str) -> str:
    r"""Return text that shows what it says: without what would move a cursor, clear a screen or turn words around.

    Names and verdicts of files from elsewhere may hold such characters. Tabs and newlines stay.

    Example:
        >>> strip_controls("cat\x1b[2J\r dog\n")
        'cat[2J dog\n'
    """
    return _HALF.sub("\ufffd", _OBEYED.sub("", text))


class UserError(ValueError):
    """A mistake in what the user asked for; the message alone tells what to change.

    The command line prints it as one line and exits with 2; anything else is a fault of the program and exits with 1.

    Example:
        >>> raise UserError("epsilon must be positive")
        Traceback (most recent call last):
        uiat.errors.UserError: epsilon must be positive
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(strip_controls(each) if isinstance(each, str) else each for each in args))


class ArgumentError(UserError, TypeError):
    """An argument that is not taken, is missing, or is of a type that it cannot be: a TypeError too, as Python raises.

    Example:
        >>> issubclass(ArgumentError, UserError), issubclass(ArgumentError, TypeError)
        (True, True)
    """


class NotFinite(UserError):
    """Training stopped because a loss term was infinite or not a number; the last good checkpoint is kept."""


class Lost(UserError):
    """Another process of the same run has ended, and this one with it; saved files are kept."""


class Busy(UserError):
    """Another process works on the very thing that was asked for; wait for it, or leave it to that one."""


class Stopped(Exception):
    """The user stopped a command; the message says how to resume it."""


def nearest(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist, with the closest ones that do.

    Args:
        kind: the kind of thing that has such a name, such as "model".
        name: the name that does not exist.
        known: every valid name.

    Example:
        >>> print(nearest("model", "resnet81", ["resnet18", "small-cnn"]))
        unknown model 'resnet81'; did you mean 'resnet18'? known: resnet18, small-cnn
    """
    names = sorted(known)
    close = difflib.get_close_matches(name[:LONGEST_NAME], names, n=3, cutoff=0.5)
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    hint = f" did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return UserError(f"unknown {kind} {shown!r};{hint} known: {', '.join(names[:MOST_NAMES])}{more}")
