"""`uiat sweep`: train and evaluate a recipe over settings and seeds, and resume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from uiat.cli.output import command, console, table
from uiat.cli.settings import split_recipe
from uiat.errors import Stopped, UserError
from uiat.experiments import GridRun
from uiat.experiments import sweep as run_sweep
from uiat.experiments.arithmetic import find_mixture
from uiat.experiments.finish import describe_state
from uiat.experiments.grid import mean_over_seeds, parse_axis, parse_part, parse_seeds
from uiat.experiments.run_grid import plan_sweep
from uiat.experiments.slurm import submit
from uiat.experiments.sweep_file import SWEEP_FILE
from uiat.formatting import percent, plus_minus, sparkline

FAULT = 1  # exit code where runs failed

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUES", help="The same as FIELD=VALUES alone.", show_default=False),
]
Seeds = Annotated[str, typer.Option(metavar="LIST", help="The seeds of each combination, separated by commas.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "--run-dir",
        metavar="DIR",
        help="Where the folder of each run goes, and sweep.json. [default: runs/RECIPE-sweep]",
    ),
]
Root = Annotated[
    str | None,
    typer.Option("--data.root", metavar="DIR", help="Folder of the data sets. [default: that of the recipe]"),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", min=1, metavar="N", help="Runs at a time, each in a process with its share of threads."
    ),
]
Part = Annotated[
    str, typer.Option("--part", metavar="I/N", help="Every N-th run from the I-th on alone, as for a job array.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run and how far each run is; run nothing.")]
Slurm = Annotated[
    int | None,
    typer.Option("--slurm", min=1, metavar="N", help="Submit the sweep to Slurm as a job array of N tasks, and end."),
]
Sbatch = Annotated[
    str,
    typer.Option("--sbatch", metavar="OPTIONS", help="Options of sbatch for --slurm: '--gpus=1 --time=4:00:00'."),
]


def sweep(
    context: typer.Context,
    set_: Sets = None,
    seeds: Seeds = "0",
    out: Out = None,
    root: Root = None,
    jobs: Jobs = 1,
    part: Part = "1/1",
    dry_run: DryRun = False,
    slurm: Slurm = None,
    sbatch: Sbatch = "",
) -> int:
    """Train and evaluate a recipe over settings and seeds.

    Example: uiat sweep digits-uiat objective.momentum=example objective.gamma=0,.5,.9 --seeds 0,1,2

    Several values of a field are separated by commas, and every combination of them is run; one value sets the field
    for all runs, as in optimisation.epochs=10. A list is one value in brackets: 'evaluation.attacks=[pgd-20,cw-20]'.
    Fields may also be written --FIELD VALUES or --set FIELD=VALUES; `uiat recipes RECIPE` lists them.

    Each run has a folder of its own. The same command resumes a sweep that was stopped: finished runs are kept, a run
    that was stopped in the middle of training or evaluation is resumed. A run that fails does not stop the others; it
    is listed in the end, the exit code is 1, and the next call tries it again. sweep.json holds settings and
    accuracies.

    --jobs runs several at a time on this machine; the same command on several machines with a common folder shares the
    runs out as well. --part I/N takes a fixed part of them, and --slurm N submits all N parts.
    """
    recipe, assignments = split_recipe(context)
    words = [*(set_ or []), *(f"{path}={values}" for path, values in assignments)]
    axes = _read_axes(words)
    folder, screen = out or Path("runs") / f"{recipe}-sweep", console()
    asked: dict[str, Any] = {"settings": axes, "seeds": parse_seeds(seeds), "folder": folder, "root": root}
    number, parts = parse_part(part)
    if slurm is not None and parts > 1:
        raise UserError("--slurm submits every part itself: leave --part out")
    if dry_run:
        return _show_plan(plan_sweep(recipe, **asked).runs[number - 1 :: parts], folder, screen)
    if slurm is not None:
        plan_sweep(recipe, **asked)  # refuses, before anything waits in a queue, what cannot run
        command_line = [recipe, *words, "--seeds", seeds, "--out", str(folder), "--jobs", str(jobs)]
        job = submit([*command_line, *(["--data.root", root] if root else [])], folder, tasks=slurm, options=sbatch)
        screen.print(f"submitted as job {job}: {slurm} tasks of {command('sweep', recipe)}, written to {folder}/slurm")
        return 0
    board = Board(screen, folder)
    try:
        with board:
            runs = run_sweep(recipe, **asked, jobs=jobs, part=(number, parts), listener=board)
    except KeyboardInterrupt:
        done = sum(run.status == "done" for run in board.runs)
        raise Stopped(f"stopped with {done} of {len(board.runs)} runs done; the same command resumes it") from None
    return _show_end(runs, folder / SWEEP_FILE, screen)


def _show_plan(runs: Sequence[GridRun], folder: Path, out: Console) -> int:
    out.print(f"{len(runs)} runs in {folder}; nothing is run", soft_wrap=True)
    paths = _varied_fields(runs)
    rows = [
        (*(run.settings[path] for path in paths), str(run.run.seed), run.folder.name, describe_state(run))
        for run in runs
    ]
    out.print(table(*paths, "seed", "folder", "state", rows=rows, numbers=("seed",)))
    return 0


def _read_axes(words: Sequence[str]) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for path, values in map(parse_axis, words):
        if path == "seed":
            raise UserError("the seeds of a sweep are given with --seeds, not as a setting")
        if path in axes:
            raise UserError(f"{path} is set twice: give all its values at once, as in {path}=1,2")
        axes[path] = values
    return axes


class Board:
    """Shows a sweep under way: a table that fills in a terminal, a line for each new status elsewhere.

    Args:
        out: where to.
        folder: the folder of the sweep, to be named in the first line.

    Example:
        >>> from uiat import Run
        >>> board = Board(Console(width=60), Path("runs/a"))
        >>> board.planned([GridRun({}, Run(), Path("runs/a/seed=0"))])
        1 runs in runs/a
        >>> board.changed(board.runs[0])
        [1/1] seed=0: waiting
    """

    def __init__(self, out: Console, folder: Path) -> None:
        self.out, self.folder = out, folder
        self.runs: Sequence[GridRun] = ()
        self.live: Live | None = None
        self.said: dict[Path, str] = {}

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *error: object) -> None:
        if self.live is not None:
            self.live.stop()

    def planned(self, runs: Sequence[GridRun]) -> None:
        """Say how many runs there are, and what they have in common."""
        self.runs = runs
        if not runs:
            self.out.print(f"no runs in {self.folder} for this part")
            return
        varied = _varied_fields(runs)
        same = [f"{path}={value}" for path, value in runs[0].settings.items() if path not in varied]
        ending = f", all with {' '.join(same)}" if same else ""
        self.out.print(f"{len(runs)} runs in {self.folder}{ending}", soft_wrap=True)
        if self.out.is_terminal:
            self.live = Live(_make_table(runs), console=self.out, auto_refresh=False)
            self.live.start()

    def changed(self, run: GridRun) -> None:
        """Draw the table anew, or print a line where the status is a new one."""
        if self.live is not None:
            self.live.update(_make_table(self.runs), refresh=True)
        elif self.said.get(run.folder) != run.status:
            self.said[run.folder] = run.status
            accuracies = ", ".join(f"{name} {percent(accuracy)}" for name, accuracy in run.accuracy.items())
            elsewhere = ": another process works on it; it is left to that one, and waited for in the end"
            ending = {"done": f": {accuracies}", "failed": f": {run.reason}", "elsewhere": elsewhere}.get(
                run.status, ""
            )
            place = f"[{self.runs.index(run) + 1}/{len(self.runs)}]"
            self.out.print(f"{place} {_name(run, self.runs)}: {run.status}{ending}", soft_wrap=True)


def _varied_fields(runs: Sequence[GridRun]) -> list[str]:
    """Return the fields that tell the runs apart."""
    settings = runs[0].settings if runs else {}
    return [path for path in settings if len({run.settings[path] for run in runs}) > 1]


def _name(run: GridRun, runs: Sequence[GridRun]) -> str:
    settings = [f"{path}={run.settings[path]}" for path in _varied_fields(runs)]
    return " ".join([*settings, f"seed={run.run.seed}"])


def _make_table(runs: Sequence[GridRun]) -> Table:
    paths = _varied_fields(runs)
    attacks = list(dict.fromkeys(name for run in runs for name in run.accuracy))
    curve = ("robust",) if any(run.curve for run in runs) else ()  # on held-out images, by epoch
    columns = (*paths, "seed", *attacks, "lowest class", *curve, "training, s", "state")
    rows = []
    for run in runs:
        accuracies = [percent(run.accuracy.get(name)) for name in attacks]
        seconds = f"{run.seconds:.1f}" if run.seconds else "-"
        state = f"{run.status}, {run.note}" if run.note and run.status == "training" else run.status
        lowest = percent(run.worst_class)
        bars = (sparkline(run.curve),) if curve else ()
        mine = (run.settings[path] for path in paths)
        rows.append((*mine, str(run.run.seed), *accuracies, lowest, *bars, seconds, state))
    return table(*columns, rows=rows, numbers=("seed", *attacks, "lowest class", "training, s"))


def _show_end(runs: Sequence[GridRun], record: Path, out: Console) -> int:
    if not out.is_terminal:
        out.print()
        out.print(_make_table(runs))
    if len({run.run.seed for run in runs}) > 1:
        out.print("\nmean and standard deviation over seeds")
        out.print(_make_means(runs))
        for sentence in _find_mixtures(runs):
            out.print(sentence, soft_wrap=True)
    failed = [run for run in runs if run.status == "failed"]
    if failed:
        out.print(f"\n{len(failed)} of {len(runs)} runs failed; the same command tries them again")
        for run in failed:
            out.print(f"  {_name(run, runs)}: {run.reason}", soft_wrap=True)
    out.print(f"\nwritten: {record}", soft_wrap=True)
    done = [run.folder for run in runs if run.status == "done"]
    if done:
        out.print(f"look at them side by side:  {command('report', *done)}", soft_wrap=True)
    return FAULT if failed else 0


def _make_means(runs: Sequence[GridRun]) -> Table:
    means = mean_over_seeds(runs)
    paths = _varied_fields(runs)
    attacks = list(dict.fromkeys(name for _, _, values in means for name in values))
    rows = [
        (*(settings[path] for path in paths), str(done), *(_spread(values.get(name)) for name in attacks))
        for settings, done, values in means
    ]
    return table(*paths, "runs", *attacks, rows=rows, numbers=("runs", *attacks))


def _find_mixtures(runs: Sequence[GridRun]) -> list[str]:
    """Return a sentence for each setting whose runs were computed in different arithmetic."""
    paths = _varied_fields(runs)
    by_setting: dict[str, dict[str, str]] = {}
    for run in runs:
        if run.accuracy:
            setting = " ".join(f"{path}={run.settings[path]}" for path in paths)
            by_setting.setdefault(setting, {})[f"seed={run.run.seed}"] = run.arithmetic
    found = {setting: find_mixture(names) for setting, names in by_setting.items()}
    return [f"{setting or 'the runs'}: {sentence}" for setting, sentence in found.items() if sentence]


def _spread(value: tuple[float, float | None] | None) -> str:
    return "-" if value is None else f"{plus_minus(*value, digits=2)} %"
