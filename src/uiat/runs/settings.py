"""Read the settings of a run as a `Run`, and compare two of them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from uiat.config import yaml_io
from uiat.config.own_objectives import is_objective_code
from uiat.config.plain_yaml import read_text
from uiat.config.schema import Run, is_own_data
from uiat.errors import UserError
from uiat.evaluation.own_attacks import is_own_name
from uiat.objectives import AnyObjective, Objective, Standard
from uiat.objectives.abilities import universal_inverse_of
from uiat.runs.config_file import CUSTOM, build_run, own_objective, read_settings, threat_of
from uiat.runs.own_files import AllowOwnCode, check_own_code
from uiat.runs.reader import CONFIG_FILE, effect_of, leaves
from uiat.threat import Threat

__all__ = [
    "CUSTOM",
    "find_differences",
    "needs_first_checkpoint",
    "read_config",
    "read_evaluated",
    "read_plain",
    "read_run",
    "with_threat",
]


def needs_first_checkpoint(run: Run) -> bool:
    """True if a run starts from what its seed does not give: weights, a model of one's own, or perturbations.

    Example:
        >>> needs_first_checkpoint(Run())
        False
    """
    inverse = universal_inverse_of(run.objective)
    is_warm = inverse is not None and inverse.warm_start is not None
    return run.model.is_initialised or run.model.name == CUSTOM or is_warm


def read_run(folder: Path, *, objective: Objective | None = None, own_code: AllowOwnCode = False) -> Run:
    """Read the settings of a run folder.

    Args:
        folder: the run folder.
        objective: the objective of a run of `fit` that was given one of the user's own: the file cannot build it.
        own_code: True to let the folder name code of the user's own for its objective, which runs it, and "changed" to
            run it as it is now, where it is no longer what the run began with.

    Raises:
        UserError: no such file, a damaged one, one that needs `objective`, or one that names code which is not allowed,
            not there, or another one than the run began with.

    Example:
        >>> read_run(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    tree = read_settings(folder)
    if objective is not None:
        tree.pop("objective", None)
    elif (name := own_objective(tree)) is None:
        return build_run(tree, folder / CONFIG_FILE)
    elif not is_objective_code(name):
        raise UserError(
            f"{folder} was trained by fit() with an objective of one's own, {name!r}, which {CONFIG_FILE} cannot "
            "build: resume it with uiat.resume(folder, model=..., train_data=..., objective=...)"
        )
    elif own_code:
        check_own_code(folder, name, allowed=own_code)
    run = build_run(tree, folder / CONFIG_FILE, own_code=bool(own_code))
    return run if objective is None else replace(run, objective=cast(AnyObjective, objective))


def read_evaluated(folder: Path) -> tuple[Run, Threat | None]:
    """Read what an evaluation needs of a run's settings, and its threat model. Runs no code.

    In place of an objective of the user's own stands `Standard`, with the threat model under `evaluation`.

    Raises:
        UserError: as for `read_run`.

    Example:
        >>> read_evaluated(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    tree = read_settings(folder)
    threat = threat_of(tree)
    if own_objective(tree) is None:
        return build_run(tree, folder / CONFIG_FILE), threat
    tree.pop("objective")
    run = build_run(tree, folder / CONFIG_FILE)
    return replace(run, objective=Standard(), evaluation=replace(run.evaluation, threat=threat)), threat


def read_plain(folder: Path) -> dict[str, Any]:
    """Read the settings of a run folder, nested, whole, as `to_dict` gives them. Runs no code.

    Raises:
        UserError: as for `read_run`.

    Example:
        >>> read_plain(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    tree, run = read_settings(folder), read_evaluated(folder)[0]
    plain: dict[str, Any] = yaml_io.to_dict(run)
    return plain if own_objective(tree) is None else plain | {name: tree[name] for name in ("objective", "evaluation")}


def read_config(path: Path, *, own_code: bool = False) -> Run:
    """Read the settings in a YAML file.

    Args:
        path: the file.
        own_code: True to let it name an objective, a data set or attacks of the user's own, which runs their code.

    Raises:
        UserError: no such file, not YAML, a field or value that a run does not have, or code that is not allowed.

    Example:
        >>> read_config(Path("missing.yaml"))
        Traceback (most recent call last):
        uiat.errors.UserError: cannot read missing.yaml: No such file or directory
    """
    tree = yaml_io.parse(read_text(path), source=str(path))
    section = tree.get("objective") if isinstance(tree, dict) else None
    name = section.get("name") if isinstance(section, dict) else None
    if is_objective_code(name) and not own_code:
        raise UserError(f"{path} names code to train with, {name!r}: allow it with --own-code")
    run: Run = yaml_io.load(read_text(path), source=str(path), own_code=own_code)
    if is_own_data(run) and not own_code:
        raise UserError(f"{path} names code to open the data set with, {run.data.name!r}: allow it with --own-code")
    if not own_code and (attack := next(filter(is_own_name, run.evaluation.attacks), None)):
        raise UserError(f"{path} names code to attack with, {attack!r}: allow it with --own-code")
    return run


def with_threat(run: Run) -> Run:
    """Return a run whose settings tell its threat model without its objective's code: under `evaluation`, if need be.

    Example:
        >>> with_threat(Run()) == Run()
        True
    """
    if run.threat is None or threat_of(yaml_io.to_dict(run)) == run.threat:
        return run
    return replace(run, evaluation=replace(run.evaluation, threat=run.threat))


def find_differences(settings: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """Describe how a run's method differs from that of another one; "" for a run that differs in its seed alone.

    Args:
        settings: the settings of the run, nested, as `read_plain` gives them.
        base: those of the other one.

    Example:
        >>> from uiat import override
        >>> one = override(Run(), [("objective.weight", "1"), ("seed", "3")])
        >>> find_differences(yaml_io.to_dict(one), yaml_io.to_dict(Run()))
        'objective.weight=1.0'
    """
    if settings["objective"]["name"] != base["objective"]["name"]:
        return str(settings["objective"]["name"])
    now, then = ({path: value for path, value in leaves(each) if effect_of(path).method} for each in (settings, base))
    missing = [f"no {path}" for path in then if path not in now]
    changed = [f"{path}={value}" for path, value in now.items() if path not in then or then[path] != value]
    return ", ".join(changed or missing)
