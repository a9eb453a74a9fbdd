"""List the files that an evaluation reads, so that no output of it takes the place of one."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from uiat.config import yaml_io
from uiat.config.plain_yaml import read_text
from uiat.errors import UserError
from uiat.evaluation.own_attacks import split_names
from uiat.experiments.options import EvaluateOptions
from uiat.runs.reader import CONFIG_FILE, leaves
from uiat.system.home import expand_home


def list_inputs(options: EvaluateOptions) -> list[tuple[str, Path]]:
    """List the files that the options of an evaluation name, and those that the settings of its runs do.

    Each comes with what names it. The files need not be there, and no code is imported: of package.module:NAME, which
    only an import finds, no file is listed.

    Example:
        >>> list_inputs(EvaluateOptions(model="net.py:make", data="npz:images.npz"))
        [('--model', PosixPath('net.py')), ('--data', PosixPath('images.npz'))]
    """
    names = ("model", "data", "sweep_attack", "norms_attack")
    named = [(f"--{name.replace('_', '-')}", getattr(options, name)) for name in names]
    named += [("--attacks", name) for name in split_names(options.attacks or "")]
    for run in (options.run, options.transfer):
        named += [] if run is None else _list_settings(run)
    weights = [] if options.weights is None else [("--weights", options.weights)]
    return weights + [(what, file) for what, name in named if name and (file := file_of(name)) is not None]


def file_of(name: str) -> Path | None:
    """Return the file of a name on the command line or in settings; None for one that does not look like a file's.

    Example:
        >>> file_of("npz:a.npz"), file_of("net.py:make"), file_of("weights/net"), file_of("digits")
        (PosixPath('a.npz'), PosixPath('net.py'), PosixPath('weights/net'), None)
    """
    source = name.rpartition(":")[0]
    if name.startswith("npz:"):
        return expand_home(name.removeprefix("npz:"))
    if source.endswith(".py"):
        return expand_home(source)
    return expand_home(name) if Path(name).suffix or "/" in name else None


def _list_settings(run: Path) -> Iterator[tuple[str, Any]]:
    """Yield the texts among the settings of a run: its data, code, attacks, extra images and teachers."""
    tree: Any = {}
    with suppress(UserError, OSError):  # what cannot be read is refused where the run is opened
        tree = yaml_io.parse(read_text(run / CONFIG_FILE), source=CONFIG_FILE)
    for path, value in leaves(tree):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                yield f"{path} of {run}", each
