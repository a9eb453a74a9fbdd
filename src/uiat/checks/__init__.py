"""Checks before any work is done: arguments, images and labels that cannot be what was meant raise a UserError."""

from uiat.checks.arguments import checked, checked_fields
from uiat.checks.images import check_batch, check_labels, check_shapes, check_values
from uiat.checks.radii import number, radius
from uiat.checks.ranges import (
    Amount,
    AtMostOne,
    BelowOne,
    Between,
    Classes,
    Count,
    Or,
    Positive,
    Seed,
    Side,
    Whole,
    check_step,
)

__all__ = [
    "Amount",
    "AtMostOne",
    "BelowOne",
    "Between",
    "Classes",
    "Count",
    "Or",
    "Positive",
    "Seed",
    "Side",
    "Whole",
    "check_batch",
    "check_labels",
    "check_shapes",
    "check_step",
    "check_values",
    "checked",
    "checked_fields",
    "number",
    "radius",
]
