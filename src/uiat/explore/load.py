"""Load the models of run folders and test images that all of them can answer on."""

from collections.abc import Sequence
from pathlib import Path

from uiat.config.schema import Run, is_own_data, is_own_model
from uiat.data import ImageSet
from uiat.data.split import stratified_order
from uiat.errors import UserError
from uiat.explore.answers import Explorer, Subject
from uiat.inverse import load_inverse
from uiat.runs import checkpoint
from uiat.runs.reader import INVERSE_FILE, WEIGHTS_FILES
from uiat.runs.settings import read_evaluated
from uiat.threat import Threat
from uiat.training.device import pick_device
from uiat.training.test_set import open_lasting_test_set

MOST_RUNS = 8  # models side by side on the page
MOST_IMAGES = 200


def load_explorer(
    folders: Sequence[str | Path],
    *,
    n: int = 20,
    threat: Threat | None = None,
    root: str | None = None,
    device: str | None = None,
    own_code: bool = False,
) -> Explorer:
    """Load the best weights of runs, and test images of the first run's data, as many of each class as there can be.

    Args:
        folders: run folders whose models take the same images and know the same classes.
        n: number of images to choose from.
        threat: the ball that images are moved in; that of the first run that has one by default.
        root: folder of the data sets; that of the run by default.
        device: device to compute on; that of the first run by default.
        own_code: let the runs name Python code that builds their model or their data.

    Raises:
        UserError: no run or one twice, runs of other images or classes, data that is not there, no threat model.

    Example:
        >>> load_explorer([])
        Traceback (most recent call last):
        uiat.errors.UserError: name 1 to 8 run folders to explore, not 0
    """
    paths = [Path(folder) for folder in folders]
    if not 1 <= len(paths) <= MOST_RUNS:
        raise UserError(f"name 1 to {MOST_RUNS} run folders to explore, not {len(paths)}")
    if twice := next((path for i, path in enumerate(paths) if path.resolve() in _resolved(paths[:i])), None):
        raise UserError(f"{twice} is named twice")
    runs = [read_evaluated(path)[0] for path in paths]
    for path, run in zip(paths, runs, strict=True):
        _check_own_code(path, run, own_code)
    images = _images(runs[0], paths[0], n, root, own_code)
    where = pick_device(device or runs[0].compute.device)
    subjects = []
    for path, name in zip(paths, _names(paths), strict=True):
        _check_same(path, paths[0], images)
        inverse = load_inverse(path) if (path / INVERSE_FILE).is_file() else None
        subjects.append(Subject(name, checkpoint.load(path, own_code=own_code).to(where).eval(), inverse))
    chosen = threat or next((run.threat for run in runs if run.threat is not None), None)
    if chosen is None:
        raise UserError("no run was trained for a threat model: give one, such as --threat Linf:8/255")
    return Explorer(subjects, images, chosen, where)


def _resolved(paths: Sequence[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the names of the folders, or their whole paths where two have one name."""
    names = [path.resolve().name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def _check_own_code(folder: Path, run: Run, own_code: bool) -> None:
    for what, name, own in (("model", run.model.name, is_own_model), ("data set", run.data.name, is_own_data)):
        if own(run) and not own_code:
            raise UserError(f"the {what} of {folder} is code, {name!r}: allow it with --own-code")


def _images(run: Run, folder: Path, n: int, root: str | None, own_code: bool) -> ImageSet:
    """Return test images, class by class; nothing is downloaded."""
    data = open_lasting_test_set(run, folder, root=root, own_code=own_code, download=False)
    if not 1 <= n <= MOST_IMAGES:
        raise UserError(f"the page shows 1 to {MOST_IMAGES} images, not {n}")
    order = stratified_order(data.labels, num_classes=data.num_classes, seed=0)[:n]
    return data.subset(order[data.labels[order].argsort(stable=True)]).decode()


def _check_same(folder: Path, first: Path, images: ImageSet) -> None:
    """Refuse a model that was trained on images of another shape, or on other classes, than the first one."""
    spec = checkpoint.read_weights(folder / WEIGHTS_FILES["best"])[1]
    shape, count = tuple(spec["model"]["image_shape"]), spec["model"]["num_classes"]
    if (shape, count) != (images.image_shape, images.num_classes):
        raise UserError(
            f"{folder} takes images of shape {shape} in {count} classes, and the test images of {first} have shape "
            f"{images.image_shape} and {images.num_classes} classes: explore runs of the same data"
        )
    names = [str(name) for name in spec.get("classes") or images.classes]
    if names != list(images.classes):
        raise UserError(f"{folder} was trained on other classes than those of {first}, or on the same in another order")
