"""Open a run: everything loaded, built and tried, ready for its first step or for the next one."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from uiat import models
from uiat.config.schema import Run
from uiat.data import Folder, ImageSet, loader_for
from uiat.errors import UserError
from uiat.models.freeze import freeze_parameters
from uiat.objectives import Objective
from uiat.runs import checkpoint
from uiat.runs.folder import check_new_folder, locked_run, new_folder, remove_killed_start, remove_unsaved_start
from uiat.runs.own_files import AllowOwnCode, check_own_code, own_names
from uiat.runs.settings import CUSTOM, needs_first_checkpoint, read_run, with_threat
from uiat.runs.writer import RunWriter, fingerprint
from uiat.system.distributed import current_rank
from uiat.training.autotune import resolve_auto
from uiat.training.device import can_use_channels_last, pick_device, sync_batchnorm, training_device
from uiat.training.extra_images import ExtraLabels, open_extra_images
from uiat.training.initial_weights import load_initial_weights
from uiat.training.listener import Listener
from uiat.training.loop import Training
from uiat.training.result import load_best
from uiat.training.setup import check_plan, load_datasets, model_spec, seeded_torch, split_own_data, try_model
from uiat.training.teacher import TeacherNeed, TeacherSource, labels_need, method_need


@contextmanager
def start_run(
    run: Run, *, run_dir: str | Path | None = None, listener: Listener | None = None, own_code: bool = False
) -> Iterator[Training]:
    """Inside, a new run is ready for its first step: data loaded, model built and tried, and only then the folder made.

    `uiat.train` is this and `Training.fit`.

    Args:
        run: as for `train`.
        run_dir: as for `train`.
        listener: as for `train`.
        own_code: as for `train`.

    Raises:
        UserError: as for `train`; no folder is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, start_run(Run(), run_dir=Path(folder) / "run") as training:
        ...     len(training.loader)
        9
    """
    check_new_folder(run_dir)
    check_plan(run := with_threat(run))
    device = pick_device(run.compute.device)
    training_set, held_out = load_datasets(run.data, run.seed, own_code=True)
    with seeded_torch(run.seed, device):
        spec = model_spec(run, training_set)
        model = models.build(**spec, pretrained=run.model.pretrained).to(device)
        training = begin_training(run, model, training_set, held_out, listener=listener)
        find_teachers(training, spec, training_set, own_code=own_code)
        with stored(training, run_dir, training_set, spec):
            yield training


@contextmanager
def stored(
    training: Training, run_dir: str | Path | None, data: ImageSet | Folder, spec: dict[str, Any]
) -> Iterator[None]:
    """Inside, a run is written to a new folder; what it starts from and no seed gives is in its first checkpoint.

    Args:
        training: the run, before its first step.
        run_dir: the folder to make; `runs/NAME`, numbered where that exists, by default.
        data: the images that it trains on.
        spec: the arguments of `models.build` for its model, or `own_spec`.

    Example:
        >>> import tempfile
        >>> training_set, held_out = load_datasets(Run().data, 0)
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> training = make_training(Run(), model, training_set, held_out)
        >>> with tempfile.TemporaryDirectory() as name, stored(training, f"{name}/run", training_set, {}):
        ...     training.store.last_checkpoint
        'none yet'
    """
    folder = new_folder(training.run, run_dir, **training.start)
    with locked_run(folder):
        training.store = RunWriter(folder, training.run, spec, fingerprint(data, training.loader.extra), data.classes)
        if needs_first_checkpoint(training.run):
            training.save()
        yield


@contextmanager
def reopen_run(
    run_dir: str | Path,
    *,
    own: tuple[nn.Module | None, Any, Any, Objective | None] = (None, None, None, None),
    listener: Listener | None = None,
    own_code: AllowOwnCode = False,
) -> Iterator[Training]:
    """Inside, a run is ready for its next step: everything as the folder's checkpoint says.

    `uiat.resume` is this and `Training.fit`.

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
    run = read_run(folder, objective=objective, own_code=own_code)
    _require_own(folder, fitted=run.model.name == CUSTOM, given=[value is not None for value in own])
    with ExitStack() as inside:
        inside.enter_context(locked_run(folder))
        if model is None:
            device = pick_device(run.compute.device)
            for name in own_names(run) if own_code else ():
                check_own_code(folder, name, allowed=own_code)
            # The folder may come from somebody else: it is not to choose where a download goes.
            training_set, held_out = load_datasets(run.data, run.seed, received=True, own_code=bool(own_code))
        else:
            device = training_device(model)
            training_set, held_out = split_own_data(train_data, validation_data, seed=run.seed)
        inside.enter_context(seeded_torch(run.seed, device))
        spec = model_spec(run, training_set) if model is None else own_spec(training_set)
        if model is None:
            model = checkpoint.build(spec, own_code=bool(own_code)).to(device)
        training = make_training(run, model, training_set, held_out, listener=listener, resumed=True)
        data = fingerprint(training_set, training.loader.extra)
        training.store = RunWriter(folder, run, spec, data, training_set.classes)
        find_teachers(training, spec, training_set, own_code=bool(own_code), resumed=True)
        training.resume()
        yield training


def _require_own(folder: Path, *, fitted: bool, given: list[bool]) -> None:
    if fitted and not all(given[:2]):
        raise UserError(f"{folder} was made by fit(): go on with uiat.resume(folder, model=..., train_data=...)")
    if any(given) and not fitted:
        raise UserError(f"{folder} names its own model and data: leave out model, train_data and the rest")


def own_spec(data: ImageSet | Folder) -> dict[str, Any]:
    """Return what stands for the arguments of `models.build` where a model was given.

    Example:
        >>> from uiat.data import load
        >>> own_spec(load("digits", "test"))["name"]
        'custom'
    """
    return {"name": CUSTOM, "num_classes": data.num_classes, "image_shape": list(data.image_shape)}


def begin_training(
    run: Run, model: nn.Module, training_set: ImageSet | Folder, held_out: ImageSet, *, listener: Listener | None = None
) -> Training:
    """Prepare a new run as `make_training` does, from the weights that its settings name.

    Example:
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> begin_training(Run(), model, *load_datasets(Run().data, 0)).start
        {}
    """
    start = load_initial_weights(model, run.model, num_classes=training_set.num_classes)
    training = make_training(run, model, training_set, held_out, listener=listener)
    training.start = start
    return training


def make_training(
    run: Run,
    model: nn.Module,
    training_set: ImageSet | Folder,
    held_out: ImageSet,
    *,
    listener: Listener | None = None,
    resumed: bool = False,
) -> Training:
    """Prepare a run, and try its model on a few images; nothing is written before this has succeeded.

    Args:
        run: every setting.
        model: the model, on its device.
        training_set: the images to train on.
        held_out: the images to validate on.
        listener: receives each step and epoch.
        resumed: True for a run whose perturbations come from its checkpoint, and not from where they started.

    Raises:
        UserError: the model is none for these images, or a setting cannot be what was meant.

    Example:
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> make_training(Run(), model, *load_datasets(Run().data, 0)).epoch
        0
    """
    device = training_device(model)
    if run.compute.sync_batchnorm:
        model = sync_batchnorm(model, device)
    channels_last = can_use_channels_last(model, requested=run.compute.resolved.channels_last)
    try_model(model, held_out, num_classes=training_set.num_classes, channels_last=channels_last)
    loader = loader_for(
        training_set,
        batch_size=run.data.batch_size,
        augment=run.data.augmentation,
        device=device,
        seed=run.seed,
        channels_last=channels_last,
        num_workers=run.data.workers,
        extra=open_extra_images(run.data, training_set),
        extra_share=run.data.extra_share,
    )
    freeze_parameters(model, run.model.freeze)
    steps = len(loader) * run.optimisation.epochs
    run = resolve_auto(run, model, image_shape=loader.image_shape, num_classes=loader.num_classes, steps=steps)
    return Training(run, model, loader, held_out, listener=listener, resumed=resumed)


def find_teachers(
    training: Training,
    spec: Mapping[str, Any],
    training_set: ImageSet | Folder,
    *,
    own_code: bool = False,
    resumed: bool = False,
) -> None:
    """Tell a run how it comes by the teachers that its method and its extra images ask.

    Args:
        training: the run.
        spec: the arguments of `models.build` for its model, or `own_spec`.
        training_set: the images that the run trains on, and its teacher too.
        own_code: True to let the teacher's run name code that builds it.
        resumed: True for a run that has its teacher in its folder by now; otherwise one that is given is checked.

    Raises:
        UserError: a teacher that is given cannot be read, or does not fit the run.

    Example:
        >>> from uiat import PGDAT
        >>> run = Run(objective=PGDAT())
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> training_set, held_out = load_datasets(run.data, 0)
        >>> training = make_training(run, model, training_set, held_out)
        >>> find_teachers(training, {}, training_set)
        >>> training.untrained_teachers
        []
    """
    run, model = training.run, training.model

    def find(need: TeacherNeed) -> TeacherSource:
        blank = partial(copy.deepcopy, model) if spec["name"] == CUSTOM else partial(models.build, **spec)
        fresh = blank if spec["name"] == CUSTOM else partial(blank, pretrained=run.model.pretrained)
        source = TeacherSource(
            run=run,
            need=need,
            train=partial(_train_teacher, training, dict(spec), training_set, fresh),
            blank=blank,
            num_classes=training_set.num_classes,
            image_shape=training_set.image_shape,
            device=training.step.device,
            own_code=own_code,
        )
        if not resumed:
            source.check()
        return source

    if (need := method_need(run)) is not None:
        training.teachers.method = find(need)
    if (need := labels_need(run)) is not None:
        training.teachers.labels = ExtraLabels(find(need))


def _train_teacher(
    student: Training,
    spec: dict[str, Any],
    training_set: ImageSet | Folder,
    fresh: Callable[[], nn.Module],
    run: Run,
    folder: Path | None,
    listener: Listener | None,
) -> nn.Module:
    """Train a teacher on the student's images, in a folder if there is one, or resume it there; returns it.

    It starts as the student does, from random weights or from those that the settings name.
    """
    assert student.held_out is not None
    device, rank = training_device(student.model), current_rank()
    with ExitStack() as inside:
        if folder is not None and rank.first:
            remove_killed_start(folder)
            if needs_first_checkpoint(run):  # without it, it could not say what it started from
                remove_unsaved_start(folder)
            with suppress(OSError):
                folder.rmdir()  # an empty one
        # As the first process sees it, before any of them goes on to make the folder.
        resumed = rank.gather(folder is not None and folder.exists())[0]
        if resumed:
            assert folder is not None
            inside.enter_context(locked_run(folder))
            run = read_run(folder)
        inside.enter_context(seeded_torch(run.seed, device))
        begin = make_training if resumed else begin_training
        teacher = begin(run, fresh().to(device), training_set, student.held_out, listener=listener)
        if resumed:
            assert folder is not None
            teacher.store = RunWriter(folder, teacher.run, spec, fingerprint(training_set), training_set.classes)
            teacher.resume()
        elif folder is not None:
            inside.enter_context(stored(teacher, folder, training_set, spec))
        teacher.fit()
        return load_best(teacher)
