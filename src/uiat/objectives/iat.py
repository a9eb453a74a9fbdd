"""IAT: UIAT with an inverse adversary for each image."""

from typing import Any

from uiat.checks import checked
from uiat.inverse import InstanceInverse
from uiat.objectives.uiat import UIAT


@checked
def IAT(*, inverse: InstanceInverse | None = None, **fields: Any) -> UIAT:
    """Return the objective IAT (UIAT, CVPR 2023): `UIAT` whose inverse adversary is computed anew for each image.

    Args:
        inverse: the inverse adversary; `InstanceInverse()` by default.
        fields: the other fields of `UIAT`, such as weight=2.0.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> IAT(weight=2.0).inverse.kind
        'instance'
    """
    return UIAT(inverse=InstanceInverse() if inverse is None else inverse, **fields)
