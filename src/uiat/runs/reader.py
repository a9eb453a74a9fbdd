"""Read a run folder: the names of its files, what they hold, and what each setting of the run decides.

Nothing in a file is executed. A damaged file is refused by its name, in every command alike; only a last line of
metrics.jsonl that a kill has cut off is left out, with a warning.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from uiat.config.plain_yaml import parse_plain, read_text
from uiat.errors import UserError
from uiat.system.atomic_files import read_tensors

logger = logging.getLogger("uiat")

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
METRICS_FILE = "metrics.jsonl"
WEIGHTS_FILES = {"best": "best.safetensors", "last": "last.safetensors"}
CHECKPOINT_FILE = "checkpoint.safetensors"
INVERSE_FILE = "inverse.safetensors"  # as `uiat.inverse.universal` names it, which knows nothing of runs
EVALUATION_FILE = "evaluation.json"
EVALUATION_STATE_FILE = "evaluation-state.safetensors"


class Effect(NamedTuple):
    """The things that a setting decides: the weights, the result in evaluation.json, and which method it is."""

    weights: bool
    result: bool
    method: bool


# The settings that do not decide all three; one that ends in a dot stands for all below it. The first that fits counts.
# Those that decide no weights may be edited between a kill and the resumption.
EFFECTS = {
    "name": Effect(weights=False, result=False, method=False),
    "seed": Effect(weights=True, result=True, method=False),
    "data.root": Effect(weights=False, result=False, method=False),
    "data.workers": Effect(weights=False, result=False, method=False),
    "compute.device": Effect(weights=False, result=False, method=False),
    "compute.checkpoint_minutes": Effect(weights=False, result=False, method=False),
    "compute.checkpoint_steps": Effect(weights=False, result=False, method=False),
    "compute.": Effect(weights=True, result=True, method=False),
    "guards.": Effect(weights=False, result=False, method=False),
    "evaluation.attacks": Effect(weights=False, result=True, method=False),
    "evaluation.n": Effect(weights=False, result=True, method=False),
    "evaluation.batch_size": Effect(weights=False, result=False, method=False),
    "evaluation.": Effect(weights=True, result=True, method=False),  # the threat model, which weights files name
}


def effect_of(path: str) -> Effect:
    """Return what the setting of a dotted path decides: everything, if `EFFECTS` does not say otherwise.

    Example:
        >>> effect_of("data.root").weights, effect_of("seed").method, effect_of("objective.weight")
        (False, False, Effect(weights=True, result=True, method=True))
    """
    fits = (effect for key, effect in EFFECTS.items() if path == key or (key[-1] == "." and path.startswith(key)))
    return next(fits, Effect(weights=True, result=True, method=True))


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the (dotted path, value) pairs of nested settings.

    Example:
        >>> list(leaves({"seed": 1, "data": {"name": "digits"}}))
        [('seed', 1), ('data.name', 'digits')]
    """
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, value in tree.items():
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def settings_path(folder: Path) -> Path:
    """Return the path of a run folder's config.yaml.

    Raises:
        UserError: there is none.

    Example:
        >>> settings_path(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no {CONFIG_FILE}")
    return path


def read_object(path: Path) -> dict[str, Any] | None:
    """Read the JSON object in a file; None if there is no such file.

    Raises:
        UserError: the file is damaged.

    Example:
        >>> read_object(Path("missing.json"))
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it does not hold a JSON object")
    return value


def read_environment(folder: Path) -> dict[str, Any]:
    """Read the versions and the hardware of a run; empty if there is no environment.json.

    Raises:
        UserError: the file is damaged.

    Example:
        >>> read_environment(Path("missing-run"))
        {}
    """
    return read_object(folder / ENVIRONMENT_FILE) or {}


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """Read the result in evaluation.json; None if the run was not evaluated.

    Raises:
        UserError: the file is damaged, or lacks what every table needs.

    Example:
        >>> read_evaluation(Path("missing-run"))
    """
    path = folder / EVALUATION_FILE
    result = read_object(path)
    if result is None:
        return None
    accuracy, seconds = result.get("accuracy"), result.get("seconds", {})
    whole = isinstance(accuracy, dict) and isinstance(seconds, dict) and "clean" in accuracy
    values = [*(accuracy or {}).values(), *seconds.values()] if whole else []
    facts = isinstance(result.get("threat"), str) and isinstance(result.get("n"), int)
    if not (values and all(map(_is_number, values)) and facts and isinstance(result.get("data", ""), str)):
        raise UserError(f"{path} is damaged: evaluate the run again")
    return result


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's metrics.jsonl, one an epoch; none before the first epoch has ended.

    A last line that a kill has cut off is left out, with a warning.

    Raises:
        UserError: the file is damaged.

    Example:
        >>> read_history(Path("missing-run"))
        []
    """
    rows, cut = read_metrics(folder / METRICS_FILE)
    if cut is not None:
        logger.warning("the last line of %s is cut off and was left out (line %d)", folder / METRICS_FILE, cut)
    return rows


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int | None]:
    r"""Read the rows of a metrics.jsonl, and the number of a last line that a kill has cut off and that is left out.

    Raises:
        UserError: the file cannot be read, or a whole line of it is no row of measurements.

    Example:
        >>> import tempfile
        >>> from uiat.system.atomic_files import write_text
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "metrics.jsonl"
        ...     _ = path.write_text('{"epoch": 0, "clean": 0.5}\n{"epoch": 1, "cl')
        ...     read_metrics(path)
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
    values = (value for name, value in row.items() if name != "alarms")
    return row if all(value is None or _is_number(value) for value in values) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def training_seconds(history: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds that the epochs of a history took, validation included.

    Example:
        >>> training_seconds([{"epoch": 0, "seconds": 2.0, "validation_seconds": 0.5}, {"epoch": 1, "seconds": 2.0}])
        4.5
    """
    return sum((row.get("seconds") or 0.0) + (row.get("validation_seconds") or 0.0) for row in history)


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
    """Read the files of a run folder.

    Raises:
        UserError: no run folder, or a damaged file.

    Example:
        >>> read_files(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    config, environment = _read_config(settings_path(folder)), read_environment(folder)
    history, notes = _read_history_with_notes(folder)
    evaluation = read_evaluation(folder)
    if evaluation is None:
        notes.append(f"not evaluated: there is no {EVALUATION_FILE}; `uiat evaluate` writes it")
    else:
        notes += [str(warning) for warning in evaluation.get("warnings") or ()]
    inverse, threat = _read_inverse(folder / INVERSE_FILE)
    return RunFiles(folder, config, environment, tuple(history), evaluation, inverse, threat, tuple(notes))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = parse_plain(read_text(path), source=str(path))
    except UserError:
        config = None
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("data", "model")):
        raise UserError(f"{path} is damaged: it does not hold the settings of a run")
    return config


def _read_history_with_notes(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    if not (folder / METRICS_FILE).is_file():
        return [], [f"no epoch was finished: there is no {METRICS_FILE}"]
    rows, cut = read_metrics(folder / METRICS_FILE)
    notes = [] if cut is None else [f"the last line of {METRICS_FILE} is cut off and was left out (line {cut})"]
    for row in rows:
        notes += [f"alarm in epoch {row['epoch'] + 1}: {alarm}" for alarm in row.get("alarms") or ()]
    return rows, notes


def _read_inverse(path: Path) -> tuple[Tensor | None, str]:
    if not path.is_file():
        return None, ""
    tensors, meta = read_tensors(path)
    z = tensors.get("z")
    if z is None or z.ndim != 4:
        raise UserError(f"{path} is not a file of universal inverse perturbations")
    return z.float(), str(meta.get("threat", ""))
