"""Read the files of a run folder; nothing in them is executed."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from uiat.errors import UserError
from uiat.system.atomic_files import read_tensors

logger = logging.getLogger("uiat")


def settings_path(folder: Path) -> Path:
    """The file in a run folder that holds the settings of the run.

    Raises:
        UserError: there is none.

    Example:
        >>> settings_path(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.yaml")
    return path


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int | None]:
    r"""The rows of a metrics.jsonl, one an epoch; none where there is no file.

    A last line that a kill has cut is left out, and its number is the second value.

    Raises:
        UserError: it cannot be read, or a whole line of it is no row of measurements.

    Example:
        >>> import tempfile
        >>> from uiat.system.atomic_files import write_text
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "metrics.jsonl", '{"epoch": 0, "clean": 0.5}\n{"epoch": 1, "cl')
        ...     read_metrics(Path(folder) / "metrics.jsonl")
        ([{'epoch': 0, 'clean': 0.5}], 2)
    """
    if not path.is_file():
        return [], None
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    lines, rows = text.splitlines(), list[dict[str, Any]]()
    for number, line in enumerate(lines, start=1):
        row = _measurements(line)
        if row is not None:
            rows.append(row)
        elif number == len(lines) and line.startswith("{") and not text.endswith("\n"):
            return rows, number
        else:
            raise UserError(f"{path} is damaged in line {number}: it is no row of measurements")
    return rows, None


def _measurements(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
        return None
    return row if all(_is_measurement(value) for name, value in row.items() if name != "alarms") else None


def _is_measurement(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


# Fields of a run that decide nothing about its weights or its result; two runs may differ in them and be one method.
INDIFFERENT = ("seed", "name", "data.root", "data.workers", "compute.device", "compute.checkpoint")


@dataclass(frozen=True)
class RunFiles:
    """What the files of one run folder say.

    Args:
        folder: the folder.
        config: config.yaml, nested.
        environment: environment.json; empty where there is none.
        history: a row of measurements an epoch, from metrics.jsonl.
        evaluation: evaluation.json; None where the run was not evaluated.
        inverse: universal inverse perturbations (K, C, H, W) in units of [0, 1]; None where the method has none.
        ball: the ball they lie in, such as "Linf:0.1".
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
    ball: str = ""
    notes: tuple[str, ...] = ()

    def setting(self, path: str, default: Any = None) -> Any:
        """A field of the settings by its dotted path."""
        value: Any = self.config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return default if value is None else value

    @property
    def seconds(self) -> float:
        """What training took, validation included."""
        return sum((row.get("seconds") or 0.0) + (row.get("validation_seconds") or 0.0) for row in self.history)


def read_files(folder: Path) -> RunFiles:
    """Read a run folder; nothing in it is executed.

    Raises:
        UserError: no run folder, or a damaged file.

    Example:
        >>> read_files(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    path = settings_path(folder)
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        config = None
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("data", "model")):
        raise UserError(f"{path} is damaged: it does not hold the settings of a run")
    history, notes = _history(folder / "metrics.jsonl")
    evaluation = _object(folder / "evaluation.json")
    if evaluation is None:
        notes.append("not evaluated: there is no evaluation.json; `uiat evaluate` writes it")
    else:
        _check(evaluation, folder / "evaluation.json")
        notes += [str(warning) for warning in evaluation.get("warnings") or ()]
    inverse, ball = _inverse(folder / "inverse.safetensors")
    environment = _object(folder / "environment.json") or {}
    return RunFiles(folder, config, environment, tuple(history), evaluation, inverse, ball, tuple(notes))


def _object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it does not hold a JSON object")
    return value


def _check(evaluation: Mapping[str, Any], path: Path) -> None:
    """The parts of a result that every table needs."""
    accuracy, seconds = evaluation.get("accuracy"), evaluation.get("seconds", {})
    whole = isinstance(accuracy, dict) and isinstance(seconds, dict) and "clean" in accuracy
    values = [*(accuracy or {}).values(), *seconds.values()] if whole else []
    facts = isinstance(evaluation.get("threat"), str) and isinstance(evaluation.get("n"), int)
    if not (values and all(map(_is_number, values)) and facts and isinstance(evaluation.get("data", ""), str)):
        raise UserError(f"{path} is damaged: evaluate the run again")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _history(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The epochs; a last line that a kill has cut is left out, and that is said."""
    if not path.is_file():
        return [], ["no epoch was finished: there is no metrics.jsonl"]
    rows, cut = read_metrics(path)
    notes = [] if cut is None else [f"the last line of metrics.jsonl is cut off and was left out (line {cut})"]
    for row in rows:
        notes += [f"alarm in epoch {row['epoch'] + 1}: {alarm}" for alarm in row.get("alarms") or ()]
    return rows, notes


def _inverse(path: Path) -> tuple[Tensor | None, str]:
    if not path.is_file():
        return None, ""
    tensors, meta = read_tensors(path)
    z = tensors.get("z")
    if z is None or z.ndim != 4:
        raise UserError(f"{path} is not a file of universal inverse perturbations")
    return z.float(), str(meta.get("threat", ""))


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of nested settings.

    Example:
        >>> list(leaves({"seed": 1, "data": {"name": "digits"}}))
        [('seed', 1), ('data.name', 'digits')]
    """
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{path}.{key}" if path else str(key))


# What may be edited in config.yaml between a kill and the resumption: it does not decide the weights.
FREE = (
    *("name", "data.root", "data.workers", "compute.device", "compute.checkpoint", "guards."),
    *("evaluation.attacks", "evaluation.n", "evaluation.batch_size"),
)


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no such file.

    Raises:
        UserError: the file is damaged.

    Example:
        >>> read_object(Path("missing.json"))
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it does not hold a JSON object")
    return value


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, one an epoch; none before the first epoch has ended.

    A last line that a kill has cut is left out, with a warning.

    Raises:
        UserError: the file is damaged.

    Example:
        >>> read_history(Path("missing-run"))
        []
    """
    path = folder / "metrics.jsonl"
    rows, cut = read_metrics(path)
    if cut is not None:
        logger.warning("the last line of %s is cut off and was left out (line %d)", path, cut)
    return rows


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of nested dictionaries, as JSON would give the values back."""
    if not isinstance(tree, dict):
        yield path, json.loads(json.dumps(tree))
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))
