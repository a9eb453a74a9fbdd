"""Read all that a report needs of a run folder, or of a folder that holds an evaluation alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from uiat.data.notices import warn_once
from uiat.errors import UserError
from uiat.evaluation.record import EVALUATION_FILE
from uiat.formatting import parse_threat_record
from uiat.runs.config_file import read_settings
from uiat.runs.evaluations import choose
from uiat.runs.reader import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    INVERSE_FILE,
    METRICS_FILE,
    WEIGHTS_FILES,
    read_environment,
    read_metrics,
    settings_path,
    shared_by_repeats,
    training_seconds,
)
from uiat.system.manifest import MANIFEST_FILE, check_file, read_manifest, sum_of_tensor_file
from uiat.system.tensor_files import read_tensors


@dataclass(frozen=True)
class RunFiles:
    """The contents of one run folder.

    Args:
        folder: the run folder.
        config: config.yaml, nested.
        environment: environment.json; empty if there is none.
        history: the rows of metrics.jsonl, one an epoch.
        evaluation: evaluation.json; None if the run was not evaluated.
        inverse: universal inverse perturbations (K, C, H, W) in units of [0, 1]; None if the method has none.
        inverse_threat: the ball they lie in, such as "Linf:0.1".
        notes: what a reader should know about these files.

    Example:
        >>> RunFiles(Path("runs/a"), {"seed": 3, "data": {"name": "digits"}}).setting("data.name")
        'digits'
    """

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    evaluation: Mapping[str, Any] | None = None
    inverse: Tensor | None = None
    inverse_threat: str = ""
    notes: tuple[str, ...] = ()

    def setting(self, path: str, default: Any = None) -> Any:
        """Return a field of the settings by its dotted path."""
        value: Any = self.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return default if value is None else value

    @property
    def seconds(self) -> float:
        """The seconds that training took, validation included."""
        return training_seconds(self.history)


def read_files(folder: Path) -> RunFiles:
    """Read the files of a run folder, or of a folder to which `uiat evaluate --model ... --out` has written.

    Raises:
        UserError: no such folder, or a damaged file.

    Example:
        >>> read_files(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    if is_evaluation_alone(folder):
        return _read_evaluation_alone(folder)
    settings_path(folder)
    config, environment = read_settings(folder), read_environment(folder)
    history, notes = _read_history_with_notes(folder)
    if read_manifest(folder) is None:
        notes.append(f"no {MANIFEST_FILE}, as in folders of version 0.1: damage to its files cannot be seen")
    evaluation, said = choose(folder)
    notes += said
    if evaluation is None:
        notes.append(f"not evaluated: there is no {EVALUATION_FILE} of these weights; `uiat evaluate` writes it")
    else:
        notes += evaluation.get("warnings", ())
    inverse, threat = _read_inverse(folder / INVERSE_FILE)
    return RunFiles(folder, config, environment, tuple(history), evaluation, inverse, threat, tuple(notes))


def find_copies(runs: Sequence[RunFiles]) -> dict[Path, Path]:
    """Return the folders that are copies of an earlier one, with that one: equal in settings, seed and weights.

    A copy is no repetition: counted as one, it would make the deviation over seeds look smaller than it is.

    Example:
        >>> find_copies([RunFiles(Path("a"), {"seed": 0}), RunFiles(Path("b"), {"seed": 1})])
        {}
    """
    alike: dict[str, list[RunFiles]] = {}
    for run in runs:
        alike.setdefault(json.dumps([shared_by_repeats(run.config), run.setting("seed")], default=str), []).append(run)
    copies: dict[Path, Path] = {}
    for members in alike.values():
        first: dict[tuple[str, ...], Path] = {}
        for run in members if len(members) > 1 else ():
            if (sums := _sums_of_weights(run)) and first.setdefault(sums, run.folder) != run.folder:
                copies[run.folder] = first[sums]
    return copies


def _sums_of_weights(run: RunFiles) -> tuple[str, ...]:
    """Return the sums of a run's weights, or those that were evaluated; none where they are not known."""
    paths = [run.folder / name for name in WEIGHTS_FILES.values()]
    if sums := tuple(sum_of_tensor_file(path) for path in paths if path.is_file()):
        return sums
    evaluated = ((run.evaluation or {}).get("sums") or {}).get("weights")
    return (evaluated,) if evaluated else ()


def is_evaluation_alone(folder: Path) -> bool:
    """True for a folder that holds an evaluation and nothing of a training run, as `uiat evaluate --out` makes it.

    Example:
        >>> is_evaluation_alone(Path("missing"))
        False
    """
    others = (CONFIG_FILE, MANIFEST_FILE, METRICS_FILE, CHECKPOINT_FILE, *WEIGHTS_FILES.values())
    return (folder / EVALUATION_FILE).is_file() and not any((folder / name).exists() for name in others)


def find_runs(folder: Path, *, alone: bool = False) -> list[Path]:
    """Return the run folders that a folder stands for: itself, or those in it, as in the folder of a sweep.

    Args:
        folder: what a user named.
        alone: True to refuse what holds no run, because nothing else was named; it is passed over otherwise.

    Raises:
        UserError: no such folder, or nothing else was named and it is no run.

    Example:
        >>> find_runs(Path("missing-run"), alone=True)
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    if _is_run(folder):
        return [folder]
    try:
        inside = sorted(path for path in folder.iterdir() if _is_run(path)) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None
    if not inside and (alone or not folder.exists()):
        settings_path(folder)
    if not inside:
        warn_once(f"{folder} is passed over: it is neither a run folder nor that of a sweep or an evaluation")
    return inside


def _is_run(folder: Path) -> bool:
    try:
        return any((folder / name).is_file() for name in (CONFIG_FILE, EVALUATION_FILE, MANIFEST_FILE))
    except OSError as error:  # a folder of another user's, such as one that may not be entered
        warn_once(f"{folder} is passed over: {error.strerror}")
        return False


def _read_evaluation_alone(folder: Path) -> RunFiles:
    """Read a folder without a training run: its evaluation says of which model and data it is."""
    evaluation, notes = choose(folder)
    if evaluation is None:
        raise UserError(f"{folder} holds no evaluation of what it was made of: {'; '.join(notes)}")
    config = {"name": folder.resolve().name, "seed": evaluation.get("seed", 0)}
    sections = {name: {"name": str(evaluation.get(name))} for name in ("data", "model")}
    notes = ["an evaluation without a training run", *notes, *evaluation.get("warnings", ())]
    environment = evaluation.get("environment", {})
    return RunFiles(folder, {**config, **sections}, environment, evaluation=evaluation, notes=tuple(notes))


def _read_history_with_notes(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    path = folder / METRICS_FILE
    rows, cut = read_metrics(path)
    check_file(path)
    if not path.is_file():
        return [], [f"no epoch was finished: there is no {METRICS_FILE}"]
    notes = [] if cut is None else [f"the last line of {METRICS_FILE} is cut off and was left out (line {cut})"]
    for row in rows:
        notes += [f"alarm in epoch {row['epoch'] + 1}: {alarm}" for alarm in row.get("alarms", ())]
    return rows, notes


def _read_inverse(path: Path) -> tuple[Tensor | None, str]:
    if not path.is_file():
        check_file(path)
        return None, ""
    tensors, meta = read_tensors(path)
    check_file(path)
    z = tensors.get("z")
    if z is None or z.ndim != 4 or not bool(z.isfinite().all()):
        raise UserError(f"{path} is not a file of universal inverse perturbations")
    parse_threat_record(meta.get("threat"), path)
    return z.float(), str(meta["threat"])
