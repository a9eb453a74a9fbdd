"""`uiat train`: train a recipe or a file with settings of one's own, or resume a run."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from uiat import recipes
from uiat.cli.output import command, console, fields, table
from uiat.cli.settings import list_options, split_words
from uiat.config import yaml_io
from uiat.config.schema import Run, is_own_code, is_own_data, is_own_model
from uiat.errors import Stopped, UserError
from uiat.formatting import percent
from uiat.runs.extension import extend_run
from uiat.runs.folder import locked_run
from uiat.runs.own_files import AllowOwnCode
from uiat.runs.reader import CONFIG_FILE, settings_path
from uiat.runs.settings import read_config
from uiat.system.distributed import process_group
from uiat.training.listener import Listeners
from uiat.training.loop import Interrupted, Training
from uiat.training.open_run import reopen_run, start_run
from uiat.training.progress import training_progress
from uiat.training.trackers import track_perturbations, tracking

Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Train what a YAML file describes instead of a recipe.")
]
Resume = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Resume a run that was stopped or killed; with optimisation.epochs=N, extend it."),
]
RunDir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder to make for the run. [default: runs/NAME, numbered where that exists]"),
]
OwnCode = Annotated[
    bool,
    typer.Option("--own-code", help="Let a --config file, a resumed run or a teacher name code of yours."),
]
ChangedCode = Annotated[
    bool, typer.Option("--changed-code", help="The same, for code that is not what the resumed run began with.")
]
Board = Annotated[
    bool, typer.Option("--tensorboard", help="The same as compute.trackers=tensorboard (needs uiat[tensorboard]).")
]
Help = Annotated[bool, typer.Option("--help", "-h", help="Show this, and every field of RECIPE, and exit.")]


EPOCHS = "optimisation.epochs"


def train(
    context: typer.Context,
    config: Config = None,
    resume: Resume = None,
    run_dir: RunDir = None,
    own_code: OwnCode = False,
    changed_code: ChangedCode = False,
    tensorboard: Board = False,
    help: Help = False,
) -> None:
    """Train a classifier from a recipe or a file, or resume a run.

    Example: uiat train digits-uiat seed=1 --objective.weight 2 --optimisation.epochs=10

    Fields are written FIELD=VALUE, --FIELD VALUE or --FIELD=VALUE; `uiat train RECIPE --help` lists them with their
    defaults and units.

    The run's folder is a new one, never one that exists. It gets the settings, metrics, weights (best and last), the
    universal perturbations and checkpoints. Ctrl-C finishes the step and saves; --resume then resumes bit for bit.

    compute.trackers=[tensorboard,wandb,mlflow,trackio] sends measurements and pictures there too, also offline.

    data.extra=FILE.npz adds images that a generative model made to every batch; such sets are published at
    https://github.com/wzekai99/DM-Improves-AT and
    https://github.com/google-deepmind/deepmind-research/tree/master/adversarial_robustness.

    Under `torchrun --nproc-per-node N -m uiat train ...` the processes share each batch.
    """
    trackers = ["tensorboard"] * tensorboard
    names, assignments = split_words(context.args, options=list_options(context))
    with process_group() as rank:
        out = console(quiet=not rank.first)
        if help:
            _show_help(context, out, names, assignments)
        elif resume is not None:
            if names or config is not None or run_dir is not None or {p for p, _ in assignments} - {EPOCHS}:
                raise UserError(
                    "--resume takes no recipe, settings or folder: a run is resumed with those it began with; "
                    f"{EPOCHS}=N alone extends it"
                )
            if assignments:
                rank.agree(lambda: _extend(resume, assignments) if rank.first else None)
            _resume(resume, out, own_code="changed" if changed_code else own_code, trackers=trackers)
        elif any(rank.gather(_is_restarted(run_dir))):  # a node that comes back has been started once itself
            assert run_dir is not None
            _resume(run_dir, out, own_code=own_code, trackers=trackers)
        else:
            run = _choose_run(names, config, assignments, own_code=own_code)
            kept = tuple(dict.fromkeys([*run.compute.trackers, *trackers]))
            run = replace(run, compute=replace(run.compute, trackers=kept))
            _train(run, run_dir, out, own_code=own_code)


def _extend(folder: Path, assignments: list[tuple[str, str]]) -> None:
    """Give a run the number of epochs that was asked for."""
    epochs = yaml_io.override(Run(), assignments).optimisation.epochs
    settings_path(folder)
    with locked_run(folder):
        extend_run(folder, epochs)


def _is_restarted(run_dir: Path | None) -> bool:
    """True if `torchrun --max-restarts` started these processes again, after one of them had ended."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return False
    if run_dir is None:
        raise UserError("started again by torchrun, but which run to resume? Give it --run-dir DIR from the start")
    return (run_dir / CONFIG_FILE).exists()


def _choose_run(names: list[str], config: Path | None, assignments: list[tuple[str, str]], *, own_code: bool) -> Run:
    """Return the run that the words describe."""
    if len(names) > 1:
        raise UserError(f"unexpected {names[1]!r}: one recipe, then overrides written FIELD=VALUE")
    if names and config is not None:
        raise UserError(f"both the recipe {names[0]} and --config {config}: give one of them")
    if not names and config is None:
        raise UserError("name a recipe (`uiat recipes` lists them), or give --config FILE or --resume RUN")
    if config is None:
        return yaml_io.override(recipes.get(names[0]), assignments)
    run = yaml_io.override(read_config(config, own_code=own_code), assignments)
    if is_own_model(run) and not own_code and "model.name" not in dict(assignments):
        raise UserError(f"{config} names code to build the model with, {run.model.name!r}: allow it with --own-code")
    return run


def _show_help(context: typer.Context, out: Console, names: list[str], assignments: list[tuple[str, str]]) -> None:
    typer.echo(context.get_help())
    if names:
        run = yaml_io.override(recipes.get(names[0]), assignments)
        out.print(f"\nFields of {names[0]}, each with its default:\n{recipes.describe(names[0])}\n", soft_wrap=True)
        out.print(fields(yaml_io.describe_fields(run)))


def _train(run: Run, run_dir: Path | None, out: Console, *, own_code: bool) -> None:
    with start_run(run, run_dir=run_dir, own_code=own_code) as training:
        out.print(f"run folder: {_folder(training)}", soft_wrap=True)
        _fit(training, out)


def _resume(folder: Path, out: Console, *, own_code: AllowOwnCode, trackers: Sequence[str]) -> None:
    with reopen_run(folder, own_code=own_code) as training:
        epochs, at = training.run.optimisation.epochs, training.epoch
        if at >= epochs or training.stopped:
            out.print(f"{folder} has ended: nothing is left to train", soft_wrap=True)
        else:
            done = f"after step {training.position} of {len(training.loader)}"
            out.print(f"run folder: {folder}, resumed in epoch {at + 1} of {epochs}, {done}", soft_wrap=True)
        _fit(training, out, trackers=trackers)


def _folder(training: Training) -> Path:
    assert training.store is not None  # both `start_run` and `reopen_run` give it one
    return training.store.folder


def _fit(training: Training, out: Console, *, trackers: Sequence[str] = ()) -> None:
    run, folder = training.run, _folder(training)
    try:
        _prepare_teacher(training, out)
        with (
            training_progress(run, out, best=training.best) as listener,
            tracking(run, folder, more=trackers) as opened,
        ):
            training.listener = Listeners(listener, opened)
            training.fit()
            track_perturbations(opened, folder, len(training.history))
    except KeyboardInterrupt as stop:
        where = f"epoch {training.epoch + 1}, after step {training.position} of {len(training.loader)}"
        saved = "saved" if isinstance(stop, Interrupted) else "at once; what came after the last checkpoint is lost"
        resume = command("train", "--resume", folder, own_code=is_own_code(run))
        raise Stopped(f"stopped in {where}, {saved}; resume with: {resume}") from None
    _show_summary(training, folder, out)


def _prepare_teacher(training: Training, out: Console) -> None:
    """Train the teachers of a run that asks some, each with its own progress."""
    for teacher in training.untrained_teachers:
        with training_progress(teacher.teacher_run, out, best=None) as listener:
            training.prepare_teacher(listener, only=teacher)
        out.print(f"the teacher is in {_folder(training) / teacher.need.folder}; now the run itself", soft_wrap=True)


def _show_summary(training: Training, folder: Path, out: Console) -> None:
    """Print the best and last epoch, the folder, and what to do next."""
    run, best = training.run, training.best
    rows = []
    for which, epoch in (("best", None if best is None else best["epoch"]), ("last", len(training.history) - 1)):
        if epoch is not None and 0 <= epoch < len(training.history):
            row = training.history[epoch]
            rows.append((which, str(epoch + 1), percent(row.get("clean")), percent(row.get("robust"))))
    robust = f"robust (PGD-{run.validation.steps})"
    out.print(f"\nvalidation accuracy on held-out training images; best by {run.validation.metric}", soft_wrap=True)
    out.print(table("weights", "epoch", "clean", robust, rows=rows, numbers=("epoch", "clean", robust)))
    own = is_own_model(run) or is_own_data(run)
    out.print(f"\neverything lies in {folder}", soft_wrap=True)
    out.print(f"evaluate it on test images: {command('evaluate', folder, own_code=own)}", soft_wrap=True)
    out.print(f"look at it again:           {command('show', folder)}", soft_wrap=True)
