"""A grid of runs over settings and seeds: which there are, how far each has come, and the record of them all."""

import itertools
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from uiat import recipes
from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.formatting import mean_and_deviation, threat_record
from uiat.runs.reader import CONFIG_FILE, WEIGHTS_FILES, effect_of, leaves, read_evaluation, read_history
from uiat.runs.settings import read_run
from uiat.system.atomic_files import write_json

SWEEP_FILE = "sweep.json"
LONGEST_NAME = 100  # of a folder, well below what file systems take
Status = Literal["waiting", "training", "judging", "done", "failed"]


@dataclass
class GridRun:
    """One run of the grid.

    Args:
        settings: the fields that the grid sets, as they were written.
        run: every setting.
        folder: where it lies.
        status: how far it is.
        result: evaluation.json, once it is judged.
        seconds: what training took.
        reason: why it failed, in a line.

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
    note: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The settings and the seed in a line."""
        return " ".join([*(f"{path}={value}" for path, value in self.settings.items()), f"seed={self.run.seed}"])

    @property
    def accuracy(self) -> Mapping[str, float]:
        """By attack; empty until it is judged."""
        return {} if self.result is None else self.result["accuracy"]


def parse_seeds(words: str) -> list[int]:
    """Seeds from text such as "0,1,2".

    Raises:
        UserError: no whole numbers, or one of them twice.

    Example:
        >>> parse_seeds("0, 1,2")
        [0, 1, 2]
    """
    try:
        found = [int(word) for word in words.split(",")]
    except ValueError:
        found = [-1]
    if min(found) < 0:
        raise UserError(f"seeds are whole numbers with commas, such as 0,1,2, not {words!r}")
    if len(set(found)) < len(found):
        raise UserError(f"a seed stands twice in {words!r}")
    return found


def parse_axis(words: str) -> tuple[str, list[str]]:
    """A field and its values from text such as "objective.gamma=0,.5,.9"; a value in brackets is one value.

    Raises:
        UserError: no field, no value, or one of them twice.

    Example:
        >>> parse_axis("objective.gamma=0,.5"), parse_axis("optimisation.milestones=[2,3],[3]")
        (('objective.gamma', ['0', '.5']), ('optimisation.milestones', ['[2,3]', '[3]']))
    """
    path, equals, values = words.partition("=")
    found = [value.strip() for value in re.split(r",(?![^\[{]*[\]}])", values)]
    if not equals or not path.strip() or not all(found):
        raise UserError(f"--set takes FIELD=VALUE,VALUE,..., such as objective.gamma=0,.5,.9, not {words!r}")
    if path.strip() == "seed":
        raise UserError("the seeds of a sweep are given with --seeds, not with --set")
    if len(set(found)) < len(found):
        raise UserError(f"a value stands twice in {words!r}")
    return path.strip(), found


def grid(
    recipe: str, axes: Sequence[tuple[str, Sequence[str]]], which: Sequence[int], out: Path, *, root: str | None = None
) -> list[GridRun]:
    """Every combination of the values of each field and the seeds, each checked before any of them is run.

    Args:
        recipe: its name.
        axes: fields with their values.
        which: seeds.
        out: each run has a folder in it.
        root: folder of the data sets; that of the recipe by default.

    Raises:
        UserError: no such recipe, field or value; a field twice; a folder that holds another run.

    Example:
        >>> cells = grid("digits-uiat", [("objective.weight", ["1", "2"])], [0, 1], Path("runs/sweep"))
        >>> [cell.name for cell in cells][:2]
        ['objective.weight=1 seed=0', 'objective.weight=1 seed=1']
    """
    paths = [path for path, _ in axes]
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise UserError(f"{min(twice)} is set twice: give all its values in one --set")
    base, fixed = recipes.get(recipe), [("data.root", root)] if root is not None else []
    # Where it decides nothing about the weights, one value for all runs is not part of what they are.
    unsaid = {path for path, values in axes if len(values) == 1 and _free(path)}
    cells = []
    for values in itertools.product(*(values for _, values in axes)):
        settings = dict(zip(paths, values, strict=True))
        for seed in which:
            run = yaml_io.override(base, [*fixed, *settings.items(), ("seed", str(seed))])
            told = {path: value for path, value in settings.items() if path not in unsaid}
            cells.append(GridRun(settings, run, out / _folder(told, seed)))
    for cell in cells:
        _require_same(cell)
    return cells


def _folder(settings: Mapping[str, str], seed: int) -> str:
    """A name that tells the settings, of characters that every file system takes."""
    told = ",".join([*(f"{path}={value}" for path, value in settings.items()), f"seed={seed}"])
    plain = re.sub(r"[^\w.=,+-]", "-", told)
    if plain == told and len(told) <= LONGEST_NAME:
        return told
    return f"{plain[:LONGEST_NAME]}-{zlib.crc32(told.encode()):08x}"  # 8/255 and 8-255 must not share a folder


def _free(path: str) -> bool:
    """True if a folder may be resumed under another value of the field."""
    # evaluation.json tells the attacks, but not whether fewer images than are asked for now were all that there are.
    return not effect_of(path).weights and path != "evaluation.n"


def _require_same(cell: GridRun) -> None:
    """A folder of an earlier sweep is gone on with, so it has to hold this very run."""
    if not (cell.folder / CONFIG_FILE).is_file():
        return
    there, asked = (dict(leaves(yaml_io.to_dict(run))) for run in (read_run(cell.folder), cell.run))
    for path in asked:
        if there.get(path) != asked[path] and not _free(path):
            raise UserError(
                f"{cell.folder} holds another run: {path} is {there.get(path)!r} there and {asked[path]!r} here; "
                "give another --out"
            )


def is_trained(cell: GridRun) -> bool:
    """Whether the files say that every epoch is there; a run that stopped early has to be opened to be told.

    Example:
        >>> is_trained(GridRun({}, Run(), Path("missing")))
        False
    """
    whole = len(read_history(cell.folder)) >= cell.run.optimisation.epochs
    return whole and all((cell.folder / name).is_file() for name in WEIGHTS_FILES.values())


def read_result(cell: GridRun) -> Mapping[str, Any] | None:
    """The result of a run, where it is of the attacks, the images and the threat model asked for; otherwise None.

    Example:
        >>> read_result(GridRun({}, Run(), Path("missing"))) is None
        True
    """
    result = read_evaluation(cell.folder)
    if result is None:
        return None
    asked, threat = cell.run.evaluation, cell.run.threat
    same = threat is not None and result["threat"] == threat_record(threat)
    # With fewer test images than asked for, all of them were judged: only a smaller question was another one.
    enough = result["n"] <= asked.n if asked.n is not None else True
    return result if same and enough and {"clean", *asked.attacks, "worst"} == set(result["accuracy"]) else None


def write_record(path: Path, recipe: str, cells: Sequence[GridRun]) -> None:
    """sweep.json: every run with its settings, state and accuracies; runs of earlier calls are kept in it.

    Args:
        path: the file.
        recipe: of the sweep.
        cells: the runs of this call.

    Raises:
        UserError: the file is of another recipe, is damaged, or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(Path(folder) / "sweep.json", "digits-uiat", [GridRun({}, Run(), Path(folder) / "seed=0")])
        ...     read_record(Path(folder) / "sweep.json", "digits-uiat")[0]["status"]
        'waiting'
    """
    ours = {cell.folder.name for cell in cells}
    others = [row for row in read_record(path, recipe) if row.get("folder") not in ours]
    write_json(path, {"kind": "uiat.sweep", "recipe": recipe, "runs": [*others, *map(_row, cells)]})


def _row(cell: GridRun) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": cell.folder.name, "settings": dict(cell.settings), "seed": cell.run.seed}
    row["status"] = cell.status
    if cell.result is not None:
        row |= {name: cell.result.get(name) for name in ("data", "threat", "n", "accuracy", "verdict")}
    if cell.seconds:
        row["training_seconds"] = cell.seconds
    return row | ({"reason": cell.reason} if cell.reason else {})


def read_record(path: Path, recipe: str) -> list[dict[str, Any]]:
    """The rows of sweep.json; none where there is no file.

    Raises:
        UserError: it is damaged, or of another recipe.

    Example:
        >>> read_record(Path("missing/sweep.json"), "digits-uiat")
        []
    """
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        kind, of, rows = record["kind"], record["recipe"], record["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        kind, of, rows = None, None, None
    if kind != "uiat.sweep" or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is damaged, or no record of a sweep: move it away, or give another --out")
    if of != recipe:
        raise UserError(f"{path} is a sweep of {of}, not of {recipe}: give another --out")
    return rows


def mean_over_seeds(
    cells: Sequence[GridRun],
) -> list[tuple[Mapping[str, str], int, dict[str, tuple[float, float | None]]]]:
    """For each combination of settings: how many runs are done, and mean and standard deviation of each accuracy.

    Example:
        >>> cells = [
        ...     GridRun({}, Run(seed=s), Path(str(s)), "done", {"accuracy": {"clean": c}})
        ...     for s, c in ((0, 0.5), (1, 0.7))
        ... ]
        >>> mean_over_seeds(cells)
        [({}, 2, {'clean': (0.6, 0.141)})]
    """
    parts: dict[tuple[tuple[str, str], ...], list[GridRun]] = {}
    for cell in cells:
        parts.setdefault(tuple(cell.settings.items()), []).append(cell)
    rows: list[tuple[Mapping[str, str], int, dict[str, tuple[float, float | None]]]] = []
    for settings, members in parts.items():
        done = [cell.accuracy for cell in members if cell.accuracy]
        names = list(dict.fromkeys(name for accuracy in done for name in accuracy))
        values = {name: [accuracy[name] for accuracy in done if name in accuracy] for name in names}
        rows.append((dict(settings), len(done), {name: mean_and_deviation(v) for name, v in values.items()}))
    return rows
