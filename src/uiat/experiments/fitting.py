"""The images that universal perturbations are fitted on: of the training split, apart from those that are measured."""

from collections.abc import Sequence
from pathlib import Path

from uiat.config.schema import Data, Run
from uiat.data import Folder, ImageSet, as_float, can_open, take_images
from uiat.errors import UserError
from uiat.evaluation.engine.fits import unfitted
from uiat.evaluation.engine.plan import TRANSFER, make_plan
from uiat.experiments.images import match_classes, trained_classes
from uiat.experiments.options import EvaluateOptions
from uiat.inverse.universal_attack import FitImages
from uiat.threat import Threat
from uiat.training.setup import load_datasets, open_split

MOST = 10_000  # images, as many as Moosavi-Dezfooli et al. (2017) fit on


def needs_fit(names: Sequence[str], threat: Threat) -> list[str]:
    """Return the names, of some attacks, of those that are fitted before they are measured.

    Example:
        >>> from uiat import Linf
        >>> needs_fit(["pgd-20", "uap-10"], Linf(0.1))
        ['uap-10']
    """
    return [name for name in names if name != TRANSFER and unfitted(make_plan([name], threat))]


def images_to_fit(
    options: EvaluateOptions, names: Sequence[str], threat: Threat, run: Run | None = None
) -> FitImages | None:
    """Load training images for the attacks that need them, 10,000 at most; None where no attack does.

    Those of a run are the images it was trained on, without those held out of its training; with --data, and of a model
    that is no run, they are the training split of that data set.

    Args:
        options: options of the evaluation.
        names: names of its attacks.
        threat: its threat model.
        run: settings of the run that is evaluated.

    Raises:
        UserError: the training images cannot be opened, or are a stream.

    Example:
        >>> from uiat import Linf
        >>> images_to_fit(EvaluateOptions(data="digits"), ["uap-10"], Linf(0.1)).x.shape
        torch.Size([1258, 1, 8, 8])
    """
    if not (asked := needs_fit(names, threat)):
        return None
    if run is not None and options.data in (None, run.data.name):
        if not can_open(run.data.name):
            raise UserError(f"{asked[0]} is fitted on training images, and those of {options.run} were passed to fit()")
        root = options.root or run.data.root
        data = Data(**{**vars(run.data), "root": root})
        own_code = options.own_code or options.changed_code
        images, _ = load_datasets(data, run.seed, received=options.root is None, own_code=own_code)
    else:
        images = _training_split(options, asked[0])
    part, _ = take_images(images, min(MOST, len(images)))
    if run is not None:
        folder = options.run or Path()
        matched, _ = match_classes(part, trained_classes(folder, options.which), folder)
        assert isinstance(matched, ImageSet)
        part = matched
    return FitImages(as_float(part.images), part.labels)


def _training_split(options: EvaluateOptions, attack: str) -> ImageSet | Folder:
    data = Data(name=str(options.data), image_size=options.image_size)
    images = open_split(data, "train", root=options.root, own_code=True)
    if not isinstance(images, ImageSet | Folder):
        raise UserError(f"{attack} is fitted on training images, and {images.name} yields them once: return tensors")
    return images
