"""A teacher that a run asks, for its method or to label extra images: trained first, or read; kept in its folder."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.models.inspect import device_of
from uiat.models.modes import frozen
from uiat.models.weights_file import load_weights
from uiat.objectives import PGDAT, Standard
from uiat.objectives.abilities import attack_of
from uiat.objectives.networks import TeacherMethod, teacher_method
from uiat.runs import checkpoint
from uiat.runs.reader import EXTRA_TEACHER_FOLDER, TEACHER_FOLDER, WEIGHTS_FILES
from uiat.runs.settings import CUSTOM
from uiat.system.atomic_folder import refuse_link
from uiat.system.distributed import current_rank
from uiat.system.home import expand_home
from uiat.system.tensor_files import read_metadata
from uiat.training.device import can_use_channels_last
from uiat.training.listener import Listener
from uiat.training.setup import seeded_torch

logger = logging.getLogger("uiat")
# Trains a run in a folder, or resumes it there, and returns its model with the best weights.
TrainTeacher = Callable[[Run, Path | None, Listener | None], nn.Module]


class TeacherNeed(NamedTuple):
    """What asks a teacher, and which.

    Args:
        asker: what asks it, in words.
        method: how it is trained.
        field: the setting that may name one.
        given: what that setting says; None where it is to be trained.
        folder: name of its folder in the run's.
    """

    asker: str
    method: TeacherMethod
    field: str
    given: str | None
    folder: str


def method_need(run: Run) -> TeacherNeed | None:
    """Return the need of a run's method for a teacher, if it has one.

    Example:
        >>> method_need(Run()) is None
        True
    """
    method, given = teacher_method(run.objective), getattr(run.objective, "teacher", None)
    if method is None:
        return None
    return TeacherNeed(run.objective.name, method, "objective.teacher", given, TEACHER_FOLDER)


def labels_need(run: Run) -> TeacherNeed | None:
    """Return the need of a run's extra images for a naturally trained teacher that labels them, if they have one.

    A network that is trained on the labelled images labels the others (Carmon et al. 2019, self-training).

    Example:
        >>> labels_need(Run()) is None
        True
    """
    if run.data.extra is None or run.data.extra_labels != "teacher":
        return None
    return TeacherNeed(
        "data.extra_labels", "standard", "data.extra_teacher", run.data.extra_teacher, EXTRA_TEACHER_FOLDER
    )


@dataclass(frozen=True)
class TeacherSource:
    """How a run comes by a teacher.

    Args:
        run: every setting of the student.
        need: what the teacher is for.
        train: trains the teacher's run.
        blank: makes a network of the student's architecture, for weights that another program saved.
        num_classes: K, which the teacher has to tell apart.
        image_shape: (C, H, W) that it has to take.
        device: where the student is.
        own_code: True to let the teacher's run name code that builds it.
    """

    run: Run
    need: TeacherNeed
    train: TrainTeacher
    blank: Callable[[], nn.Module]
    num_classes: int
    image_shape: Sequence[int]
    device: torch.device
    own_code: bool = False

    @property
    def path(self) -> Path | None:
        """Where the settings say that the teacher is; None where it is to be trained."""
        return None if self.need.given is None else expand_home(self.need.given)

    @property
    def teacher_run(self) -> Run:
        """The run that trains it."""
        return teacher_run(self.run, self.need.method)

    def check(self) -> None:
        """Refuse a teacher that is given and does not fit the run, before anything is written.

        Raises:
            UserError: as of `obtain`.
        """
        if self.path is not None:
            with seeded_torch(self.run.seed, self.device):
                self._check(self._load(self.path)[0])

    def obtain(self, folder: Path | None, *, listener: Listener | None = None) -> nn.Module:
        """Return the teacher: trained in its folder in the run's, resumed there, or read and kept there.

        Args:
            folder: the student's run folder; None keeps everything in memory.
            listener: receives the steps and epochs of the teacher's training.

        Raises:
            UserError: it cannot be read, or is of other classes or images than the run.
        """
        # Making a network draws its first weights, which must not move the student's random numbers.
        with seeded_torch(self.run.seed, self.device):
            place = None if folder is None else refuse_link(folder / self.need.folder)
            teacher = self._train(place, listener) if self.path is None else self._read(self.path, place)
        self._check(teacher)
        if self.need.method != "standard" and getattr(teacher, "threat", None) is None:
            logger.warning("the teacher was not trained against an attack, as far as its file says")
        if can_use_channels_last(teacher, requested=self.run.compute.resolved.channels_last):
            teacher.to(memory_format=torch.channels_last)  # as the images are
        return teacher

    def _check(self, teacher: nn.Module) -> None:
        name = "the teacher" if self.path is None else f"{self.need.field} {self.path}"
        check_teacher(teacher, num_classes=self.num_classes, image_shape=self.image_shape, name=name)

    def _train(self, place: Path | None, listener: Listener | None) -> nn.Module:
        run = self.teacher_run
        method, epochs = run.objective.name, run.optimisation.epochs
        if place is None or not place.exists():
            where = "" if place is None else f" in {place}"
            logger.warning(
                "%s asks a teacher: trained first%s, by %s, epochs: %d (%s names one that is there)",
                self.need.asker,
                where,
                method,
                epochs,
                self.need.field,
            )
        return self.train(run, place, listener)

    def _read(self, path: Path, place: Path | None) -> nn.Module:
        """Read the teacher, from the run's folder where it is kept; otherwise it is written there."""
        kept = None if place is None else place / WEIGHTS_FILES["best"]
        if kept is not None and kept.exists():
            return self._load(kept)[0]
        teacher, spec, notes = self._load(path)
        self._check(teacher)
        for note in notes:
            logger.warning("teacher: %s", note)
        if kept is not None and current_rank().first:
            kept.parent.mkdir(exist_ok=True)
            threat = getattr(teacher, "threat", None)
            checkpoint.save_weights(kept, teacher, spec=spec, threat=threat, source=str(path))
        return teacher

    def _load(self, path: Path) -> tuple[nn.Module, dict[str, Any], list[str]]:
        """Load a run folder, a weights file of one, or a file of another program's.

        Returns:
            The network, the arguments that build it again, and what was changed about the file's weights to make them
            fit.
        """
        file = path / WEIGHTS_FILES["best"] if path.is_dir() else path
        if path.is_dir() or _is_ours(file):
            if not file.exists():
                raise UserError(f"{self.need.field}: {path} has no {file.name}: it is not the folder of a trained run")
            spec = dict(checkpoint.read_weights(file)[1]["model"])
            made_for = tuple(spec["image_shape"])
            if made_for != tuple(self.image_shape):  # a network that pools would take other sizes without complaint
                raise UserError(
                    f"{self.need.field} {path} was trained on images of shape {made_for}, "
                    f"but those of this run have {tuple(self.image_shape)}"
                )
            model = self.blank() if spec.get("name") == CUSTOM else None
            return checkpoint.load(file, model=model, own_code=self.own_code), spec, []
        teacher = self.blank()
        notes = load_weights(teacher, file)
        shape = {"num_classes": self.num_classes, "image_shape": list(self.image_shape)}
        return teacher.eval(), {"name": CUSTOM, **shape}, notes


def _is_ours(file: Path) -> bool:
    """True for a file of weights that a run of this package wrote."""
    return file.suffix == ".safetensors" and read_metadata(file).get("kind") == checkpoint.WEIGHTS


def teacher_run(run: Run, method: TeacherMethod) -> Run:
    """Return the run that trains a teacher: the same but for the objective, without extra images, AWP and averages.

    Args:
        run: every setting of the student.
        method: how the teacher is trained.

    Example:
        >>> from uiat import recipes
        >>> teacher_run(recipes.get("digits-hat"), "standard").objective.name
        'standard'
    """
    objective: Standard | PGDAT = Standard()
    if method == "pgd-at":
        attack = attack_of(run.objective)
        assert attack is not None
        # Replays, which the teacher has none of, are the steps of an attack of no steps (Free-AT).
        steps = attack.steps or max(1, run.optimisation.replays)
        objective = PGDAT(attack=replace(attack, loss="ce", start="uniform", steps=steps))
    plain = replace(run.optimisation, awp=0.0, average="none", replays=0)
    if attack_of(objective) is None:
        plain = replace(plain, radius_warmup_epochs=0, steps_warmup_epochs=0)
    metric = "clean" if isinstance(objective, Standard) else run.validation.metric
    validation = replace(run.validation, metric=metric, patience=None)
    whole = {field.name: field.default for field in fields(run.data) if field.name.startswith("extra")}
    return replace(
        run,
        name=f"{run.name}-teacher",
        objective=objective,
        optimisation=plain,
        validation=validation,
        data=replace(run.data, **whole),  # type: ignore[arg-type]
    )


def check_teacher(
    teacher: nn.Module, *, num_classes: int, image_shape: Sequence[int], name: str = "the teacher"
) -> None:
    """Refuse a teacher that is none for these images and classes.

    Raises:
        UserError: it cannot take the images, or tells other classes apart.

    Example:
        >>> teacher = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> check_teacher(teacher, num_classes=2, image_shape=(1, 2, 2))
        Traceback (most recent call last):
        uiat.errors.UserError: the teacher tells 3 classes apart, but this run has 2
    """
    shape = tuple(image_shape)
    try:
        with torch.no_grad(), frozen(teacher):
            logits = teacher(torch.zeros(1, *shape, device=device_of(teacher)))
    except (RuntimeError, UserError) as error:
        raise UserError(f"{name} takes no images of shape {shape}: {' '.join(str(error).split())[:200]}") from None
    if not (isinstance(logits, torch.Tensor) and logits.ndim == 2):
        raise UserError(f"{name} does not return logits (B, K)")
    if logits.shape[1] != num_classes:
        raise UserError(f"{name} tells {logits.shape[1]} classes apart, but this run has {num_classes}")
