"""Bring one run to its end: train it or resume it, and evaluate it."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor

from uiat.checks import checked
from uiat.config.schema import Run, is_own_code
from uiat.errors import Busy, Stopped, UserError
from uiat.experiments import evaluate
from uiat.experiments.arithmetic import describe_arithmetic
from uiat.experiments.grid import GridRun, Status, check_same_run
from uiat.experiments.options import EvaluateOptions
from uiat.experiments.target import load_target
from uiat.formatting import threat_record
from uiat.runs.evaluations import find_evaluations
from uiat.runs.folder import remove_killed_start
from uiat.runs.reader import CONFIG_FILE, WEIGHTS_FILES, read_history, training_seconds
from uiat.runs.settings import read_evaluated
from uiat.training.api import resume, train
from uiat.training.listener import Listener
from uiat.training.result import Trained

SECONDS_BETWEEN_REPORTS = 0.5  # of the step that a run has come to
SEED = EvaluateOptions().seed  # of the evaluations of a sweep
OnChange = Callable[[GridRun], None]


@checked
def finish_training(run: Run, folder: Path, *, listener: Listener | None = None) -> Trained:
    """Train a run to its last epoch in a folder: from the start, from its last checkpoint, or not at all.

    Args:
        run: every setting.
        folder: folder of the run; it is made where it is missing.
        listener: told about each step and epoch.

    Raises:
        UserError: the folder holds another run, or a damaged one, or `uiat.train` refuses the run.
        NotFinite: a loss term is not finite.

    Example:
        >>> import tempfile
        >>> from uiat import override, recipes
        >>> run = override(recipes.get("digits-standard"), [("optimisation.epochs", "1"), ("model.width", "4")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = finish_training(run, Path(folder) / "run")
        ...     again = finish_training(run, Path(folder) / "run")  # nothing is left to train
        >>> first.best == again.best
        True
    """
    remove_killed_start(folder)
    with suppress(OSError):
        folder.rmdir()  # an empty one
    if not folder.exists():
        return train(run, run_dir=folder, listener=listener, progress=False)
    check_same_run(run, folder)
    return resume(folder, listener=listener, own_code=is_own_code(run), progress=False)


def finish_run(run: GridRun, on_change: OnChange, *, evaluated: bool = True) -> None:
    """Train and evaluate a run of a grid, as far as that is left to do, or note the reason why it fails.

    Args:
        run: the run; its status, result and seconds are set.
        on_change: called with the run at each new status, and now and then while it trains.
        evaluated: False to train alone.

    Raises:
        Busy: another process trains or evaluates this very run.
    """
    run.reason, run.note = "", ""
    try:
        if not _is_trained(run):
            run.curve = _robust_curve(read_history(run.folder))
            _set_status(run, "training", on_change)
            finish_training(run.run, run.folder, listener=_Reporter(run, on_change))
        check_same_run(run.run, run.folder)
        run.arithmetic = describe_arithmetic(read_evaluated(run.folder)[0])
        history = read_history(run.folder)
        run.seconds, run.curve = training_seconds(history), _robust_curve(history)
        if evaluated:
            _finish_evaluation(run, on_change)
        _set_status(run, "done", on_change)
    except Busy:
        raise
    except Stopped:  # Ctrl-C inside an evaluation, whose state file is kept: the sweep stops, and is resumed
        raise KeyboardInterrupt from None
    except Exception as error:  # whatever it is, the other runs go on
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        run.reason = kind + " ".join(str(error).split())
        _set_status(run, "failed", on_change)


def describe_state(run: GridRun) -> str:
    """Say how far the folder of a run has come, for a sweep that is only planned: nothing is made or changed.

    Example:
        >>> describe_state(GridRun({}, Run(), Path("missing")))
        'new'
    """
    try:
        if not (run.folder / CONFIG_FILE).is_file():
            return "new"
        done = len(read_history(run.folder))
        if not _is_trained(run):
            return f"to be resumed after epoch {done} of {run.run.optimisation.epochs}"
        return "trained, to be evaluated" if read_result(run) is None else "done"
    except UserError as error:
        return f"fails: {error}"


def _robust_curve(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the robust validation accuracies of a history."""
    return [row["robust"] for row in history if row.get("robust") is not None]


def _set_status(run: GridRun, status: Status, on_change: OnChange) -> None:
    run.status, run.note = status, ""
    on_change(run)


def _is_trained(run: GridRun) -> bool:
    """True if the files say that every epoch is there; a run that stopped early has to be opened to know."""
    has_epochs = len(read_history(run.folder)) >= run.run.optimisation.epochs
    return has_epochs and all((run.folder / name).is_file() for name in WEIGHTS_FILES.values())


def _finish_evaluation(run: GridRun, on_change: OnChange) -> None:
    run.result = read_result(run)
    if run.result is None:
        _set_status(run, "evaluating", on_change)
        options = EvaluateOptions(
            run=run.folder,
            attacks=",".join(run.run.evaluation.attacks),
            root=run.run.data.root,
            own_code=is_own_code(run.run),
            resume=True,
        )
        evaluate.run(options, load_target(options))
        run.result = read_result(run)
    if run.result is None:
        raise UserError("none of its evaluations is of the data, attacks, images and threat model asked for")


def read_result(run: GridRun) -> Mapping[str, Any] | None:
    """Return the result of a run's best weights, or None where no evaluation is what the run's settings ask for.

    Evaluations made by hand stand beside it: of other data, weights, images or attacks, by other rules. They never
    count, and of several that could, the one on the most images does, with the seed that a sweep evaluates with.

    Example:
        >>> read_result(GridRun({}, Run(), Path("missing")))
    """
    fitting = [found for found in find_evaluations(run.folder) if not found.stale and _is_asked_for(found.record, run)]
    fitting.sort(key=lambda found: (-found.record["n"], found.record.get("seed", SEED) != SEED, found.worst))
    return fitting[0].record if fitting else None


def _is_asked_for(result: Mapping[str, Any], run: GridRun) -> bool:
    """True for an evaluation of the data, weights, threat model, attacks and images that a run's settings name."""
    settings, threat, data = run.run.evaluation, run.run.threat, run.run.data.name
    if threat is None or result["threat"] != threat_record(threat) or result.get("which", "best") != "best":
        return False
    # What `EvaluationResult.save` has written without the name of its data counts as of the run's.
    if result.get("data", data) != data or result.get("until") or result.get("calls"):
        return False
    same_attacks = {"clean", *settings.attacks, "worst"} == set(result["accuracy"])
    return same_attacks and _has_all_images(result, settings.n) and not _is_of_first_classes(result, settings.n)


def _has_all_images(result: Mapping[str, Any], n: int | None) -> bool:
    """True for as many images as are asked for, and for a whole test set that has no more."""
    if n is not None and result["n"] >= n:
        return bool(result["n"] == n)
    if "sample" not in result:
        return "format" not in result  # version 0.1 did not write down how many there are
    return result["sample"].get("of") in (None, result["n"])  # None for images that pass by once


def _is_of_first_classes(result: Mapping[str, Any], n: int | None) -> bool:
    """True for n images of an image folder as version 0.1 took them: those of the first classes alone."""
    is_folder = str(result.get("data", "")).startswith("imagefolder:")
    return is_folder and "sample" not in result and result["n"] == n


class _Reporter:
    """Notes the step that a run of a grid has come to."""

    def __init__(self, run: GridRun, on_change: OnChange) -> None:
        self.run, self.on_change, self.reported = run, on_change, float("-inf")
        self.began, self.done = time.monotonic(), 0

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Note the step and the time left at the pace so far, and report it a few times a second at most."""
        epochs, now = self.run.run.optimisation.epochs, time.monotonic()
        self.done += 1
        left = timedelta(seconds=round(((epochs - epoch) * steps - step) * (now - self.began) / self.done))
        self.run.note = f"epoch {epoch + 1}/{epochs}, step {step}/{steps}, {left} left"
        if now - self.reported > SECONDS_BETWEEN_REPORTS:
            self.reported = now
            self.on_change(self.run)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Keep the robust accuracy; the next step reports it."""
        self.run.curve = [*self.run.curve, *_robust_curve([row])]
