"""The teachers of a run in progress, until the step and the extra images have what they ask of them."""

from dataclasses import dataclass
from pathlib import Path

from uiat.data import Loader, StreamingLoader
from uiat.training.extra_images import ExtraLabels
from uiat.training.listener import Listener
from uiat.training.step import Step
from uiat.training.teacher import TeacherSource


@dataclass
class Teachers:
    """What is left to prepare before the next step; None where nothing is.

    Args:
        method: how the run comes by the teacher of its method.
        labels: how it comes by the labels of its extra images.

    Example:
        >>> Teachers().untrained(None)
        []
    """

    method: TeacherSource | None = None
    labels: ExtraLabels | None = None

    def untrained(self, folder: Path | None) -> list[TeacherSource]:
        """Return the teachers that are to be trained: of the extra images, of the method.

        Args:
            folder: the run folder; None where everything is kept in memory.
        """
        labels = None if self.labels is None or self.labels.is_done(folder) else self.labels.teacher
        return [source for source in (labels, self.method) if source is not None and source.path is None]

    def prepare(
        self,
        step: Step,
        loader: Loader | StreamingLoader,
        folder: Path | None,
        *,
        listener: Listener | None = None,
        only: TeacherSource | None = None,
    ) -> None:
        """Train, resume or read them; give the step its teacher and the loader's extra images their labels.

        Args:
            step: the training step.
            loader: loads the batches.
            folder: the run folder.
            listener: receives the steps and epochs of the teachers' training.
            only: prepare this teacher alone, one of `untrained`.
        """
        if self.labels is not None and loader.extra is not None and only in (None, self.labels.teacher):
            loader.extra = self.labels.label(loader.extra, folder, listener=listener)
            self.labels = None
        if self.method is not None and only in (None, self.method):
            step.add_teacher(self.method.obtain(folder, listener=listener))
            self.method = None
