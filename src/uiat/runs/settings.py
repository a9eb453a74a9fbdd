"""Read the settings of a run as a `Run`, and compare two of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from uiat.config import yaml_io
from uiat.config.plain_yaml import read_text
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.objectives import AnyObjective, Objective
from uiat.runs.config_file import CUSTOM, build_run, own_objective, read_settings, threat_of
from uiat.runs.reader import CONFIG_FILE, effect_of
from uiat.threat import Threat

__all__ = ["CUSTOM", "find_differences", "read_config", "read_evaluated", "read_run"]


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
    with _no_line_of_links(folder):
        return _build_run(folder, objective)


@contextmanager
def _no_line_of_links(folder: Path) -> Iterator[None]:
    """Inside, an error about a config.yaml that is a link, to any file of this machine, repeats no line of it."""
    try:
        yield
    except UserError:
        if (path := folder / CONFIG_FILE).is_symlink():
            raise UserError(f"{path} is a link to something that does not hold the settings of a run") from None
        raise


def _build_run(folder: Path, objective: Objective | None) -> Run:
    tree = read_settings(folder)
    if objective is not None:
        tree.pop("objective", None)
    elif (name := own_objective(tree)) is not None:
        raise UserError(
            f"{folder} was trained by fit() with an objective of one's own, {name!r}, which {CONFIG_FILE} cannot "
            "build: resume it with uiat.resume(folder, model=..., train_data=..., objective=...)"
        )
    run = build_run(tree, folder / CONFIG_FILE)
    return run if objective is None else replace(run, objective=cast(AnyObjective, objective))


def read_evaluated(folder: Path) -> tuple[Run, Threat | None]:
    """Read what an evaluation needs of a run's settings: all but an objective of one's own, and the threat model.

    Raises:
        UserError: as for `read_run`.

    Example:
        >>> read_evaluated(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    with _no_line_of_links(folder):
        tree = read_settings(folder)
        threat = threat_of(tree)
        if own_objective(tree) is not None:
            tree.pop("objective")
        return build_run(tree, folder / CONFIG_FILE), threat


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
