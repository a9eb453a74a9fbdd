"""Draw the markers of methods, which have the shapes of those in matplotlib's figures."""

import math

from markupsafe import Markup

from uiat.runs.methods import MARKERS

# By matplotlib's letter: the number of corners, the angle of the first in degrees (0 is right, 90 is down), and how far
# from the middle the notch between two corners is, as a fraction; None where the sides are straight.
_SHAPES: dict[str, tuple[int, float, float | None]] = {
    "s": (4, 45, None),
    "^": (3, -90, None),
    "D": (4, 0, None),
    "v": (3, 90, None),
    "P": (4, 0, 0.4),
    "X": (4, 45, 0.4),
    "*": (5, -90, 0.4),
    "<": (3, 180, None),
    ">": (3, 0, None),
    "p": (5, -90, None),
}


def draw_mark(slot: int, x: float, y: float, radius: float = 3.5) -> Markup:
    """Draw the marker of a slot (`uiat.runs.methods`) around a place; its colour is that of what it is put into.

    Example:
        >>> draw_mark(0, 5, 5, 2), draw_mark(3, 5, 5, 2)
        (Markup('<circle cx="5.0" cy="5.0" r="2"/>'), Markup('<polygon points="7.0,5.0 5.0,7.0 3.0,5.0 5.0,3.0"/>'))
    """
    letter = MARKERS[slot % len(MARKERS)]
    if letter not in _SHAPES:
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:g}"/>').format(x, y, radius)
    corners, first, notch = _SHAPES[letter]
    places = []
    for i in range(corners if notch is None else 2 * corners):
        angle = math.radians(first + 360 * i / (corners if notch is None else 2 * corners))
        reach = radius * (notch if notch is not None and i % 2 else 1)
        places.append(f"{x + reach * math.cos(angle):.1f},{y + reach * math.sin(angle):.1f}")
    return Markup('<polygon points="{}"/>').format(" ".join(places))
