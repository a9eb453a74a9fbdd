"""Freeze parts of a model by the names of their parameters."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from uiat.errors import UserError, nearest
from uiat.system.announcements import announce


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> int:
    """Freeze the parameters whose names fit a pattern, say how many, and return their number.

    Modules that are then frozen whole are put into eval mode, in which training keeps them: their BatchNorm layers
    normalise by the statistics that they have, and write none.

    Args:
        model: changed in place.
        patterns: names with "*" and "?", such as "body.stage1.*"; none freezes nothing.

    Raises:
        UserError: a pattern that no parameter's name fits.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).train()
        >>> freeze_parameters(model, ["0.*", "1.*"])
        4
        >>> model[1].training, model[2].training
        (False, True)
    """
    parameters = dict(model.named_parameters())
    fits = {pattern: [name for name in parameters if fnmatchcase(name, pattern)] for pattern in patterns}
    for pattern, found in fits.items():
        if not found:
            raise nearest("parameter of model.freeze", pattern, list(parameters))
    names = {name for found in fits.values() for name in found}
    if not names:
        return 0
    if len(names) == len(parameters):
        raise UserError(f"model.freeze ({', '.join(patterns)}) freezes every parameter: there is nothing to train")
    for name in names:
        parameters[name].requires_grad_(False)
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()
    count, whole = (sum(p.numel() for p in group) for group in ((parameters[n] for n in names), parameters.values()))
    announce(f"frozen: {len(names)} of {len(parameters)} parameters, {count:,} of {whole:,} weights")
    return len(names)
