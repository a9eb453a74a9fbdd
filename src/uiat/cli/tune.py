"""`uiat tune`: search settings for high natural and robust accuracy on held-out training images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from uiat import recipes
from uiat.cli.output import command, console, table
from uiat.cli.settings import split_recipe
from uiat.config import yaml_io
from uiat.errors import Stopped
from uiat.experiments.tune import FIGURE_FILE, RECORD_FILE, Trial
from uiat.experiments.tune import tune as run_tune
from uiat.formatting import percent, sparkline

FAULT = 1  # exit code where no trial has come to its end

Trials = Annotated[int, typer.Option(min=1, metavar="N", help="Trials in all, those of earlier calls included.")]
Space = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=VALUES",
        help="Search FIELD in LOW..HIGH, log:LOW..HIGH or A,B,C; may be repeated. [default: learning rate, weight "
        "decay and the weight of the robust term, from a quarter to four times the recipe's]",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option("--search-seed", min=0, help="Seed of the proposals; seed=N is that of the trials.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "--run-dir", metavar="DIR", help="Folder of the search. [default: runs/RECIPE-tune]"),
]


def tune(
    context: typer.Context, trials: Trials = 20, space: Space = None, search_seed: Seed = 0, out: Out = None
) -> int:
    """Search settings for high natural and robust accuracy, by Optuna.

    Example: uiat tune digits-uiat optimisation.epochs=5 --trials 20 --space objective.weight=0.5..4
    --space optimisation.learning_rate=log:0.01..0.3

    Both accuracies are measured on held-out training images; test images are never read. The first trial has the
    recipe's own settings. A trial whose robust accuracy after an epoch is below the median of the finished trials is
    stopped, once three have finished. The Pareto front is what no other trial beats in one accuracy without losing in
    the other.

    The same command resumes a search that was stopped, a larger --trials adds to it, and several processes share it.
    """
    recipe, assignments = split_recipe(context)
    run, screen = yaml_io.override(recipes.get(recipe), assignments), console()
    folder = out or Path("runs") / f"{recipe}-tune"
    screen.print(f"{trials} trials in {folder}", soft_wrap=True)
    try:
        found = run_tune(
            run, trials=trials, space=space or [], folder=folder, seed=search_seed, on_change=lambda t: _say(t, screen)
        )
    except KeyboardInterrupt:
        raise Stopped("stopped, saved; the same command resumes the search") from None
    return _show_end(found, folder, screen)


def _say(trial: Trial, out: Console) -> None:
    settings = " ".join(f"{path}={value}" for path, value in trial.settings.items())
    accuracies = f", clean {percent(trial.clean)}, robust {percent(trial.robust)}" if trial.status == "done" else ""
    curve = f" {sparkline(trial.curve)}" if trial.curve else ""
    reason = f": {trial.reason}" if trial.reason else ""
    out.print(f"{trial.name} {settings}: {trial.status}{accuracies}{reason}{curve}", soft_wrap=True)


def _show_end(trials: Sequence[Trial], folder: Path, out: Console) -> int:
    paths = sorted({path for trial in trials for path in trial.settings})
    columns = ("trial", *paths, "clean", "robust", "by epoch", "state", "Pareto")
    rows = [
        (
            str(trial.number),
            *(trial.settings.get(path, "-") for path in paths),
            percent(trial.clean),
            percent(trial.robust),
            sparkline(trial.curve),
            trial.status,
            "*" if trial.best else "",
        )
        for trial in sorted(trials, key=lambda trial: (not trial.best, -(trial.robust or -1.0), trial.number))
    ]
    out.print("\naccuracy on held-out training images; * on the Pareto front")
    out.print(table(*columns, rows=rows, numbers=("trial", "clean", "robust")))
    out.print(f"\nwritten: {folder / RECORD_FILE}, {folder / FIGURE_FILE}", soft_wrap=True)
    front = [folder / trial.name for trial in trials if trial.best]
    if front:
        out.print(f"evaluate one on test images: {command('evaluate', front[0])}", soft_wrap=True)
    return 0 if front else FAULT
