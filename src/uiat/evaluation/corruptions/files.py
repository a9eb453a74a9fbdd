"""Accuracy on corrupted images as their authors published them: CIFAR-10-C, CIFAR-100-C and ImageNet-C."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uiat.checks import Count, checked
from uiat.data.folder_layout import EXTENSIONS, is_hidden, sort_classes
from uiat.data.image_file import read_image
from uiat.data.image_folder import Folder
from uiat.data.image_set import as_float
from uiat.data.split import choose_subsample
from uiat.errors import UserError
from uiat.evaluation.corruptions.accuracy import CorruptionResult, count_correct
from uiat.evaluation.corruptions.kinds import KINDS, SEVERITIES
from uiat.evaluation.engine.plan import check_inputs
from uiat.evaluation.listener import Progress
from uiat.models.inspect import Target
from uiat.system.home import expand_home
from uiat.system.surroundings import neutral_surroundings

LABELS = "labels.npy"
Piece = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CorruptionFiles:
    """Published corrupted images; none is read before it is asked for.

    Args:
        folder: folder of KIND.npy and labels.npy, or of KIND/SEVERITY/CLASS/*.
        kinds: the kinds that are there, of the fifteen.
        places: for image files, the folder of each kind; empty for arrays.

    Example:
        >>> open_corruption_files("/missing")
        Traceback (most recent call last):
        uiat.errors.UserError: /missing: there is no such folder of corrupted images
    """

    folder: Path
    kinds: tuple[str, ...]
    places: dict[str, Path]

    def read(
        self,
        kind: str,
        severity: int,
        *,
        n: int | None,
        batch_size: int,
        image_size: int | None,
        classes: Sequence[str],
    ) -> Iterator[Piece]:
        """Yield the images of a kind and severity in batches, floats in [0, 1], with their labels."""
        if kind in self.places:
            part = _list_files(self.places[kind] / str(severity), image_size=image_size, classes=classes)
            part = part.subset(choose_subsample(part.labels, n, num_classes=part.num_classes).index)
            for rows in torch.arange(len(part)).split(batch_size):
                few = part.subset(rows).decode()
                yield as_float(few.images), few.labels
            return
        images, labels = _open_arrays(self.folder, kind)
        each = len(images) // len(SEVERITIES)
        start = each * (severity - 1)
        for first in range(start, start + min(n or each, each), batch_size):
            last = min(first + batch_size, start + min(n or each, each))
            pixels = np.ascontiguousarray(images[first:last].transpose(0, 3, 1, 2))
            yield as_float(torch.from_numpy(pixels)), torch.from_numpy(labels[first:last].astype(np.int64))


def open_corruption_files(folder: str | Path) -> CorruptionFiles:
    """Find the corrupted images in a folder: arrays as of CIFAR-10-C, or image files as of ImageNet-C.

    Args:
        folder: it holds gaussian_noise.npy and so on, five severities behind one another, with labels.npy; or
            gaussian_noise/1/CLASS/*, which may lie one folder deeper, as in noise/gaussian_noise.

    Raises:
        UserError: no such folder, none of the fifteen kinds in it, arrays without labels.

    Example:
        >>> import tempfile
        >>> open_corruption_files(tempfile.mkdtemp())
        Traceback (most recent call last):
        uiat.errors.UserError: ...: none of the fifteen corruptions is in it: neither gaussian_noise.npy nor ...
    """
    base = expand_home(folder)
    if not base.is_dir():
        raise UserError(f"{folder}: there is no such folder of corrupted images")
    arrays = tuple(kind for kind in KINDS if (base / f"{kind}.npy").is_file())
    if arrays:
        if not (base / LABELS).is_file():
            raise UserError(f"{folder}: {arrays[0]}.npy has no {LABELS} beside it, which holds the labels")
        return CorruptionFiles(base, arrays, {})
    inside = sorted(path for path in base.iterdir() if path.is_dir() and not is_hidden(path.name))
    deeper = {path.name: path for part in inside for path in sorted(part.iterdir()) if path.is_dir()}
    found = {path.name: path for path in inside} | {name: path for name, path in deeper.items() if name in KINDS}
    kinds = tuple(kind for kind in KINDS if kind in found)
    if not kinds:
        raise UserError(
            f"{folder}: none of the fifteen corruptions is in it: neither {KINDS[0]}.npy nor {KINDS[0]}/1/CLASS"
        )
    return CorruptionFiles(base, kinds, {kind: found[kind] for kind in kinds})


def _open_arrays(folder: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Open the images of a kind, mapped and not loaded, and the labels of all its severities."""
    images, labels = _open_array(folder / f"{kind}.npy"), _open_array(folder / LABELS)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) % len(SEVERITIES):
        raise UserError(f"{folder / kind}.npy must hold uint8 images (5 n, h, w, 3), not {images.dtype} {images.shape}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{folder / LABELS} must hold class numbers (n,), not {labels.dtype} {labels.shape}")
    if len(labels) * len(SEVERITIES) == len(images):  # once for all severities
        labels = np.tile(labels, len(SEVERITIES))
    if len(labels) != len(images):
        raise UserError(f"{folder / LABELS} holds {len(labels)} labels and {kind}.npy {len(images)} images")
    return images, labels


def _open_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as fault:  # whatever a damaged file leads numpy to
        pickled = "pickle" in str(fault) or "Python objects" in str(fault)
        reason = "it holds Python objects, which are never read" if pickled else "it is damaged"
        raise UserError(f"{path} is no array of images or labels: {reason} ({type(fault).__name__})") from fault
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is no array of images or labels: it holds several")
    return array


def _list_files(folder: Path, *, image_size: int | None, classes: Sequence[str]) -> Folder:
    """List the images of a severity; their classes are in the order of those of the test images, where these fit."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; each corruption has the severities 1 to 5")
    names = [path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    order = list(classes) if sorted(classes) == sorted(names) else sort_classes(names, str(folder))
    if classes and len(names) != len(classes):
        raise UserError(f"{folder} holds images of {len(names)} classes, and the model tells {len(classes)} apart")
    files = [
        (str(path), label)
        for label, name in enumerate(order)
        for path in sorted((folder / name).iterdir())
        if path.name.lower().endswith(EXTENSIONS) and not is_hidden(path.name)
    ]
    if not files:
        raise UserError(f"{folder}: there are no images in its class folders")
    paths, labels = zip(*files, strict=True)
    _, h, w = read_image(paths[0], image_size=image_size).shape
    return Folder(paths, torch.tensor(labels), tuple(order), str(folder), (3, h, w), image_size)


@checked
@neutral_surroundings()
def corruption_file_accuracy(
    model: nn.Module,
    folder: str | Path,
    *,
    n: int | None = None,
    image_size: int | None = None,
    classes: Sequence[str] = (),
    batch_size: Count = 500,
    seed: int = 0,
    progress: Progress | None = None,
) -> CorruptionResult:
    """Compute the accuracy of a model, in eval mode, on published corrupted images (Hendrycks & Dietterich 2019).

    Of the kinds in the folder those of the fifteen are measured that are there, at all five severities. A batch at a
    time is in memory: arrays are mapped, image files decoded when needed. Nothing is unpickled.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        folder: see `open_corruption_files`.
        n: number of images of each kind and severity: the first of arrays, a stratified sample of image files.
        image_size: side in pixels that image files are resized and cropped to; ImageNet-C has 224 already.
        classes: names of the model's classes; class folders of the same names are numbered like them.
        batch_size: images at a time.
        seed: of no effect; the images are what they are.
        progress: called after every batch with (kind, severities done, of how many).

    Raises:
        UserError: no such images, arrays or files that are damaged or do not fit, a model that does not fit.

    Example:
        >>> corruption_file_accuracy(nn.Flatten(), "/missing")
        Traceback (most recent call last):
        uiat.errors.UserError: /missing: there is no such folder of corrupted images
    """
    files = open_corruption_files(folder)
    accuracy: dict[str, dict[int, float]] = {}
    seconds, target, most = {}, None, 0
    for kind in files.kinds:
        start, accuracy[kind] = time.perf_counter(), {}
        for severity in SEVERITIES:
            correct = count = 0
            how: dict[str, Any] = {"n": n, "batch_size": batch_size, "image_size": image_size, "classes": classes}
            for x, y in files.read(kind, severity, **how):
                target = target or Target(model, x)
                check_inputs(target, x, y, batch_size=batch_size)
                correct, count = correct + count_correct(model, x.to(target.device), y), count + len(y)
                if progress is not None:
                    progress(kind, severity - 1, len(SEVERITIES))
            accuracy[kind][severity], most = correct / count, max(most, count)
        if progress is not None:
            progress(kind, len(SEVERITIES), len(SEVERITIES))
        seconds[kind] = time.perf_counter() - start
    return CorruptionResult(most, f"the files in {folder}", None, accuracy, seconds, seed)
