"""Plan the runs of a grid over settings and seeds: settings, folders, and how far each has come."""

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.formatting import mean_and_deviation, percent
from uiat.runs.own_files import check_own_code, own_names
from uiat.runs.reader import CONFIG_FILE, effect_of, leaves
from uiat.runs.settings import read_plain

LONGEST_NAME = 100  # of a folder, well below what file systems take
Status = Literal["waiting", "elsewhere", "training", "evaluating", "done", "failed"]


@dataclass
class GridRun:
    """One run of the grid.

    Args:
        settings: the fields that the grid sets, as they were written.
        run: every setting.
        folder: folder of the run.
        status: how far the run has come; "elsewhere" while another process works on it.
        result: contents of evaluation.json, once the run is evaluated.
        seconds: seconds that training took, validation included.
        reason: why the run failed, in a line.
        row: name of the row, in a grid whose rows have names.
        arithmetic: the arithmetic that the run was computed in, in words, once it has begun.
        note: epoch, step and time left of a run that is being trained.
        curve: its robust validation accuracies so far.

    Example:
        >>> GridRun({"objective.weight": "2"}, Run(), Path("runs/a")).status
        'waiting'
    """

    settings: Mapping[str, str]
    run: Run
    folder: Path
    status: Status = "waiting"
    result: Mapping[str, Any] | None = None
    seconds: float = 0.0
    reason: str = ""
    row: str = ""
    arithmetic: str = ""
    note: str = field(default="", compare=False)
    curve: Sequence[float] = field(default=(), compare=False)

    def __repr__(self) -> str:
        accuracies = ", ".join(f"{name} {percent(accuracy)}" for name, accuracy in self.accuracy.items())
        ending = self.reason or accuracies
        return f"{self.folder} ({self.name}): {self.status}{f', {ending}' if ending else ''}"

    @property
    def name(self) -> str:
        """Settings and seed in a line."""
        return " ".join([*(f"{path}={value}" for path, value in self.settings.items()), f"seed={self.run.seed}"])

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Accuracy by attack; empty until the run is evaluated."""
        return {} if self.result is None else self.result["accuracy"]

    @property
    def worst_class(self) -> float | None:
        """The lowest accuracy of a class, in the worst case; None where it is not known."""
        result = self.result or {}
        return result.get("fairness", {}).get("worst", {}).get("worst")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds in a text such as "0,1,2".

    Raises:
        UserError: no whole numbers, or one of them twice.

    Example:
        >>> parse_seeds("0, 1,2")
        [0, 1, 2]
    """
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise UserError(f"seeds are whole numbers with commas, such as 0,1,2, not {text!r}")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"a seed stands twice in {text!r}")
    return seeds


def parse_part(text: str) -> tuple[int, int]:
    """Return the number of a part and the number of parts in a text such as "2/8".

    Raises:
        UserError: it is no such text, or there is no such part.

    Example:
        >>> parse_part("2/8")
        (2, 8)
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    part, parts = map(int, found.groups()) if found else (0, 0)
    if not 1 <= part <= parts:
        raise UserError(f"a part is I/N with I from 1 to N, such as 2/8, not {text!r}")
    return part, parts


def parse_axis(text: str) -> tuple[str, list[str]]:
    """Return the field and its values in a text such as "objective.gamma=0,.5,.9"; brackets keep a list together.

    Raises:
        UserError: no field, no value, or one of them twice.

    Example:
        >>> parse_axis("objective.gamma=0,.5"), parse_axis("optimisation.milestones=[2,3],[3]")
        (('objective.gamma', ['0', '.5']), ('optimisation.milestones', ['[2,3]', '[3]']))
    """
    path, equals, rest = text.partition("=")
    values = [value.strip() for value in re.split(r",(?![^\[{]*[\]}])", rest)]
    if not equals or not path.strip() or not all(values):
        raise UserError(f"a setting is FIELD=VALUE,VALUE,..., such as objective.gamma=0,.5,.9, not {text!r}")
    return path.strip(), values


def make_grid(base: Run, axes: Mapping[str, Sequence[str]], seeds: Sequence[int], folder: Path) -> list[GridRun]:
    """Return a run for every combination of the values of each field, and every seed.

    Args:
        base: the run that the fields are set in.
        axes: values by field, as they are written on a command line.
        seeds: the seeds.
        folder: each run has a folder in it, named after its settings.

    Raises:
        UserError: no such field or value, a value twice, or a folder that holds another run.

    Example:
        >>> runs = make_grid(Run(), {"objective.weight": ["1", "2"]}, [0, 1], Path("runs/sweep"))
        >>> [run.name for run in runs][:2]
        ['objective.weight=1 seed=0', 'objective.weight=1 seed=1']
    """
    for path, values in axes.items():
        if path == "seed":
            raise UserError("the seeds of a sweep are given with seeds, not as a setting")
        if len(set(values)) < len(values):
            raise UserError(f"a value stands twice in {path}={','.join(values)}")
    # Where it decides nothing about the weights, one value for all runs is not part of what they are.
    unnamed = {path for path, values in axes.items() if len(values) == 1 and _can_change(path)}
    runs = []
    for combination in itertools.product(*axes.values()):
        settings = dict(zip(axes, combination, strict=True))
        for seed in seeds:
            run = yaml_io.override(base, [*settings.items(), ("seed", str(seed))])
            named = {path: value for path, value in settings.items() if path not in unnamed}
            runs.append(GridRun(settings, run, folder / _folder(named, seed)))
    for each in runs:
        check_same_run(each.run, each.folder)
    return runs


def make_rows(
    base: Run, rows: Mapping[str, Sequence[tuple[str, str]]], seeds: Sequence[int], folder: Path
) -> list[GridRun]:
    """Return a run for every seed and every row, all rows of a seed before the next seed.

    Args:
        base: the run that the fields are set in.
        rows: (field, value) pairs by the name of the row.
        seeds: the seeds.
        folder: each run has a folder in it, named after its row.

    Raises:
        UserError: no such field or value.

    Example:
        >>> runs = make_rows(
        ...     Run(), {"base": [], "KL(adv, inv)": [("objective.kl", "adversarial-inverse")]}, [0], Path("a")
        ... )
        >>> [str(run.folder) for run in runs]
        ['a/base-seed0', 'a/KL(adv,-inv)-seed0']
    """
    return [
        GridRun(
            dict(fields),
            yaml_io.override(base, [*fields, ("seed", str(seed))]),
            folder / f"{name.replace(' ', '-').replace('/', '_')}-seed{seed}",
            row=name,
        )
        for seed in seeds
        for name, fields in rows.items()
    ]


def _folder(settings: Mapping[str, str], seed: int) -> str:
    """Return a name that tells the settings, of characters that every file system takes."""
    name = ",".join([*(f"{path}={value}" for path, value in settings.items()), f"seed={seed}"])
    plain = re.sub(r"[^\w.=,+-]", "-", name)
    if plain == name and len(name) <= LONGEST_NAME:
        return name
    return f"{plain[:LONGEST_NAME]}-{zlib.crc32(name.encode()):08x}"  # 8/255 and 8-255 must not share a folder


def _can_change(path: str) -> bool:
    """True if a folder may be resumed under another value of the field."""
    # evaluation.json tells the attacks, but not whether fewer images than are asked for now were all that there are.
    return not effect_of(path).weights and path != "evaluation.n"


def check_same_run(run: Run, folder: Path) -> None:
    """Refuse a folder that holds another run: one that is there is resumed, so it has to hold this very run.

    Raises:
        UserError: it holds another run; the first field that differs is named, or the code that has changed since.

    Example:
        >>> check_same_run(Run(), Path("missing"))
    """
    if not (folder / CONFIG_FILE).is_file():
        return
    there, here = (dict(leaves(settings)) for settings in (read_plain(folder), yaml_io.to_dict(run)))
    for path, value in here.items():
        # "auto" is written down as what it came to on the machine.
        if there.get(path) != value and value != "auto" and not _can_change(path):
            raise UserError(
                f"{folder} holds another run: {path} is {there.get(path)!r} there and {value!r} here; "
                "choose another folder"
            )
    for name in own_names(run):
        check_own_code(folder, name, allowed=True)


def mean_over_seeds(
    runs: Sequence[GridRun],
) -> list[tuple[Mapping[str, str], int, dict[str, tuple[float, float | None]]]]:
    """Return, for each combination of settings, the number of runs done, and mean and deviation of each accuracy.

    Runs of one setting that were computed in different arithmetic are not averaged: they have no means.

    Example:
        >>> runs = [
        ...     GridRun({}, Run(seed=s), Path(str(s)), "done", {"accuracy": {"clean": c}})
        ...     for s, c in ((0, 0.5), (1, 0.7))
        ... ]
        >>> mean_over_seeds(runs)
        [({}, 2, {'clean': (0.6, 0.141)})]
    """
    groups: dict[tuple[tuple[str, str], ...], list[GridRun]] = {}
    for run in runs:
        groups.setdefault(tuple(run.settings.items()), []).append(run)
    rows: list[tuple[Mapping[str, str], int, dict[str, tuple[float, float | None]]]] = []
    for settings, members in groups.items():
        done = [run.accuracy for run in members if run.accuracy]
        if len({run.arithmetic for run in members if run.accuracy}) > 1:
            rows.append((dict(settings), len(done), {}))
            continue
        names = list(dict.fromkeys(name for accuracy in done for name in accuracy))
        values = {name: [accuracy[name] for accuracy in done if name in accuracy] for name in names}
        rows.append((dict(settings), len(done), {name: mean_and_deviation(v) for name, v in values.items()}))
    return rows
