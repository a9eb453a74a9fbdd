"""Trackers: training's measurements sent elsewhere, each as one more listener."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from uiat.errors import UserError
from uiat.training.loop import Listener


class TensorBoard:
    """Writes each epoch's measurements as TensorBoard scalars: train/adv_ce, validation/robust, and so on.

    Args:
        folder: where the event files go; look at them with `tensorboard --logdir FOLDER`.

    Raises:
        UserError: the extra is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise UserError("TensorBoard is not installed: pip install 'uiat[tensorboard]'") from None
        self.writer = SummaryWriter(str(folder))

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Nothing: reading a step's terms would wait for the device."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """One point a measurement, at the number of epochs done."""
        for name, value in row.items():
            if isinstance(value, float):
                self.writer.add_scalar(group_name(name), value, row["epoch"] + 1)
        self.writer.flush()


def group_name(name: str) -> str:
    """A measurement's name in groups.

    Example:
        >>> group_name("train_adv_ce"), group_name("robust"), group_name("learning_rate")
        ('train/adv_ce', 'validation/robust', 'run/learning_rate')
    """
    if name.startswith("train_"):
        return f"train/{name.removeprefix('train_')}"
    return f"validation/{name}" if name in ("clean", "robust", "alignment") else f"run/{name}"


class Several:
    """Tells several listeners.

    Args:
        listeners: told one after another.

    Example:
        >>> Several().epoch({"epoch": 0})
    """

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """A step is done."""
        for listener in self.listeners:
            listener.step(epoch, step, steps, terms, images)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done."""
        for listener in self.listeners:
            listener.epoch(row)
