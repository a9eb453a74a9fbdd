"""Read the settings of a run as a `Run`, and compare two of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from uiat.config import yaml_io
from uiat.config.plain_yaml import read_text
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.objectives import METHOD_NAMES, AnyObjective, Objective
from uiat.runs.reader import effect_of, settings_path

# The model name of a run whose model was passed to `fit`.
CUSTOM = "custom"


def read_run(folder: Path, *, objective: Objective | None = None) -> Run:
    """Read the settings of a run folder.

    Args:
        folder: the run folder.
        objective: the objective of a run of `fit` that was given one of the user's own: the file cannot build it.

    Raises:
        UserError: no such file, a damaged one, or one that needs `objective`.

    Example:
        >>> read_run(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    path = settings_path(folder)
    tree = yaml_io.parse(read_text(path), source=str(path))
    if isinstance(tree, dict) and objective is not None:
        tree.pop("objective", None)
    elif (name := _own_objective(tree)) is not None:
        raise UserError(
            f"{folder} was trained by fit() with an objective of one's own, {name!r}, which {path.name} cannot build: "
            "resume it with uiat.resume(folder, model=..., train_data=..., objective=...)"
        )
    run: Run = yaml_io.build(Run, tree)
    return run if objective is None else replace(run, objective=cast(AnyObjective, objective))


def _own_objective(tree: Any) -> str | None:
    """Return the name of an objective that is none of this package's, in the settings of a run of `fit`."""
    sections = [tree.get(key) if isinstance(tree, dict) else None for key in ("model", "objective")]
    model, objective = (section.get("name") if isinstance(section, dict) else None for section in sections)
    return str(objective) if model == CUSTOM and objective is not None and objective not in METHOD_NAMES else None


def read_config(path: Path) -> Run:
    """Read the settings in a YAML file.

    Raises:
        UserError: no such file, not YAML, or a field or value that a run does not have.

    Example:
        >>> read_config(Path("missing.yaml"))
        Traceback (most recent call last):
        uiat.errors.UserError: cannot read missing.yaml: No such file or directory
    """
    return yaml_io.load(read_text(path), source=str(path))


def find_differences(run: Run, base: Run) -> str:
    """Describe how a run's method differs from that of another one; "" for a run that differs in its seed alone.

    Example:
        >>> from uiat import override
        >>> find_differences(override(Run(), [("objective.weight", "1"), ("seed", "3")]), Run())
        'objective.weight=1.0'
    """
    if run.objective.name != base.objective.name:
        return run.objective.name
    now, then = (dict(_method_settings(r)) for r in (run, base))
    missing = [f"no {path}" for path in then if path not in now]
    changed = [f"{path}={value}" for path, value in now.items() if path not in then or then[path] != value]
    return ", ".join(changed or missing)


def _method_settings(run: Run) -> list[tuple[str, object]]:
    return [(path, value) for path, value, _ in yaml_io.describe_fields(run) if effect_of(path).method]
