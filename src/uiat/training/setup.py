"""Prepare a run before its first step: check its settings, load data, describe and try the model, pick a device."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat import models
from uiat.config.schema import Data, Run
from uiat.data import (
    STATS,
    Folder,
    ImageSet,
    Stream,
    as_float,
    from_dataset,
    from_tensors,
    is_data_code,
    open_data,
    split_validation,
    statistics,
    stratified_subset,
)
from uiat.errors import UserError
from uiat.evaluation import stages
from uiat.objectives.abilities import one_off_epoch, require_soft_labels
from uiat.threat import Linf
from uiat.training.attack_memory import has_memory
from uiat.training.device import training_device
from uiat.training.idle_settings import warn_of_idle_settings
from uiat.training.trackers import require_trackers

logger = logging.getLogger("uiat")


def check_plan(run: Run) -> None:
    """Refuse, before hours of training, a run whose mistake would only show after them; warn of what cannot matter.

    Raises:
        UserError: an attack of the evaluation that does not exist, a one-off epoch that never comes, mixed images for
            a method that needs one class an image, or a tracker that is not installed.

    Example:
        >>> from uiat.config.schema import Evaluation
        >>> check_plan(Run(evaluation=Evaluation(attacks=("pgd20",))))
        Traceback (most recent call last):
        uiat.errors.UserError: evaluation.attacks: unknown attack 'pgd20'; did you mean ...
    """
    for name in run.evaluation.attacks:
        try:
            stages(name, threat=run.threat or Linf("8/255"))
        except UserError as error:
            raise UserError(f"evaluation.attacks: {error}") from None
    augmentation = run.data.augmentation
    if augmentation.mixes:
        require_soft_labels(run.objective)
    if has_memory(run.objective) and not augmentation.keeps_pixels:
        raise UserError(
            'objective.attack.start "memory" follows pixels through crops and mirroring alone: take data.augment '
            "crop-flip, without data.randaugment, data.mixup and data.cutmix"
        )
    require_trackers(run.compute.trackers)
    epochs, epoch = run.optimisation.epochs, one_off_epoch(run.objective)
    if epoch is not None and epoch >= epochs:
        raise UserError(
            f"objective.inverse.epoch is {epoch}, counted from 0, but optimisation.epochs is {epochs}: "
            "the one-off perturbations would never be made"
        )
    warn_of_idle_settings(run)


def as_image_set(data: ImageSet | tuple[Tensor, Tensor] | Any) -> ImageSet:
    """Return an `ImageSet` of what users have: an `ImageSet`, a pair of tensors, or a torch Dataset.

    Example:
        >>> len(as_image_set((torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))))
        4
    """
    if isinstance(data, ImageSet):
        return data
    if _is_pair(data):
        return from_tensors(*data)
    return from_dataset(data)


def split_own_data(
    train_data: ImageSet | tuple[Tensor, Tensor] | Any,
    validation_data: ImageSet | tuple[Tensor, Tensor] | Any | None,
    *,
    seed: int,
) -> tuple[ImageSet, ImageSet]:
    """Return the images to train on and those to validate on, from the user's own data.

    Args:
        train_data: an `ImageSet`, a pair of tensors, or a torch Dataset.
        validation_data: likewise; None holds a part of `train_data` out.
        seed: seed of the images held out.

    Raises:
        UserError: data that cannot be what was meant, or validation data that does not fit the training data.

    Example:
        >>> x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 2
        >>> [len(images) for images in split_own_data((x, y), None, seed=0)]
        [38, 2]
    """
    _check_seed(seed)
    training_set = as_image_set(train_data)
    if training_set.num_classes < 2:
        raise UserError(f"{training_set.name}: the labels name one class only; a classifier needs at least 2")
    if validation_data is None:
        return split_validation(training_set, seed=seed)[:2]
    if isinstance(validation_data, ImageSet):
        held_out = validation_data
    elif _is_pair(validation_data):
        held_out = from_tensors(*validation_data, num_classes=training_set.num_classes, name="validation data")
    else:
        held_out = from_dataset(validation_data, num_classes=training_set.num_classes, name="validation data")
    if held_out.image_shape != training_set.image_shape or held_out.num_classes != training_set.num_classes:
        raise UserError(
            f"the validation data has {held_out.num_classes} classes of images {held_out.image_shape}, "
            f"the training data {training_set.num_classes} of {training_set.image_shape}: they must be the same"
        )
    return training_set, held_out


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def open_split(
    data: Data, split: str, *, root: str | None, own_code: bool = False, download: bool = True
) -> ImageSet | Folder | Stream:
    """Open the data set that a run folder names; nothing is downloaded into a place that only the folder names.

    Run folders come from others, too, and looking at one must not make folders or files elsewhere.

    Args:
        data: name, root, sizes.
        split: "train" or "test".
        root: the folder of the data sets that the user names, into which missing files may be downloaded; None for that
            of the run.
        own_code: True to let the name be code of the user's own, which runs it.
        download: False to download nothing at all.

    Raises:
        UserError: as for `uiat.data.open_data`; code that is not allowed.

    Example:
        >>> open_split(Data(name="mnist", root="/missing"), "test", root=None)
        Traceback (most recent call last):
        uiat.errors.UserError: mnist is missing or damaged under /missing ... into a folder that only a run names; ...
    """
    if is_data_code(data.name) and not own_code:
        raise UserError(f"the run's data set is code, {data.name!r}: allow it with own_code=True (--own-code)")
    own = root is not None or data.root is None
    try:
        return open_data(
            data.name, split, root=root or data.root, download=own and download, image_size=data.image_size
        )
    except UserError as error:
        if own or not download or Path(str(data.root)).is_dir():
            raise
        raise UserError(
            f"{error}: nothing is downloaded into a folder that only a run names; to evaluate, give --data.root, a "
            "folder of your own"
        ) from None


def load_datasets(
    data: Data, seed: int, *, received: bool = False, own_code: bool = False
) -> tuple[ImageSet | Folder, ImageSet]:
    """Load the training images of a run, and hold out of them those to validate on.

    Args:
        data: name, root, sizes.
        seed: seed of the images held out and of the subset.
        received: True if a run folder names the root of `data`, and nobody else; see `open_split`.
        own_code: True to let the name be code of the user's own, which runs it.

    Returns:
        (images to train on, images to validate on).

    Example:
        >>> training_set, held_out = load_datasets(Data(name="digits", validation=100), 0)
        >>> len(held_out)
        100
    """
    _check_seed(seed)
    whole = open_split(data, "train", root=None if received else data.root, own_code=own_code)
    assert not isinstance(whole, Stream)  # which `open_data` refuses to train on
    training_set, held_out, _ = split_validation(whole, size=data.validation, seed=seed)
    if data.subset is not None:
        training_set = stratified_subset(training_set, data.subset, seed=seed)
    return training_set, held_out


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**63:
        raise UserError(f"seed must not be negative, nor larger than 64 bits hold, but is {seed}")


def model_spec(run: Run, data: ImageSet | Folder) -> dict[str, Any]:
    """Return the arguments of `models.build` for a run: the data's statistics become the model's first layer.

    Example:
        >>> model_spec(Run(), load_datasets(Data(), 0)[0])["image_shape"]
        [1, 8, 8]
    """
    spec: dict[str, Any] = {
        "name": run.model.name,
        "num_classes": data.num_classes,
        "image_shape": list(data.image_shape),
    }
    if run.model.width is not None:
        spec["width"] = run.model.width
    if run.model.activation != "relu":
        spec["activation"] = run.model.activation
    mean, std = STATS[run.data.name] if run.data.name in STATS else statistics(data)
    return spec | {"mean": list(mean), "std": list(std)}


@contextmanager
def seeded_torch(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's random generators are seeded; afterwards they are as they were.

    Example:
        >>> with seeded_torch(3, torch.device("cpu")):
        ...     first = torch.rand(1)
        >>> with seeded_torch(3, torch.device("cpu")):
        ...     bool(first == torch.rand(1))
        True
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def try_model(model: nn.Module, held_out: ImageSet, *, num_classes: int, channels_last: bool) -> None:
    """Put a model into the memory format it is trained in, and try it on a few images.

    Args:
        model: on its device; converted in place.
        held_out: the images to try it on are the first of these.
        num_classes: K, the number of logits it has to give.
        channels_last: memory format of images and weights.

    Raises:
        UserError: the model is none of images in [0, 1] to logits (B, K), or cannot be trained in this memory format.

    Example:
        >>> data = from_tensors(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> try_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), data, num_classes=2, channels_last=False)
    """
    images = as_float(held_out.images[:4]).to(training_device(model))
    if channels_last:
        model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    try:
        models.check_model(model, images, num_classes)
        models.check_training(model, images, num_classes)
    except (RuntimeError, UserError) as error:
        if channels_last and ".reshape" in str(error):
            raise UserError(
                "the model calls .view() on its activations, which channels-last memory does not allow: "
                "set compute.channels_last to false, or use .reshape() there"
            ) from error
        raise
