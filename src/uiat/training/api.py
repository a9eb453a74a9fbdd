"""Train a recipe (`train`), resume a run from its folder (`resume`), train one's own model and data (`fit`)."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from uiat.checks import Count, Seed, checked
from uiat.config.schema import Compute, Data, Guards, Model, Optimisation, Run, Validation
from uiat.data import ImageSet
from uiat.data.augmentation import Augmentation, Crop, as_augmentation
from uiat.errors import UserError
from uiat.objectives import UIAT, AnyObjective, Objective, check_objective
from uiat.runs.folder import check_new_folder
from uiat.runs.own_files import AllowOwnCode
from uiat.runs.settings import CUSTOM, with_threat
from uiat.system.surroundings import neutral_surroundings
from uiat.training.device import training_device
from uiat.training.listener import Listener, Listeners
from uiat.training.loop import Training
from uiat.training.open_run import begin_training, find_teachers, own_spec, reopen_run, start_run, stored
from uiat.training.progress import live_progress
from uiat.training.result import Trained, make_result
from uiat.training.setup import check_plan, seeded_torch, split_own_data
from uiat.training.trackers import track_perturbations, tracking


@checked
@neutral_surroundings()
def train(
    run: Run,
    *,
    run_dir: str | Path | None = None,
    listener: Listener | None = None,
    own_code: bool = False,
    progress: bool = True,
) -> Trained:
    """Train a run in a new folder: config.yaml, environment.json, metrics.jsonl, best, last, inverse and checkpoint.

    A method that asks a teacher (HAT, DHAT, ARD, RSLAD) has it trained first, in the folder `teacher` inside, unless
    `objective.teacher` names one; likewise extra images that a teacher labels, unless `data.extra_teacher` does.

    Args:
        run: every setting, such as `recipes.get("digits-uiat")`.
        run_dir: the folder to make; `runs/NAME`, numbered where that exists, by default.
        listener: receives each step and epoch.
        own_code: allow the run of a teacher to name code of yours to build it with, which runs it.
        progress: show a bar, in a terminal or a notebook.

    Raises:
        UserError: the folder exists, or something about the run cannot be what was meant.
        NotFinite: a loss term or a weight is not finite.
        Interrupted: stopped by a signal, with everything saved.

    Example:
        >>> import tempfile
        >>> from uiat import override, recipes
        >>> run = override(recipes.get("digits-standard"), [("optimisation.epochs", "1"), ("model.width", "4")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained = train(run, run_dir=Path(folder) / "run")
        >>> len(trained.history)
        1
    """
    with start_run(run, run_dir=run_dir, listener=listener, own_code=own_code) as training:
        _fit(training, progress=progress)
        return make_result(training)


@checked
@neutral_surroundings()
def resume(
    run_dir: str | Path,
    *,
    model: nn.Module | None = None,
    train_data: ImageSet | tuple[Tensor, Tensor] | Any | None = None,
    validation_data: ImageSet | tuple[Tensor, Tensor] | Any | None = None,
    objective: Objective | None = None,
    listener: Listener | None = None,
    own_code: AllowOwnCode = False,
    progress: bool = True,
) -> Trained:
    """Resume a run that was stopped or killed, to weights bit-identical to those of an uninterrupted run.

    Args:
        run_dir: the folder of the run.
        model: for a run of `fit`: the same model, whatever its weights.
        train_data: for a run of `fit`: the same data.
        validation_data: for a run of `fit`: the same, if it was given there.
        objective: for a run of `fit` with an objective of your own: the same.
        listener: receives each step and epoch.
        own_code: True to allow the folder to name code of yours, for the model and the objective, which runs it;
            "changed" to run it as it is now, although it is not what the run began with.
        progress: show a bar, in a terminal or a notebook.

    Raises:
        UserError: no run in the folder, a damaged one, or one whose settings or data have changed since.
        NotFinite: a loss term or a weight is not finite.
        Interrupted: stopped by a signal, with everything saved.

    Example:
        >>> resume("missing-run")
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    own = (model, train_data, validation_data, objective)
    with reopen_run(run_dir, own=own, listener=listener, own_code=own_code) as training:
        _fit(training, progress=progress)
        return make_result(training)


@checked
@neutral_surroundings()
def fit(
    model: nn.Module,
    train_data: ImageSet | tuple[Tensor, Tensor] | Any,
    *,
    objective: Objective | None = None,
    validation_data: ImageSet | tuple[Tensor, Tensor] | Any | None = None,
    optimisation: Optimisation | None = None,
    validation: Validation | None = None,
    guards: Guards | None = None,
    compute: Compute | None = None,
    batch_size: Count = 128,
    augment: Crop | Augmentation = "none",
    weights: str | Path | None = None,
    seed: Seed = 0,
    run_dir: str | Path | None = None,
    listener: Listener | None = None,
    progress: bool = True,
) -> Trained:
    """Train one's own model on one's own data, with the loop that recipes use.

    Args:
        model: maps images (B, C, H, W) in [0, 1] to logits (B, K); trained in place, on the device it is on.
        train_data: an `ImageSet`, a pair (images, labels) of tensors, or any torch Dataset of such pairs.
        objective: `UIAT()` by default.
        validation_data: likewise; by default 5 % of the training set, at most 1,000 images, is held out.
        optimisation: epochs, learning rate, schedule and the rest.
        validation: how often to validate, and by which metric to select the best weights.
        guards: warnings, and what to do on catastrophic overfitting.
        compute: precision and memory format, channels last only if set here; the device is the model's.
        batch_size: images a step.
        augment: "none", "crop", "crop-flip", "resized-crop", "resized-crop-flip", or an `Augmentation`.
        weights: a file of weights or a run folder to start from, see `Model`; the model's own by default.
        seed: seed of order, augmentation, held-out part and random starts.
        run_dir: a new folder to write weights, perturbations, metrics and checkpoints to; none by default. A run that
            was killed is resumed by `resume(run_dir, model=, train_data=)`.
        listener: receives each step and epoch.
        progress: show a bar, in a terminal or a notebook.

    Raises:
        UserError: data or a model that cannot be what was meant.
        NotFinite: a loss term or a weight is not finite.
        Interrupted: stopped by a signal; with a folder, everything is saved.

    Example:
        >>> import torch
        >>> from uiat import PGDAT, models
        >>> model = models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4)
        >>> x, y = torch.rand(64, 1, 8, 8), torch.arange(64) % 2
        >>> trained = fit(model, (x, y), objective=PGDAT(), optimisation=Optimisation(epochs=1), batch_size=16)
        >>> sorted(trained.best)
        ['epoch', 'value']
    """
    _check_folder(run_dir, compute)
    check_objective(objective or UIAT())
    data, held_out = split_own_data(train_data, validation_data, seed=seed)
    settings = {"optimisation": optimisation, "validation": validation, "guards": guards}
    run = Run(
        name="fit",
        seed=seed,
        data=Data(name=data.name, batch_size=batch_size, **_augmentation_fields(augment)),
        model=Model(name=CUSTOM, weights=None if weights is None else str(weights)),
        objective=cast(AnyObjective, objective or UIAT()),
        compute=compute or Compute(channels_last=False),
        **{name: value for name, value in settings.items() if value is not None},  # type: ignore[arg-type]
    )
    check_plan(run := with_threat(run))
    with ExitStack() as inside:
        inside.enter_context(seeded_torch(seed, training_device(model)))
        training = begin_training(run, model, data, held_out, listener=listener)
        find_teachers(training, own_spec(data), data)
        if run_dir is not None:
            inside.enter_context(stored(training, run_dir, data, own_spec(data)))
        _fit(training, progress=progress)
    return make_result(training)


def _check_folder(run_dir: str | Path | None, compute: Compute | None) -> None:
    check_new_folder(run_dir)
    if compute is not None and compute.trackers and run_dir is None:
        raise UserError("compute.trackers keep their files in the run's folder: give run_dir too")


def _augmentation_fields(augment: str | Augmentation) -> dict[str, Any]:
    """Return the fields of `Data` that say how training images are changed."""
    fields = asdict(as_augmentation(augment))
    return {"augment": fields.pop("crop"), **fields}


def _fit(training: Training, *, progress: bool) -> None:
    """Train to the end, with a bar where somebody may look at it; first the teacher, if there is one to train."""
    for teacher in training.untrained_teachers:
        with live_progress(teacher.teacher_run, shown=progress) as bar:
            training.prepare_teacher(bar, only=teacher)
    run, folder = training.run, getattr(training.store, "folder", None)
    with live_progress(run, shown=progress, best=training.best) as bar, tracking(run, folder) as trackers:
        training.listener = Listeners(*(each for each in (bar, training.listener, trackers) if each is not None))
        training.fit()
        track_perturbations(trackers, folder, len(training.history))
