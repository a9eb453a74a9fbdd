"""`uiat sweep`: many runs of a recipe, over settings and seeds, trained, judged, and gone on with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from uiat.cli.output import command, console, table
from uiat.errors import Stopped, UserError
from uiat.experiments import grid
from uiat.experiments.grid import GridRun
from uiat.experiments.sweep import _attempt
from uiat.formatting import percent, plus_minus

FAULT = 1  # exit code where runs failed

Recipe = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe; `uiat recipes` lists them.", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUES",
        help="A field of the run with its values, separated by commas: objective.gamma=0,.5,.9. May be repeated: every "
        "combination is run. One value sets the field for all runs: optimisation.epochs=10. A list is one value in "
        "brackets: 'evaluation.attacks=[pgd-20,cw-20]'.",
        show_default=False,
    ),
]
Seeds = Annotated[str, typer.Option(metavar="LIST", help="The seeds of each combination, separated by commas.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "--run-dir",
        metavar="DIR",
        help="Where the folder of each run goes, and sweep.json.",
        show_default="runs/RECIPE-sweep",
    ),
]
Root = Annotated[
    str | None,
    typer.Option("--data.root", metavar="DIR", help="Folder of the data sets.", show_default="that of the recipe"),
]


def sweep(recipe: Recipe, set_: Sets = None, seeds: Seeds = "0", out: Out = None, root: Root = None) -> int:
    """Train and judge a recipe for every combination of settings and seeds.

    Example: uiat sweep digits-uiat --seeds 0,1,2 --set objective.momentum=example --set objective.gamma=0,.5,.9

    Each run has a folder of its own. The same command goes on where it was stopped: finished runs are kept, a run that
    was stopped in the middle of training or evaluation is resumed. A run that fails does not stop the others; it is
    listed in the end, the exit code is 1, and the next call tries it again. sweep.json holds settings and accuracies.
    """
    screen, folder = console(), out or Path("runs") / f"{recipe}-sweep"
    record = folder / grid.SWEEP_FILE
    grid.read_record(record, recipe)  # refuses what it is not to be added to
    cells = grid.grid(
        recipe, [grid.parse_axis(words) for words in set_ or []], grid.parse_seeds(seeds), folder, root=root
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from None
    grid.write_record(record, recipe, cells)
    same = [f"{path}={value}" for path, value in cells[0].settings.items() if path not in _varied(cells)]
    screen.print(f"{len(cells)} runs in {folder}" + (f", all with {' '.join(same)}" if same else ""), soft_wrap=True)
    try:
        with _live_table(cells, screen) as told:
            for cell in cells:
                _attempt(cell, told)
                grid.write_record(record, recipe, cells)
    except KeyboardInterrupt:
        done = sum(cell.status == "done" for cell in cells)
        raise Stopped(f"stopped with {done} of {len(cells)} runs done; the same command goes on") from None
    return _ending(cells, record, screen)


@contextmanager
def _live_table(cells: Sequence[GridRun], out: Console) -> Iterator[Callable[[GridRun], None]]:
    """Something to tell of every change: a table that fills in a terminal, a line for each new state elsewhere."""
    if out.is_terminal:
        with Live(_table(cells), console=out, auto_refresh=False) as live:
            yield lambda cell: live.update(_table(cells), refresh=True)
        return
    said: dict[int, str] = {}

    def line(cell: GridRun) -> None:
        if said.get(id(cell)) == cell.status:
            return
        said[id(cell)] = cell.status
        shares = ", ".join(f"{name} {percent(share)}" for name, share in cell.accuracy.items())
        told = f": {shares}" if cell.status == "done" else f": {cell.reason}" if cell.status == "failed" else ""
        out.print(f"[{cells.index(cell) + 1}/{len(cells)}] {_name(cell, cells)}: {cell.status}{told}", soft_wrap=True)

    yield line


def _varied(cells: Sequence[GridRun]) -> list[str]:
    """The fields that tell the runs apart."""
    return [path for path in cells[0].settings if len({cell.settings[path] for cell in cells}) > 1]


def _name(cell: GridRun, cells: Sequence[GridRun]) -> str:
    return " ".join([*(f"{path}={cell.settings[path]}" for path in _varied(cells)), f"seed={cell.run.seed}"])


def _table(cells: Sequence[GridRun]) -> Table:
    paths = _varied(cells)
    attacks = list(dict.fromkeys(name for cell in cells for name in cell.accuracy))
    columns = (*paths, "seed", *attacks, "training, s", "state")
    rows = []
    for cell in cells:
        accuracies = [percent(cell.accuracy.get(name)) for name in attacks]
        seconds = f"{cell.seconds:.1f}" if cell.seconds else "-"
        state = f"{cell.status}, {cell.note}" if cell.note and cell.status == "training" else cell.status
        rows.append((*(cell.settings[path] for path in paths), str(cell.run.seed), *accuracies, seconds, state))
    return table(*columns, rows=rows, numbers=("seed", *attacks, "training, s"))


def _ending(cells: Sequence[GridRun], record: Path, out: Console) -> int:
    if not out.is_terminal:
        out.print()
        out.print(_table(cells))
    if len({cell.run.seed for cell in cells}) > 1:
        out.print("\nmean and standard deviation over seeds")
        out.print(_means(cells))
    failed = [cell for cell in cells if cell.status == "failed"]
    if failed:
        out.print(f"\n{len(failed)} of {len(cells)} runs failed; the same command tries them again")
        for cell in failed:
            out.print(f"  {_name(cell, cells)}: {cell.reason}", soft_wrap=True)
    out.print(f"\nwritten: {record}", soft_wrap=True)
    done = [cell.folder for cell in cells if cell.status == "done"]
    if done:
        out.print(f"look at them side by side:  {command('report', *done)}", soft_wrap=True)
    return FAULT if failed else 0


def _means(cells: Sequence[GridRun]) -> Table:
    found = grid.mean_over_seeds(cells)
    paths = _varied(cells)
    attacks = list(dict.fromkeys(name for _, _, values in found for name in values))
    rows = [
        (*(settings[path] for path in paths), str(done), *(_spread(values.get(name)) for name in attacks))
        for settings, done, values in found
    ]
    return table(*paths, "runs", *attacks, rows=rows, numbers=("runs", *attacks))


def _spread(value: tuple[float, float | None] | None) -> str:
    return "-" if value is None else f"{plus_minus(*value, digits=2)} %"
