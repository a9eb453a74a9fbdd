"""Give a run more epochs, where those that it had would have been the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from uiat.config import yaml_io
from uiat.config.plain_yaml import read_text
from uiat.errors import UserError
from uiat.runs.config_file import HOLDS
from uiat.runs.reader import CHECKPOINT_FILE, read_history, settings_path
from uiat.system.atomic_files import write_text
from uiat.system.bounded_files import nothing_of_links
from uiat.system.manifest import MANIFEST_FILE, read_manifest, update_manifest

EXTENDABLE = ("constant", "piecewise")  # the schedules whose rate in an epoch does not depend on the length of the run


def extend_run(folder: Path, epochs: int) -> None:
    """Set the number of epochs of a run to a larger one, in config.yaml and the manifest; to be resumed then.

    The weights come out as those of a run that had so many epochs from the start. A validation that took place only
    because an epoch was the last stays.

    Args:
        folder: the run folder, which nobody trains in.
        epochs: the number of epochs in all.

    Raises:
        UserError: no such run, not more epochs than it has, a schedule that ends with the run, a run that stopped early
            or one without a checkpoint to go on from.

    Example:
        >>> extend_run(Path("missing-run"), 10)
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    path = settings_path(folder)
    with nothing_of_links(path, HOLDS):
        tree = yaml_io.parse(read_text(path), source=str(path))
    manifest = read_manifest(folder)
    section: Any = tree.get("optimisation") if isinstance(tree, dict) else None
    if not isinstance(section, dict) or not isinstance(section.get("epochs"), int):
        raise UserError(f"{path} is damaged: it does not hold the settings of a run")
    settings = None if manifest is None else _read_beginning(folder, manifest)
    settled = settings is not None and settings["optimisation"]["epochs"] == epochs
    if epochs <= section["epochs"] and (settled or epochs < section["epochs"]):
        raise UserError(f"{folder} has {section['epochs']} epochs: to extend it, optimisation.epochs has to be more")
    if section.get("schedule") not in EXTENDABLE:
        raise UserError(
            f"{folder} cannot be extended: its schedule, {section.get('schedule')}, ends with the run, so that more "
            f"epochs would have been another run from the start; {' and '.join(EXTENDABLE)} can be"
        )
    if not (folder / CHECKPOINT_FILE).is_file():
        raise UserError(f"{folder} cannot be extended: its {CHECKPOINT_FILE} is not there to go on from")
    history = read_history(folder)
    if manifest is not None and manifest.get("ended") and len(history) < section["epochs"]:
        raise UserError(f"{folder} cannot be extended: it stopped early, after {len(history)} epochs")
    section["epochs"] = epochs
    write_text(path, yaml.safe_dump(tree, sort_keys=False))
    if settings is not None:  # a kill before this is mended by the same call
        settings["optimisation"]["epochs"] = epochs
        update_manifest(folder, settings=settings, ended=False)


def _read_beginning(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a run began with, as its manifest has them."""
    settings: dict[str, Any] = manifest.get("settings", {})
    section = settings.get("optimisation")
    if not isinstance(section, dict) or not isinstance(section.get("epochs"), int):
        raise UserError(f"{folder / MANIFEST_FILE} is damaged: it does not hold the settings of a run")
    return settings
