"""What is known of an attack by its name, or by its settings where it was given as an object."""

import re
from functools import cache

from torch import nn

from uiat.attacks import External
from uiat.evaluation.registry import ROWS, Attack, Settings, find_row, split_draws, stage_names
from uiat.threat import Linf


def needs_gradient(name: str, settings: Settings = None) -> bool:
    """True if an attack, a stage or any stage of an ensemble can do nothing to a model without a gradient.

    Of an attack from outside nobody knows: it is tried.

    Args:
        name: name of an attack or a stage.
        settings: its settings, for one that was given as an object.

    Example:
        >>> needs_gradient("square"), needs_gradient("noise-20"), needs_gradient("autoattack")
        (False, False, True)
        >>> from uiat import PGD, Square
        >>> needs_gradient("mine", Square(threat=Linf(0.1))), needs_gradient("mine", PGD(threat=Linf(0.1)))
        (False, True)
    """
    own = find_own_row(type(settings).__name__)
    rows = [(find_row(stage) or (own, ()))[0] for stage in stage_names(name)]
    return any(row.needs_gradient if row is not None else not isinstance(settings, External) for row in rows)


def averages(name: str) -> bool:
    """True if an attack, a stage or all of an ensemble take the mean over several answers of a randomised model.

    Example:
        >>> averages("autoattack-rand"), averages("square-eot-5"), averages("pgd-20-eot-1"), averages("square")
        (True, True, False, False)
    """
    row, (_, draws) = find_row(name), split_draws(name.partition(" (")[0])
    return row is not None and (row[0].averages if draws is None else draws > 1)


def find_own_row(kind: str, loss: object = None) -> Attack | None:
    """Return the row of an attack of this package that was given as an object: the first of its class and loss.

    Args:
        kind: name of its class.
        loss: its loss, where it has one.

    Returns:
        None for an attack from outside.

    Example:
        >>> find_own_row("Square").name, find_own_row("PGD", "margin").name, find_own_row("External")
        ('square', 'cw-K', None)
    """
    rows = _rows_by_class()
    return rows.get((kind, loss)) or rows.get((kind, None))


@cache
def _rows_by_class() -> dict[tuple[str, object], Attack]:
    """Return the rows by class and loss of the settings that they make, and by class alone."""
    rows: dict[tuple[str, object], Attack] = {}
    for row in ROWS:
        if row.make is not None and row.name != "clean":
            settings = row.make(Linf(0.1), nn.Identity(), *(1 for _ in re.findall(r"-[KRS]\b", row.name)))
            for loss in (getattr(settings, "loss", None), None):
                rows.setdefault((type(settings).__name__, loss), row)
    return rows
