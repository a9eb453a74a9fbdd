"""Read a run folder: the names of its files, what they hold, and what each setting of the run decides.

Nothing in a file is executed. A damaged file is refused by its name, in every command alike; only a last line of
metrics.jsonl that a kill has cut off is left out, with a warning.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uiat.errors import UserError
from uiat.evaluation.record import EVALUATION_FILE, WEIGHTS_FILES
from uiat.system.bounded_files import nothing_of_links, read_file
from uiat.system.manifest import check_file

__all__ = [
    "CHECKPOINT_FILE",
    "CONFIG_FILE",
    "EFFECTS",
    "ENVIRONMENT_FILE",
    "EVALUATION_FILE",
    "EVALUATION_STATE_FILE",
    "EXTRA_LABELS_FILE",
    "EXTRA_TEACHER_FOLDER",
    "GENERATOR_FILE",
    "INVERSE_FILE",
    "METRICS_FILE",
    "TEACHER_FOLDER",
    "WEIGHTS_FILES",
    "Effect",
    "effect_of",
    "is_moved",
    "is_number",
    "is_row",
    "leaves",
    "read_environment",
    "read_history",
    "read_metrics",
    "read_object",
    "settings_path",
    "training_seconds",
]

logger = logging.getLogger("uiat")

CONFIG_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINT_FILE = "checkpoint.safetensors"
INVERSE_FILE = "inverse.safetensors"  # as `uiat.inverse.universal` names it, which knows nothing of runs
GENERATOR_FILE = "generator.safetensors"  # as `uiat.inverse.generator` names it
TEACHER_FOLDER = "teacher"  # the run that trained it, or the weights that were given
EXTRA_TEACHER_FOLDER = "extra-teacher"  # likewise, of the one that labels extra images
EXTRA_LABELS_FILE = "extra-labels.safetensors"
EVALUATION_STATE_FILE = "evaluation-state.safetensors"
_LARGEST = 1e300  # of the numbers in a record


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
    "compute.trackers": Effect(weights=False, result=False, method=False),
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


def is_moved(path: str, then: Any, now: Any) -> bool:
    """True if a setting names images in a file or folder that may have been moved: their content is compared itself.

    Example:
        >>> is_moved("data.name", "npz:a.npz", "npz:b.npz"), is_moved("data.name", "npz:a.npz", "digits")
        (True, False)
    """
    if not (isinstance(then, str) and isinstance(now, str)):
        return False
    kinds = {name.partition(":")[0] if ":" in name else None for name in (then, now)}
    return path == "data.extra" or (path == "data.name" and kinds in ({"npz"}, {"imagefolder"}, {"hf"}))


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


def tells_apart(path: str) -> bool:
    """True if runs that differ in the setting of a dotted path are not repetitions of one run.

    Example:
        >>> tells_apart("seed"), tells_apart("objective.weight")
        (False, True)
    """
    effect = effect_of(path)
    return path != "seed" and (effect.weights or effect.result)


def shared_by_repeats(tree: Any) -> list[tuple[str, Any]]:
    """Return the (dotted path, value) pairs that repetitions of one run have in common, but those of evaluation.

    Example:
        >>> shared_by_repeats({"seed": 1, "objective": {"weight": 2}, "evaluation": {"n": 10}})
        [('objective.weight', 2)]
    """
    return [item for item in leaves(tree) if tells_apart(item[0]) and not item[0].startswith("evaluation")]


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
        value = json.loads(read_file(path).decode())
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
    path = folder / ENVIRONMENT_FILE
    found = read_object(path) or {}
    check_file(path)
    with nothing_of_links(path, "the environment of a run"):
        for name, value in found.items():
            values = value if isinstance(value, list) else [value]
            plain = all(item is None or isinstance(item, str | int | float) for item in values)
            if not plain or isinstance(value, list) is not (name == "device_names"):
                raise UserError(f"{path} is damaged: what it says of {name!r} cannot be")
    return found


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's metrics.jsonl, one an epoch; none before the first epoch has ended.

    A last line that a kill has cut off is left out, with a warning.

    Raises:
        UserError: the file is damaged.

    Example:
        >>> read_history(Path("missing-run"))
        []
    """
    path = folder / METRICS_FILE
    rows, cut = read_metrics(path)
    check_file(path)
    if cut is not None:
        logger.warning("the last line of %s is cut off and was left out (line %d)", path, cut)
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
        text = read_file(path).decode(errors="replace")
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
    return row if is_row(row) else None


def is_row(row: Any) -> bool:
    """True if a value can be the measurements of an epoch.

    Example:
        >>> is_row({"epoch": 0, "clean": 0.5, "alarms": []}), is_row({"epoch": 0, "alarms": 3})
        (True, False)
    """
    if not isinstance(row, dict) or not isinstance(row.get("epoch"), int) or isinstance(row["epoch"], bool):
        return False
    alarms = row.get("alarms", [])
    values = (value for name, value in row.items() if name != "alarms")
    texts = isinstance(alarms, list) and all(isinstance(alarm, str) for alarm in alarms)
    return texts and all(value is None or is_number(value) for value in values)


def is_number(value: Any) -> bool:
    """True for a finite number; JSON as Python reads it has NaN, infinity and integers of any size.

    Example:
        >>> is_number(0.5), is_number(True), is_number(float("nan")), is_number(10**400)
        (True, False, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_LARGEST < value < _LARGEST


def training_seconds(history: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds that the epochs of a history took, validation included.

    Example:
        >>> training_seconds([{"epoch": 0, "seconds": 2.0, "validation_seconds": 0.5}, {"epoch": 1, "seconds": 2.0}])
        4.5
    """
    return sum((row.get("seconds") or 0.0) + (row.get("validation_seconds") or 0.0) for row in history)
