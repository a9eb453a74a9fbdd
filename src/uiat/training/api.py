"""Train a recipe (`train`), resume a run from its folder (`resume`), train one's own model and data (`fit`)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn

from uiat import models
from uiat.checks import Count, Seed, checked
from uiat.config.schema import Compute, Data, Guards, Model, Optimisation, Run, Validation
from uiat.data import Folder, ImageSet, loader_for
from uiat.errors import UserError
from uiat.objectives import UIAT, AnyObjective, Objective, check_objective
from uiat.runs import checkpoint
from uiat.runs.folder import check_new_folder, locked_run, new_folder
from uiat.runs.settings import CUSTOM, read_run
from uiat.runs.writer import RunWriter, fingerprint
from uiat.system.surroundings import neutral_surroundings
from uiat.training.autotune import resolve_auto
from uiat.training.listener import Listener, Listeners
from uiat.training.loop import Training
from uiat.training.progress import live_progress
from uiat.training.result import Trained, make_result
from uiat.training.setup import (
    can_use_channels_last,
    check_plan,
    load_datasets,
    model_spec,
    pick_device,
    seeded,
    split_own_data,
    sync_batchnorm,
    training_device,
    try_model,
)


@checked
@neutral_surroundings()
def train(
    run: Run, *, run_dir: str | Path | None = None, listener: Listener | None = None, progress: bool = True
) -> Trained:
    """Train a run in a new folder: config.yaml, environment.json, metrics.jsonl, best, last, inverse and checkpoint.

    Args:
        run: every setting, such as `recipes.get("digits-uiat")`.
        run_dir: the folder to make; `runs/NAME`, numbered where that exists, by default.
        listener: receives each step and epoch.
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
    with start_run(run, run_dir=run_dir, listener=listener) as training:
        _fit(training, progress=progress)
        return make_result(training)


@contextmanager
def start_run(run: Run, *, run_dir: str | Path | None = None, listener: Listener | None = None) -> Iterator[Training]:
    """Inside, a new run is ready for its first step: data loaded, model built and tried, and only then the folder made.

    `train` is this and `Training.fit`.

    Args:
        run: as for `train`.
        run_dir: as for `train`.
        listener: as for `train`.

    Raises:
        UserError: as for `train`; no folder is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, start_run(Run(), run_dir=Path(folder) / "run") as training:
        ...     len(training.loader)
        9
    """
    check_new_folder(run_dir)
    check_plan(run)
    device = pick_device(run.compute.device)
    training_set, held_out = load_datasets(run.data, run.seed)
    with seeded(run.seed, device):
        spec = model_spec(run, training_set)
        model = models.build(**spec).to(device)
        training = _make_training(run, model, training_set, held_out, listener=listener)
        folder = new_folder(training.run, run_dir)
        with locked_run(folder):
            training.store = RunWriter(folder, training.run, spec, fingerprint(training_set), training_set.classes)
            yield training


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
    own_code: bool = False,
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
        own_code: allow the folder to name code of yours to build the model with, which runs it.
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


@contextmanager
def reopen_run(
    run_dir: str | Path,
    *,
    own: tuple[nn.Module | None, Any, Any, Objective | None] = (None, None, None, None),
    listener: Listener | None = None,
    own_code: bool = False,
) -> Iterator[Training]:
    """Inside, a run is ready for its next step: everything as the folder's checkpoint says.

    `resume` is this and `Training.fit`.

    Args:
        run_dir: as for `resume`.
        own: (model, train_data, validation_data, objective), as for `resume`.
        listener: as for `resume`.
        own_code: as for `resume`.

    Raises:
        UserError: as for `resume`.

    Example:
        >>> with reopen_run("missing-run") as training:
        ...     training.epoch
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    folder = Path(run_dir)
    model, train_data, validation_data, objective = own
    run = read_run(folder, objective=objective)
    _require_own(folder, fitted=run.model.name == CUSTOM, given=[value is not None for value in own])
    with ExitStack() as inside:
        inside.enter_context(locked_run(folder))
        if model is None:
            device = pick_device(run.compute.device)
            training_set, held_out = load_datasets(run.data, run.seed)
        else:
            device = training_device(model)
            training_set, held_out = split_own_data(train_data, validation_data, seed=run.seed)
        inside.enter_context(seeded(run.seed, device))
        spec = model_spec(run, training_set) if model is None else _own_spec(training_set)
        model = checkpoint.build(spec, own_code=own_code).to(device) if model is None else model
        training = _make_training(run, model, training_set, held_out, listener=listener)
        training.store = RunWriter(folder, run, spec, fingerprint(training_set), training_set.classes)
        training.resume()
        yield training


def _require_own(folder: Path, *, fitted: bool, given: list[bool]) -> None:
    if fitted and not all(given[:2]):
        raise UserError(f"{folder} was made by fit(): go on with uiat.resume(folder, model=..., train_data=...)")
    if any(given) and not fitted:
        raise UserError(f"{folder} names its own model and data: leave out model, train_data and the rest")


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
    augment: Literal["none", "crop", "crop-flip"] = "none",
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
        augment: "none", "crop" or "crop-flip".
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
        >>> from uiat import PGDAT
        >>> model = models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4)
        >>> x, y = torch.rand(64, 1, 8, 8), torch.arange(64) % 2
        >>> trained = fit(model, (x, y), objective=PGDAT(), optimisation=Optimisation(epochs=1), batch_size=16)
        >>> sorted(trained.best)
        ['epoch', 'value']
    """
    check_new_folder(run_dir)
    if objective is not None:
        check_objective(objective)
    data, held_out = split_own_data(train_data, validation_data, seed=seed)
    settings = {"optimisation": optimisation, "validation": validation, "guards": guards}
    run = Run(
        name="fit",
        seed=seed,
        data=Data(name=data.name, batch_size=batch_size, augment=augment),
        model=Model(name=CUSTOM),
        objective=cast(AnyObjective, objective or UIAT()),
        compute=compute or Compute(channels_last=False),
        **{name: value for name, value in settings.items() if value is not None},  # type: ignore[arg-type]
    )
    check_plan(run)
    with ExitStack() as inside:
        inside.enter_context(seeded(seed, training_device(model)))
        training = _make_training(run, model, data, held_out, listener=listener)
        if run_dir is not None:
            inside.enter_context(_stored(training, run_dir, data))
        _fit(training, progress=progress)
    return make_result(training)


@contextmanager
def _stored(training: Training, run_dir: str | Path, data: ImageSet) -> Iterator[None]:
    """Inside, a run of `fit` is written to a new folder."""
    folder = new_folder(training.run, run_dir)
    with locked_run(folder):
        training.store = RunWriter(folder, training.run, _own_spec(data), fingerprint(data), data.classes)
        yield


def _fit(training: Training, *, progress: bool) -> None:
    """Train to the end, with a bar where somebody may look at it."""
    with live_progress(training.run, shown=progress, best=training.best) as bar:
        training.listener = Listeners(*(each for each in (bar, training.listener) if each is not None))
        training.fit()


def _own_spec(data: ImageSet | Folder) -> dict[str, Any]:
    return {"name": CUSTOM, "num_classes": data.num_classes, "image_shape": list(data.image_shape)}


def _make_training(
    run: Run, model: nn.Module, training_set: ImageSet | Folder, held_out: ImageSet, *, listener: Listener | None
) -> Training:
    """Prepare a run, and try its model on a few images; nothing is written before this has succeeded."""
    device = training_device(model)
    if run.compute.sync_batchnorm:
        model = sync_batchnorm(model, device)
    channels_last = can_use_channels_last(model, requested=run.compute.resolved.channels_last)
    try_model(model, held_out, num_classes=training_set.num_classes, channels_last=channels_last)
    loader = loader_for(
        training_set,
        batch_size=run.data.batch_size,
        augment=run.data.augment,
        device=device,
        seed=run.seed,
        channels_last=channels_last,
        num_workers=run.data.workers,
    )
    steps = len(loader) * run.optimisation.epochs
    run = resolve_auto(run, model, image_shape=loader.image_shape, num_classes=loader.num_classes, steps=steps)
    return Training(run, model, loader, held_out, listener=listener)
