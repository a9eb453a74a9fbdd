"""Train and evaluate the runs of a grid, one after another."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from uiat.config.schema import is_own_code
from uiat.errors import UserError
from uiat.experiments import evaluate, grid
from uiat.experiments.grid import GridRun
from uiat.experiments.options import EvaluateOptions
from uiat.experiments.target import load_target
from uiat.runs.reader import EVALUATION_STATE_FILE, read_history, training_seconds
from uiat.system.atomic_files import PARTIAL
from uiat.training.api import reopen_run, start_run

SECONDS_BETWEEN_LOOKS = 0.5  # at the board, in a terminal


def _attempt(cell: GridRun, told: Callable[[GridRun], None]) -> None:
    """Bring one run to its end, or note why it has none."""
    cell.reason, cell.note = "", ""
    try:
        if not grid.is_trained(cell):
            _state(cell, "training", told)
            _train(cell, told)
        cell.seconds = training_seconds(read_history(cell.folder))
        cell.result = grid.read_result(cell)
        if cell.result is None:
            _state(cell, "judging", told)
            _judge(cell)
            cell.result = grid.read_result(cell)
        if cell.result is None:
            raise UserError("its evaluation.json is not of the attacks, images and threat model asked for")
        _state(cell, "done", told)
    except Exception as error:  # whatever it is, the other runs go on
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        cell.reason = kind + " ".join(str(error).split())
        _state(cell, "failed", told)


def _state(cell: GridRun, status: grid.Status, told: Callable[[GridRun], None]) -> None:
    cell.status, cell.note = status, ""
    told(cell)


def _train(cell: GridRun, told: Callable[[GridRun], None]) -> None:
    """From the beginning, or from the last checkpoint; nothing happens where the run has stopped early."""
    listener = _Listener(cell, told)
    _clear_unborn(cell.folder)
    if cell.folder.exists():
        with reopen_run(cell.folder, listener=listener, own_code=is_own_code(cell.run)) as training:
            training.fit()
    else:
        with start_run(cell.run, run_dir=cell.folder, listener=listener) as training:
            training.fit()


def _clear_unborn(folder: Path) -> None:
    """Remove a folder that a kill left before its settings were in it: it is empty but for half-written files."""
    if folder.is_dir() and all(path.name.startswith(".") and path.name.endswith(PARTIAL) for path in folder.iterdir()):
        for path in folder.iterdir():
            path.unlink()
        with suppress(OSError):
            folder.rmdir()


def _judge(cell: GridRun) -> None:
    run, state = cell.run, cell.folder / EVALUATION_STATE_FILE
    asked = EvaluateOptions(
        run=cell.folder,
        attacks=",".join(run.evaluation.attacks),
        root=run.data.root,
        own_code=is_own_code(run),
        resume=state.exists(),
    )
    evaluate.run(asked, load_target(asked))


class _Listener:
    """Tells the board of each epoch, and in a terminal of the steps between."""

    def __init__(self, cell: GridRun, told: Callable[[GridRun], None]) -> None:
        self.cell, self.told, self.looked = cell, told, float("-inf")

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """How far it is."""
        self.cell.note = f"epoch {epoch + 1}/{self.cell.run.optimisation.epochs}, step {step}/{steps}"
        if (now := time.monotonic()) - self.looked > SECONDS_BETWEEN_LOOKS:
            self.looked = now
            self.told(self.cell)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Nothing more than the next step says."""
