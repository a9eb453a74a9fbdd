"""Start training from weights: of a file, or the best ones of a run folder; nothing in either is run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat.config.schema import Model
from uiat.errors import UserError
from uiat.models.weights_file import fit_state_dict, read_state_dict
from uiat.runs import checkpoint
from uiat.runs.reader import WEIGHTS_FILES
from uiat.system.announcements import announce
from uiat.system.home import expand_home
from uiat.system.manifest import sum_of_file, sum_of_tensors


def load_initial_weights(model: nn.Module, settings: Model, *, num_classes: int) -> dict[str, Any]:
    """Load the weights that a run starts from into its model; a last layer of other classes stays new, said aloud.

    Args:
        model: the untrained model, changed in place.
        settings: `weights` names a file or a run folder; of `pretrained` ones it is only noted which they are.
        num_classes: K of the model.

    Returns:
        What manifest.json says of the weights, path and sha256 (of pretrained ones, that of the
            model's tensors); empty for a run that starts from random ones.

    Raises:
        UserError: weights that cannot be read, are not finite or do not fit the model.

    Example:
        >>> load_initial_weights(nn.Linear(2, 2), Model(), num_classes=2)
        {}
    """
    if settings.pretrained:  # `models.build` has loaded them
        return {"start": {"weights": f"pretrained {settings.name}", "sha256": sum_of_tensors(model.state_dict())}}
    if settings.weights is None:
        return {}
    path, notes = expand_home(settings.weights), list[str]()
    if path.is_dir():
        path = path / WEIGHTS_FILES["best"]
        tensors = checkpoint.read_weights(path)[0]
    else:
        tensors, notes = read_state_dict(path)
    _require_finite(tensors, path)
    notes += fit_state_dict(model, tensors, source=path, num_classes=num_classes)
    announce(f"start from {path}")
    for note in notes:
        announce(f"{path.name}: {note}", level=logging.WARNING)
    return {"start": {"weights": str(path), "sha256": sum_of_file(path)}}


def _require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path} cannot be trained from: {name} holds values that are not finite (NaN or infinity)")
