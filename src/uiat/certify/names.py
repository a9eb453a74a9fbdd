"""Certifications by name, as commands take them: bounds, smoothing-SIGMA and smoothing-SIGMA-N."""

import re
from collections.abc import Iterable, Mapping

from uiat.certify.smoothing import Smoothing
from uiat.checks.radii import number
from uiat.errors import UserError, nearest

PREFIX = "certify-"  # of a certification that stands among attacks
BOUNDS = "bounds"
KNOWN = (BOUNDS, "smoothing-SIGMA", "smoothing-SIGMA-N")


def split_certifications(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split names into those of attacks, and those of certifications without their prefix.

    Example:
        >>> split_certifications(["clean", "certify-smoothing-0.25", "pgd-20"])
        (['clean', 'pgd-20'], ['smoothing-0.25'])
    """
    words = list(names)
    certified = [word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX)]
    return [word for word in words if not word.startswith(PREFIX)], certified


def parse_certifications(names: Iterable[str]) -> Mapping[str, Smoothing | None]:
    """Return what each name stands for, by the name with its prefix: settings of smoothing, None for bounds.

    Args:
        names: "bounds"; "smoothing-SIGMA" or "smoothing-SIGMA-N", with N noisy images instead of 10,000; each also with
            "certify-" before it.

    Raises:
        UserError: another name, or a number that `Smoothing` refuses.

    Example:
        >>> parse_certifications(["smoothing-0.25", "bounds", "smoothing-64/255-1000"])["certify-smoothing-64/255-1000"]
        Smoothing(sigma=0.25098, n0=100, n=1000, alpha=0.001)
        >>> parse_certifications(["smoothing-0"])
        Traceback (most recent call last):
        uiat.errors.UserError: certify-smoothing-0: sigma must be above 0, but is 0
    """
    return {f"{PREFIX}{name}": _parse(name) for name in (word.removeprefix(PREFIX) for word in names)}


def _parse(name: str) -> Smoothing | None:
    if name == BOUNDS:
        return None
    match = re.fullmatch(r"smoothing-(.+?)(?:(?<!e)-(\d+))?", name)  # 1e-3 is a number
    if match is None:
        raise nearest("certification", name, KNOWN)
    try:
        more = {} if match[2] is None else {"n": int(match[2])}
        return Smoothing(sigma=number(match[1], name="sigma"), **more)
    except UserError as error:
        raise UserError(f"{PREFIX}{name}: {error}") from None
