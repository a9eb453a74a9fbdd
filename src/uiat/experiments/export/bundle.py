"""What every format is made from: a run's model, some of its test images, and what its files say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat.data import ImageSet, as_float
from uiat.errors import UserError
from uiat.experiments.images import evaluated_images
from uiat.formatting import threat_record
from uiat.runs import checkpoint
from uiat.runs.run_files import RunFiles, read_files
from uiat.runs.settings import read_evaluated

IMAGES = 64  # on which an exported model is held against the run's


@dataclass(frozen=True)
class Bundle:
    """A run's model with what belongs to it.

    Args:
        name: name of the run.
        files: the files of the run folder.
        model: the model, in eval mode on the CPU.
        images: test images (N, C, H, W) in [0, 1].
        labels: their labels (N,).
        classes: name of each class.
        image_shape: (channels, height, width).
        threat: the threat model of the training, such as "Linf:0.2"; empty for standard training.
        which: "best" or "last" weights.
    """

    name: str
    files: RunFiles
    model: nn.Module
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    threat: str
    which: checkpoint.Which

    @property
    def logits(self) -> Tensor:
        """The model's own logits of the images (N, K)."""
        with torch.no_grad():
            logits: Tensor = self.model(self.images)
        return logits

    def to_json(self) -> dict[str, Any]:
        """Return what a user of the weights has to know, as plain values."""
        return {
            "run": self.name,
            "weights": self.which,
            "architecture": self.files.setting("model.name"),
            "image_shape": list(self.image_shape),
            "classes": list(self.classes),
            "input": "float images (B, C, H, W) in [0, 1]; colours in the order RGB; the model normalises them itself",
            "threat": self.threat or None,
            "data": self.files.setting("data.name"),
            "method": self.files.setting("objective.name"),
        }


def open_bundle(
    folder: Path, *, which: checkpoint.Which, own_code: bool, root: str | None, n: int | None = None
) -> Bundle:
    """Load a run folder for export.

    Args:
        folder: the run folder.
        which: weights of the best or the last epoch.
        own_code: let the run name code that builds the model or opens the data.
        root: folder of the data sets; that of the run by default.
        n: number of test images; 64 by default, and as many as there are at most.

    Raises:
        UserError: no run folder, a damaged one, or test images that are not to be had.
    """
    run, threat = read_evaluated(folder)
    model = checkpoint.load(folder, which, own_code=own_code)
    images = evaluated_images(run, folder=folder, n=max(n or 0, IMAGES), root=root, own_code=own_code)
    return Bundle(
        name=run.name,
        files=read_files(folder),
        model=model.eval().requires_grad_(False),
        images=as_float(images.images),
        labels=images.labels,
        classes=_class_names(images),
        image_shape=tuple(images.image_shape),
        threat="" if threat is None else threat_record(threat),
        which=which,
    )


def _class_names(images: ImageSet) -> tuple[str, ...]:
    return tuple(str(name) for name in images.classes)


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference between two sets of logits (N, K), relative to the largest logit or to 1.

    Raises:
        UserError: their shapes differ.

    Example:
        >>> largest_difference(torch.tensor([[10.0, 0.0]]), torch.tensor([[9.0, 0.0]]))
        0.1
    """
    if ours.shape != theirs.shape:
        raise UserError(f"the exported model returns shape {tuple(theirs.shape)}, not {tuple(ours.shape)}")
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1))
