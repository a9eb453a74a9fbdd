"""Check that a model and the images of an evaluation belong together."""

import math

import torch
from torch import Tensor, nn

from uiat.data import STATS, Folder, ImageSet, Stream, as_float, choose_subsample
from uiat.data.stream import CHUNK_BYTES
from uiat.errors import UserError
from uiat.evaluation.engine.stage import correct_under
from uiat.evaluation.selfcheck.model_checks import check_scale
from uiat.models.inspect import classes_of

SCALE_IMAGES = 500  # on which the scale that a model expects is found out
SCALE_FITS = 0.5  # accuracy on them above which it is the scale that the model expects


def check_fit(model: nn.Module, images: ImageSet | Folder | Stream, *, what: str = "the model") -> None:
    """Refuse images that the model cannot take, and labels that are not its classes.

    Raises:
        UserError: `what`, the name of the model in the message, does not fit the images.

    Example:
        >>> from uiat.data import load
        >>> check_fit(nn.Flatten(), load("digits", "test"))
        Traceback (most recent call last):
        uiat.errors.UserError: the model tells 64 classes apart and digits has 10: its labels do not fit
    """
    try:
        classes = classes_of(model, take_few(images, 1)[0], name=what)
    except UserError as error:  # a layer of the model says so, and does not know which of two models it is in
        message = str(error)
        raise UserError(message if what in message else message.replace("the model", what, 1)) from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{what} cannot take images of shape {images.image_shape}: {reason}") from None
    if classes != images.num_classes != 0:
        raise UserError(
            f"{what} tells {classes} classes apart and {images.name} has {images.num_classes}: its labels do not fit"
        )


def take_few(images: ImageSet | Folder | Stream, n: int) -> tuple[Tensor, Tensor]:
    """Return n images and labels, as `take_images` takes them; of a stream from its first batch, of large images fewer.

    Example:
        >>> from uiat.data import load
        >>> take_few(load("digits", "test"), 5)[0].shape
        torch.Size([5, 1, 8, 8])
    """
    n = min(n, max(1, CHUNK_BYTES // (4 * math.prod(images.image_shape))))
    if isinstance(images, Stream):
        return images.head[0][:n], images.head[1][:n]
    sample = choose_subsample(images.labels, n, num_classes=images.num_classes)
    few = images.subset(sample.index).decode()
    return as_float(few.images), few.labels


def check_scale_of(model: nn.Module, images: ImageSet | Folder | Stream) -> None:
    """Refuse a model that classifies most images correctly on another scale, and more than on [0, 1].

    Raises:
        UserError: it expects other images.

    Example:
        >>> from uiat.data import load
        >>> check_scale_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), load("digits", "test"))
    """
    x, y = take_few(images, SCALE_IMAGES)
    # What it expects, how the images come to that, what to do; and those images.
    ways = {("pixel values from 0 to 255", "multiplied by 255", "multiply in the model's first layer"): 255 * x}
    if images.name in STATS:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in STATS[images.name])
        how, what = f"normalised by mean and deviation of {images.name}", "normalise in the model's first layer"
        ways["normalised images", how, f"add --normalize, or {what}"] = (x - mean) / std
    as_is = correct_under(model, x, y, None)
    correct = {way: correct_under(model, images, y, None) for way, images in ways.items()}
    best = max(correct, key=lambda way: int(correct[way].sum()))
    gained, lost, count = ((correct[best] & ~as_is).sum(), (as_is & ~correct[best]).sum(), int(correct[best].sum()))
    # Where few are correct on any scale, something else is wrong: that is for the self-checks to say, and no refusal.
    if check_scale(best[1], int(gained), int(lost), len(x)) is not None and count > SCALE_FITS * len(x):
        raise UserError(
            f"the model expects {best[0]}: of {len(x)} it has {int(as_is.sum())} right as they are and {count} "
            f"{best[1]}; {best[2]}"
        )
