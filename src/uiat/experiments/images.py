"""The images of an evaluation: which of them are taken, how labels are matched, and what stays out of memory."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from uiat.config.schema import Run
from uiat.data import Folder, ImageSet, Stream, Subsample, choose_subsample, open_stream, take_images
from uiat.errors import UserError
from uiat.experiments.options import EvaluateOptions
from uiat.runs.own_files import AllowOwnCode
from uiat.runs.reader import WEIGHTS_FILES
from uiat.system.tensor_files import read_metadata
from uiat.training.setup import open_split
from uiat.training.test_set import open_lasting_test_set, open_test_set

AnyImages = ImageSet | Folder | Stream
LARGE_BYTES = 2**30  # of an image folder's pixels as floats, beyond which it is streamed


def choose_images(options: EvaluateOptions, run: Run) -> tuple[AnyImages, Subsample]:
    """Open the test images that the options name, or the run, and take as many as are asked for.

    Those of an image folder that is large are not decoded yet.

    Raises:
        UserError: as for `uiat.data.open_data` and `open_test_set`; fewer images than asked for; images that pass by
            once where several passes are asked for.

    Example:
        >>> images, sample = choose_images(EvaluateOptions(data="digits", n=5), Run())
        >>> len(images), sample.text
        (5, 'the first of 539')
    """
    data, n = _open(options, run), options.n or run.evaluation.n
    if isinstance(data, Stream):
        _refuse_passes(options, data.name)
        sample = Subsample(torch.arange(0), None, "all" if n is None else "first")
        return (data if n is None else data.first(n)), sample
    if options.n is not None and options.n > len(data):
        raise UserError(
            f"--n {options.n} is more than the {len(data)} test images of {data.name}; leave it out for all"
        )
    if not isinstance(data, Folder) or _passes(options):
        return take_images(data, n)
    sample = choose_subsample(data.labels, n, num_classes=data.num_classes)
    part = data if n is None else data.subset(sample.index)
    return (part if _is_large(part) else part.decode()), sample


def _open(options: EvaluateOptions, run: Run) -> AnyImages:
    if options.data is None:
        own_code: AllowOwnCode = "changed" if options.changed_code else options.own_code
        return open_test_set(run, options.run or Path(), root=options.root, own_code=own_code)
    other = options.run is None or options.data != run.data.name
    size = options.image_size if other else run.data.image_size
    return open_split(replace(run.data, name=options.data, image_size=size), "test", root=options.root, own_code=True)


def _passes(options: EvaluateOptions) -> list[str]:
    """Return the options that need all images in memory."""
    names = ("epsilons", "norms", "corruptions", "save_examples")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) is not None]
    return given + ["--calls"] * (options.calls > 1)


def _refuse_passes(options: EvaluateOptions, name: str) -> None:
    if given := _passes(options):
        raise UserError(f"{name} yields its images once, and {' and '.join(given)} need them again: return tensors")


def _is_large(data: Folder) -> bool:
    return 4 * data.num_bytes > LARGE_BYTES


def stream_large(images: AnyImages) -> ImageSet | Stream:
    """Return images as they are evaluated: those of a large folder as a stream.

    Example:
        >>> from uiat.data import load
        >>> type(stream_large(load("digits", "test"))).__name__
        'ImageSet'
    """
    return open_stream(images) if isinstance(images, Folder) else images


def trained_classes(folder: Path, which: str) -> list[str]:
    """Return the names of the classes that a run was trained on; none where its weights do not say (version 0.1)."""
    names = read_metadata(folder / WEIGHTS_FILES[which]).get("classes")
    return [str(name) for name in names] if isinstance(names, list) else []


def note_size(images: AnyImages, folder: Path, which: str) -> list[str]:
    """Say so where the images have another shape than those that a run was trained on."""
    trained = tuple(read_metadata(folder / WEIGHTS_FILES[which])["model"]["image_shape"])
    if trained == tuple(images.image_shape):
        return []
    then, now = (" x ".join(map(str, shape)) for shape in (trained, images.image_shape))
    return [f"the images of {images.name} are {now}, and the run was trained on {then}"]


def match_classes(images: AnyImages, trained: Sequence[str], folder: Path) -> tuple[AnyImages, list[str]]:
    """Number the labels as in training, by the names of the classes, and say so where their order is another one.

    Raises:
        UserError: there are other names; numbers in place of names, as tensors have them, say nothing.

    Example:
        >>> images = ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), ("b", "a"), "example")
        >>> match_classes(images, ["a", "b"], Path("runs/mine"))[0].labels
        tensor([1, 0])
    """
    numbers = [str(label) for label in range(images.num_classes)]
    if list(images.classes) == list(trained) or numbers in (list(images.classes), list(trained)) or not trained:
        return images, []
    if not images.classes:  # a stream that does not name them
        return images, []
    if sorted(images.classes) != sorted(trained):
        pairs = [f"{then!r} is {now!r} here" for then, now in zip(trained, images.classes, strict=False) if then != now]
        raise UserError(
            f"{folder} was trained on other classes than {images.name} has: {', '.join(pairs[:3])}; name them as in "
            f"training ({', '.join(trained[:5])}{', ...' if len(trained) > 5 else ''})"
        )
    if isinstance(images, Stream):
        raise UserError(f"{images.name} has the classes of {folder} in another order: yield labels in that of training")
    place = torch.tensor([list(trained).index(name) for name in images.classes])
    mapped = replace(images, labels=place[images.labels], classes=tuple(trained))
    return mapped, [f"the classes of {images.name} are in another order than in training: labels are matched by name"]


def evaluated_images(
    run: Run, *, folder: Path = Path(), n: int | None = None, root: str | None = None, own_code: bool = False
) -> ImageSet:
    """Return n test images of a run's data set, as `take_images` does; all by default, or where there are fewer.

    Example:
        >>> len(evaluated_images(Run(), n=5))
        5
    """
    return take_images(open_lasting_test_set(run, folder, root=root, own_code=own_code), n)[0]
