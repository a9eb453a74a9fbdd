"""Which packages are installed, and those that only some parts need: the extras of pyproject.toml, imported late."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from uiat.errors import UserError

_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "Pillow"}  # by the name that is imported, where the two differ


@contextmanager
def from_extra(extra: str, purpose: str) -> Iterator[None]:
    """Import packages of an extra inside; one that is missing is answered with the command that installs it.

    Args:
        extra: the extra's name in pyproject.toml.
        purpose: what needs the packages, for the message.

    Raises:
        UserError: a package is missing, or does not fit the others that are installed.

    Example:
        >>> with from_extra("report", "a figure"):
        ...     import no_such_package
        Traceback (most recent call last):
        uiat.errors.UserError: a figure needs no_such_package, which is not installed: pip install 'uiat[report]'
    """
    try:
        yield
    except ModuleNotFoundError as fault:
        missing = (fault.name or str(fault)).partition(".")[0]
        name = _DISTRIBUTIONS.get(missing, missing)
        raise UserError(f"{purpose} needs {name}, which is not installed: pip install 'uiat[{extra}]'") from fault
    except (ImportError, RuntimeError, OSError) as fault:  # compiled against another torch, or a library of the system
        reason = " ".join(str(fault).split())
        raise UserError(
            f"{purpose} needs a package that cannot be imported ({reason}): "
            f"pip install --force-reinstall 'uiat[{extra}]' takes one that fits"
        ) from fault


def installed_version(package: str) -> str | None:
    """Return the version of an installed package; None if it is not installed, as in a source tree.

    Example:
        >>> installed_version("no-such-package")
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None
