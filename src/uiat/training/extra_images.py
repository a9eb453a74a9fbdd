"""The extra images of a run: opened, and labelled by a teacher, once, before the first step."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from uiat.config.schema import Data
from uiat.data import ExtraImages, Folder, ImageSet, as_float, open_extra
from uiat.errors import UserError
from uiat.models.inspect import device_of
from uiat.models.modes import frozen
from uiat.models.outputs import logits_only
from uiat.runs.reader import EXTRA_LABELS_FILE
from uiat.system.distributed import current_rank
from uiat.system.manifest import check_file, write_recorded_tensors
from uiat.system.tensor_files import read_tensors
from uiat.training.listener import Listener
from uiat.training.teacher import TeacherSource

logger = logging.getLogger("uiat")
KIND = "uiat.extra-labels"
BATCH = 500  # images at a time


@dataclass(frozen=True)
class ExtraLabels:
    """How extra images come by labels that their file does not give.

    Args:
        teacher: how the run comes by the network that labels them.
    """

    teacher: TeacherSource

    def is_done(self, folder: Path | None) -> bool:
        """True if the labels are in the run's folder."""
        return folder is not None and (folder / EXTRA_LABELS_FILE).exists()

    def label(self, extra: ExtraImages, folder: Path | None, *, listener: Listener | None = None) -> ExtraImages:
        """Return the images with the teacher's labels, read from the run's folder where they are there.

        They are kept, because the same network may answer otherwise on another machine, and a run is resumed bit for
        bit; and so the teacher is asked once about each image, however often that is drawn.

        Args:
            extra: the images.
            folder: the run folder; None keeps everything in memory.
            listener: receives the steps and epochs of the teacher's training.

        Raises:
            UserError: as of `TeacherSource.obtain`; or the file of labels is damaged, lost, or of other images.
        """
        # As the first process sees it, before it writes the file.
        if current_rank().gather(self.is_done(folder))[0]:
            assert folder is not None
            return replace(extra, labels=_read(folder / EXTRA_LABELS_FILE, extra))
        if folder is not None:
            check_file(folder / EXTRA_LABELS_FILE)  # labels that are lost are not made anew in the middle of a run
        teacher = self.teacher.obtain(folder, listener=listener)
        logger.info("the teacher labels %d extra images", len(extra))
        labels = label_images(teacher, extra)
        if folder is not None and current_rank().first:
            facts = {"kind": KIND, "checksum": extra.checksum}
            write_recorded_tensors(folder / EXTRA_LABELS_FILE, {"labels": labels}, facts)
        return replace(extra, labels=labels)


def open_extra_images(data: Data, training_set: ImageSet | Folder) -> ExtraImages | None:
    """Open the extra images that a run's settings name, for its training set; None if they name none.

    Raises:
        UserError: as of `uiat.data.open_extra`.

    Example:
        >>> from uiat.data import load
        >>> open_extra_images(Data(), load("digits", "train")) is None
        True
    """
    if data.extra is None:
        return None
    shape, classes = training_set.image_shape, training_set.num_classes
    return open_extra(data.extra, image_shape=shape, num_classes=classes, labelled=data.extra_labels == "file")


def label_images(teacher: nn.Module, extra: ExtraImages) -> Tensor:
    """Return the classes (M,) that a network predicts for extra images; several processes share the work.

    Example:
        >>> import numpy as np
        >>> extra = ExtraImages(np.zeros((3, 2, 2, 1), np.uint8), None, Path("a.npz"), "")
        >>> label_images(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), extra).shape
        torch.Size([3])
    """
    rank, device, labels = current_rank(), device_of(teacher), torch.zeros(len(extra), dtype=torch.int64)
    with torch.no_grad(), frozen(teacher), logits_only(teacher):
        for number, index in enumerate(torch.arange(len(extra)).split(BATCH)):
            if number % rank.size == rank.rank:
                labels[index] = teacher(as_float(extra.take(index).to(device))).argmax(dim=1).cpu()
    return rank.total(labels)


def _read(path: Path, extra: ExtraImages) -> Tensor:
    check_file(path)
    tensors, meta = read_tensors(path)
    labels = tensors.get("labels")
    if meta.get("kind") != KIND or labels is None or labels.dtype != torch.int64:
        raise UserError(f"{path} does not hold the labels of extra images")
    if len(labels) != len(extra) or meta.get("checksum") != extra.checksum:
        raise UserError(f"{path} is of other images than {extra.path}: give the same file or start a new run")
    return labels
