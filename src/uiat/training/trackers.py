"""Send what a run measures to trackers, `compute.trackers`: each is a row of `TRACKERS`, and none can stop a run."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from uiat.config import yaml_io
from uiat.config.compute import TRACKER_NAMES
from uiat.config.schema import Run
from uiat.errors import UserError, nearest
from uiat.runs.reader import leaves, read_history
from uiat.runs.settings import read_evaluated
from uiat.system.distributed import current_rank
from uiat.training.tracker_kinds import MLflow, Pixels, TensorBoard, Tracked, Tracker, Trackio, WandB
from uiat.training.tracker_pictures import draw_classes, draw_perturbations

logger = logging.getLogger("uiat")


@dataclass(frozen=True)
class Row:
    """A row of `TRACKERS`.

    Args:
        make: makes the tracker of a run.
        package: what it imports; the extra of `uiat` that brings it is named as the tracker.
    """

    make: Callable[[Tracked], Tracker]
    package: str


TRACKERS: dict[str, Row] = {
    "tensorboard": Row(TensorBoard, "tensorboard"),
    "wandb": Row(WandB, "wandb"),
    "mlflow": Row(MLflow, "mlflow"),
    "trackio": Row(Trackio, "trackio"),
}


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that do not exist or whose package is not installed, before a run begins.

    Raises:
        UserError: with the name that was meant, or the command that installs the package.

    Example:
        >>> require_trackers(["tensorbord"])
        Traceback (most recent call last):
        uiat.errors.UserError: unknown tracker 'tensorbord'; did you mean 'tensorboard'? ...
    """
    for name in names:
        if name not in TRACKERS:
            raise nearest("tracker", name, TRACKER_NAMES)
        if find_spec(TRACKERS[name].package) is None:
            raise UserError(f"the tracker {name} is not installed: pip install 'uiat[{name}]'")


class Tracking:
    """A listener that passes on what is measured to trackers; one that fails is said once and then left out.

    Args:
        trackers: each by its name.

    Example:
        >>> Tracking({}).epoch({"epoch": 0, "clean": 0.5})
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self.trackers = dict(trackers)

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Do nothing: reading a step's terms would wait for the device."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Pass on the numbers of an epoch, at the number of epochs done."""
        numbers = {group_name(name): value for name, value in row.items() if isinstance(value, float)}
        self._tell(lambda tracker: tracker.log_numbers(numbers, row["epoch"] + 1))

    def record(self, numbers: Mapping[str, float], pictures: Mapping[str, Pixels], step: int) -> None:
        """Pass on numbers and pictures by name, after so many epochs."""
        if numbers:
            self._tell(lambda tracker: tracker.log_numbers(numbers, step))
        for name, pixels in pictures.items():
            self._tell(lambda tracker, name=name, pixels=pixels: tracker.log_picture(name, pixels, step))  # type: ignore[misc]

    def close(self) -> None:
        """Let each write the rest."""
        self._tell(lambda tracker: tracker.close())

    def _tell(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.trackers.items()):
            try:
                tell(tracker)
            except Exception as error:  # whatever a tracker meets, the run does without it
                del self.trackers[name]
                _warn_of_loss(name, error)


@contextmanager
def tracking(run: Run, folder: Path | None, *, more: Sequence[str] = ()) -> Iterator[Tracking]:
    """Inside, the trackers of a run are open; of several processes, those of the first one alone.

    Args:
        run: the run, which names them in `compute.trackers`.
        folder: its folder; without one nothing is tracked.
        more: further names.

    Raises:
        UserError: no such tracker, or its package is not installed.

    Example:
        >>> with tracking(Run(), None) as open_trackers:
        ...     open_trackers.trackers
        {}
    """
    names = tuple(dict.fromkeys([*run.compute.trackers, *more]))
    require_trackers(names)
    opened = Tracking({})
    if folder is not None and current_rank().first:
        tracked = Tracked(folder, run.name, dict(leaves(yaml_io.to_dict(run))))
        for name in names:
            try:
                opened.trackers[name] = TRACKERS[name].make(tracked)
            except Exception as error:
                _warn_of_loss(name, error)
    try:
        yield opened
    finally:
        opened.close()


def track_perturbations(opened: Tracking, folder: Path | None, epochs: int) -> None:
    """Pass on the picture of the universal inverse perturbations of a run, if there is a tracker and a picture."""
    if opened.trackers and folder is not None and (pixels := draw_perturbations(folder)) is not None:
        opened.record({}, {"inverse/perturbations": pixels}, epochs)


def track_evaluation(folder: Path, record: Mapping[str, Any]) -> None:
    """Send an evaluation of a run to the trackers that the run names: its accuracies, and those by class as a picture.

    Args:
        folder: the run folder; one without settings has no trackers.
        record: the contents of evaluation.json.

    Example:
        >>> track_evaluation(Path("missing"), {"accuracy": {"clean": 0.5}})
    """
    try:
        run = read_evaluated(folder)[0]
        epochs = len(read_history(folder))
    except UserError:
        return  # an evaluation alone, or a run that cannot be read, which was said where it matters
    if not run.compute.trackers or not current_rank().first:
        return
    try:
        with tracking(run, folder) as opened:
            numbers = {f"evaluation/{name}": float(value) for name, value in record["accuracy"].items()}
            drawn = draw_classes(record.get("per_class", {}))
            opened.record(numbers, {} if drawn is None else {"evaluation/classes": drawn}, epochs)
    except UserError as error:  # a package that has gone: the evaluation is written, which is what counts
        logger.warning("the evaluation was not tracked: %s", error)


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
    return f"validation/{name}" if name in ("clean", "robust", "worst_class", "alignment") else f"run/{name}"
