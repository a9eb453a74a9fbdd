"""Read and write config.yaml: a run's settings, complete and as they were written, or refused; never defaults."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uiat.config import yaml_io
from uiat.config.own_objectives import is_objective_code
from uiat.config.plain_yaml import read_text
from uiat.config.schema import Run
from uiat.data.notices import warn_once
from uiat.errors import UserError
from uiat.objectives import METHOD_NAMES
from uiat.runs.reader import effect_of, is_moved, leaves, settings_path
from uiat.system.bounded_files import nothing_of_links
from uiat.system.manifest import MANIFEST_FILE, read_manifest
from uiat.threat import Threat, parse

FORMAT = 2  # of run folders; those of version 0.1 do not say theirs, and have no manifest
# Settings that version 0.1 did not have: its folders may lack them, and were computed with these defaults.
ADDED: frozenset[str] = frozenset(
    {
        *("model.weights", "model.pretrained", "model.freeze", "objective.momentum_start"),
        *("objective.inverse.resolution", "objective.inverse.storage"),
        *("data.extra", "data.extra_share", "data.extra_labels", "data.extra_teacher"),
        *(
            "data.least_area",
            "data.randaugment",
            "data.randaugment_magnitude",
            "data.erasing",
            "data.mixup",
            "data.cutmix",
        ),
        "objective.attack.draws",
        *("compute.trackers", "compute.fold"),
        *("optimisation.decay_norms", "optimisation.layer_decay", "optimisation.radius_warmup_epochs"),
        "optimisation.steps_warmup_epochs",
    }
)
# The model name of a run whose model was passed to `fit`.
CUSTOM = "custom"
HOLDS = "the settings of a run"  # what a config.yaml is for, in messages
_SECTIONS = ("model", "data", "objective")  # which readers of a run take to be there
_SHOWN = 5  # settings that a message lists before it only counts


def dump_settings(run: Run) -> str:
    """Return what config.yaml holds of a run: the format, and every setting.

    Example:
        >>> dump_settings(Run()).splitlines()[:2]
        ['format: 2', 'name: run']
    """
    return f"format: {FORMAT}\n{yaml_io.dump(run)}"


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings of a run folder as they stand in config.yaml, nested.

    Where the folder has a manifest, they are held against those that the run began with: a setting that decides its
    weights must be the same, and a warning names any other one.

    Raises:
        UserError: no such file, or one that is damaged, cut off, incomplete, edited, or of a later version.

    Example:
        >>> read_settings(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    path = settings_path(folder)
    with nothing_of_links(path, HOLDS):
        return _read_tree(path)


def _read_tree(path: Path) -> dict[str, Any]:
    tree, folder = _parse(read_text(path), path), path.parent
    form = tree.pop("format", 1)
    if form not in (1, FORMAT):
        raise UserError(
            f"{path} has format {form!r}, which this version of uiat does not know: it reads 1 and {FORMAT}"
        )
    manifest = read_manifest(folder)
    if manifest is not None and isinstance(manifest.get("settings"), dict):
        _compare(manifest["settings"], tree, path)
        # Anybody can seal a manifest of fewer settings than a run has.
        _refuse_missing([name for name in _SECTIONS if not isinstance(tree.get(name), dict)], path)
    else:
        if form == FORMAT:
            warn_once(f"{folder} has no {MANIFEST_FILE}: damage to its files cannot be seen")
        _require_complete(tree, path, may_lack=ADDED if form == 1 else frozenset())
    _as_it_was(tree)
    return tree


def _as_it_was(tree: dict[str, Any]) -> None:
    """Add settings that came later, with the values that earlier steps were computed with, where not the defaults."""
    if isinstance(compute := tree.get("compute"), dict):
        compute.setdefault("fold", False)


def _parse(text: str, path: Path) -> dict[str, Any]:
    if not text.endswith("\n"):
        what = "is empty" if not text else "is cut off: its last line has no end"
        raise UserError(f"{path} {what}; the settings of a run are never filled with defaults: put the file back")
    tree = yaml_io.parse(text, source=str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} is damaged: it does not hold the settings of a run")
    return tree


def _compare(written: Mapping[str, Any], tree: Mapping[str, Any], path: Path) -> None:
    """Refuse settings that are not those that the run began with, where these decide its weights."""
    then, now = (dict(leaves(json.loads(json.dumps(each, default=str)))) for each in (written, tree))
    _refuse_missing([key for key in then if key not in now], path)
    for key in now:
        if key in then and then[key] == now[key]:
            continue
        change = f"{key} was {then.get(key)!r} and is {now[key]!r}"
        if effect_of(key).weights and not is_moved(key, then.get(key), now[key]):
            raise UserError(
                f"{path} was edited, or {MANIFEST_FILE} is of another run: {change}; a run is resumed and read as it "
                "began, so put it back or start a new run"
            )
        # A link may lead to any file of this machine, whose lines are not to be repeated.
        warn_once(f"{path} was edited: {key if path.is_symlink() else change}")


def _require_complete(tree: dict[str, Any], path: Path, *, may_lack: frozenset[str]) -> None:
    """Refuse settings that lack one which their format writes."""
    own = own_objective(tree) is not None
    run = build_run({key: value for key, value in tree.items() if key != "objective" or not own}, path)
    have = {key for key, _ in leaves(tree)}
    wanted = (key for key, _ in leaves(yaml_io.to_dict(run)) if not (own and key.startswith("objective.")))
    _refuse_missing([key for key in wanted if key not in have and key not in may_lack], path)


def _refuse_missing(missing: list[str], path: Path) -> None:
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise UserError(
            f"{path} is incomplete: it lacks {', '.join(missing[:_SHOWN])}{more}; the settings of a run are never "
            "filled with defaults: put the file back"
        )


def build_run(tree: dict[str, Any], path: Path, *, own_code: bool = False) -> Run:
    """Build the run that a file's settings describe; what is wrong with them is said with the file's name.

    Args:
        tree: the settings, nested.
        path: the file.
        own_code: True to let them name an objective of the user's own, which runs its code.

    Example:
        >>> build_run({"seed": "one"}, Path("config.yaml"))
        Traceback (most recent call last):
        uiat.errors.UserError: config.yaml: seed must be a whole number, not 'one'
    """
    with nothing_of_links(path, HOLDS):
        try:
            run: Run = yaml_io.build(Run, tree, own_code=own_code)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: {' '.join(str(error).split())}") from None
    return run


def own_objective(tree: Mapping[str, Any]) -> str | None:
    """Return the name of an objective that is none of this package's: one given to `fit`, or code that is named.

    Example:
        >>> own_objective({"model": {"name": "custom"}, "objective": {"name": "mine"}})
        'mine'
        >>> own_objective({"model": {"name": "resnet18"}, "objective": {"name": "mine.py:Pairing"}})
        'mine.py:Pairing'
    """
    model, objective = (section.get("name") if isinstance(section, dict) else None for section in _sections(tree))
    fitted = model == CUSTOM and objective is not None and objective not in METHOD_NAMES
    return str(objective) if fitted or is_objective_code(objective) else None


def _sections(tree: Mapping[str, Any]) -> tuple[Any, Any]:
    return tree.get("model"), tree.get("objective")


def threat_of(tree: Mapping[str, Any]) -> Threat | None:
    """Return the threat model that the settings of a run name, as `Run.threat` does, without building the run.

    Example:
        >>> threat_of(yaml_io.to_dict(Run())) == Run().threat
        True
    """
    objective = tree.get("objective")
    attack = objective.get("attack") if isinstance(objective, dict) else None
    places = (tree.get("evaluation"), objective, attack)
    found = next((p["threat"] for p in places if isinstance(p, dict) and isinstance(p.get("threat"), dict)), None)
    return None if found is None else parse(f"{found.get('norm')}:{found.get('epsilon')}")
