"""The position of a run in training, as a checkpoint holds it: epoch, step, history, best epoch so far."""

from collections.abc import Mapping
from typing import Any

from uiat.errors import UserError
from uiat.runs.reader import CHECKPOINT_FILE

# Attributes of `Training` that a checkpoint holds as JSON, under these names.
POSITION: dict[str, Any] = {
    **{"epoch": int, "position": int, "seconds": float, "history": list, "best": dict | None},
    **{"stale": int, "rollbacks": int, "stopped": bool},
}


def read_position(meta: Mapping[str, Any], *, epochs: int, steps_per_epoch: int) -> dict[str, Any]:
    """Return the position among the JSON values of a checkpoint, each of them checked.

    Args:
        meta: what the checkpoint says.
        epochs: number of epochs of the run.
        steps_per_epoch: number of steps of an epoch.

    Raises:
        UserError: it is no position of this run.

    Example:
        >>> read_position({"epoch": 7}, epochs=3, steps_per_epoch=5)
        Traceback (most recent call last):
        uiat.errors.UserError: the position in checkpoint.safetensors is not one of this run: the file is damaged or ...
    """
    fits = all(isinstance(meta.get(name), kind) for name, kind in POSITION.items())
    fits = fits and 0 <= meta["epoch"] <= epochs and 0 <= meta["position"] <= steps_per_epoch
    if not fits or meta.get("steps_per_epoch") != steps_per_epoch:
        raise UserError(f"the position in {CHECKPOINT_FILE} is not one of this run: the file is damaged or foreign")
    return {name: meta[name] for name in POSITION}
