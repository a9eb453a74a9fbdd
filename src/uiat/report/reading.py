"""A run folder as plain values: settings, epochs, result, perturbations, and what was wrong with any of them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from uiat.errors import UserError
from uiat.files import read_metrics, read_tensors, settings_of

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
    path = settings_of(folder)
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
    if not (values and all(map(_number, values)) and facts and isinstance(evaluation.get("data", ""), str)):
        raise UserError(f"{path} is damaged: evaluate the run again")


def _number(value: Any) -> bool:
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
