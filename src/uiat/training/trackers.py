"""Trackers: listeners that send the measurements of training elsewhere, one row of `TRACKERS` each."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from uiat.errors import UserError, nearest
from uiat.system.distributed import current_rank
from uiat.training.listener import Listener

logger = logging.getLogger("uiat")


class TensorBoard:
    """Writes each epoch's measurements as TensorBoard scalars: train/adv_ce, validation/robust, and so on.

    Args:
        folder: where the event files go; look at them with `tensorboard --logdir FOLDER`.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Do nothing: reading a step's terms would wait for the device."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Write one point for each measurement, at the number of epochs done."""
        for name, value in row.items():
            if isinstance(value, float):
                self.writer.add_scalar(group_name(name), value, row["epoch"] + 1)
        self.writer.flush()


@dataclass(frozen=True)
class Tracker:
    """A row of `TRACKERS`.

    Args:
        make: makes the listener, given a folder of its own; raises ImportError if a package is missing.
        extra: the optional dependency of `uiat` that it needs.
    """

    make: Callable[[Path], Listener]
    extra: str


# By the name that `uiat train` knows a tracker by (`--NAME`), which is that of its folder in the run's, too.
TRACKERS: dict[str, Tracker] = {"tensorboard": Tracker(make=TensorBoard, extra="tensorboard")}


def make_trackers(names: Sequence[str], run_dir: Path) -> list[Listener]:
    """Make the trackers of a run; of several processes, those of the first one alone.

    Args:
        names: names in `TRACKERS`.
        run_dir: the run's folder, in which each tracker has a folder of its name.

    Raises:
        UserError: no such tracker, or its extra is not installed.

    Example:
        >>> make_trackers(["tensorbord"], Path("runs/a"))
        Traceback (most recent call last):
        uiat.errors.UserError: unknown tracker 'tensorbord'; did you mean 'tensorboard'? ...
    """
    listeners = []
    for name in names:
        if (tracker := TRACKERS.get(name)) is None:
            raise nearest("tracker", name, TRACKERS)
        if current_rank().first:
            try:
                listeners.append(tracker.make(run_dir / name))
            except ImportError:
                raise UserError(f"{name} is not installed: pip install 'uiat[{tracker.extra}]'") from None
            except Exception as error:  # whatever a tracker meets, the run does without it
                _warn_of_loss(name, error)
    return listeners


class Lenient:
    """A tracker whose failures cost its records and never the run: the first one is said, and the last it is asked.

    Args:
        listener: the tracker.

    Example:
        >>> Lenient(TensorBoard.__new__(TensorBoard)).epoch({"clean": 0.5})
    """

    def __init__(self, listener: Listener) -> None:
        self.name = type(listener).__name__
        self.listener: Listener | None = listener

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Pass on a finished step."""
        self._tell(lambda listener: listener.step(epoch, step, steps, terms, images))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Pass on a finished epoch."""
        self._tell(lambda listener: listener.epoch(row))

    def _tell(self, tell: Callable[[Listener], None]) -> None:
        if self.listener is None:
            return
        try:
            tell(self.listener)
        except Exception as error:
            self.listener = None
            _warn_of_loss(self.name, error)


def _warn_of_loss(name: str, error: Exception) -> None:
    reason = " ".join(str(error).split())
    logger.warning("the run goes on without %s: %s: %s", name, type(error).__name__, reason)


def group_name(name: str) -> str:
    """Return the name of a measurement with its group before it.

    Example:
        >>> group_name("train_adv_ce"), group_name("robust"), group_name("learning_rate")
        ('train/adv_ce', 'validation/robust', 'run/learning_rate')
    """
    if name.startswith("train_"):
        return f"train/{name.removeprefix('train_')}"
    return f"validation/{name}" if name in ("clean", "robust", "alignment") else f"run/{name}"
