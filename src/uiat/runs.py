"""From the settings of a run to what it needs: data, the model's arguments, a device, a folder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uiat import text
from uiat.config import Data, Run
from uiat.data import (
    STATS,
    Folder,
    ImageSet,
    as_float,
    from_dataset,
    from_tensors,
    open_data,
    split_validation,
    statistics,
    stratified_subset,
)
from uiat.environment import environment
from uiat.errors import UserError
from uiat.files import write_json, write_text


def as_image_set(data: ImageSet | tuple[Tensor, Tensor] | Any) -> ImageSet:
    """An `ImageSet` from what users have: one already, a pair of tensors, or a torch Dataset.

    Example:
        >>> len(as_image_set((torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))))
        4
    """
    if isinstance(data, ImageSet):
        return data
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return from_tensors(*data)
    return from_dataset(data)


def datasets(data: Data, seed: int) -> tuple[ImageSet | Folder, ImageSet]:
    """The training images of a run and those it is validated on, held out of the training set.

    Example:
        >>> training_set, held_out = datasets(Data(name="digits", validation=100), 0)
        >>> len(held_out)
        100
    """
    whole = open_data(data.name, "train", root=data.root, image_size=data.image_size)
    training_set, held_out, _ = split_validation(whole, size=data.validation, seed=seed)
    if data.subset is not None:
        training_set = stratified_subset(training_set, data.subset, seed=seed)
    return training_set, held_out


def model_spec(run: Run, data: ImageSet | Folder) -> dict[str, Any]:
    """The arguments of `models.build` for a run: the data's statistics become the model's first layer.

    Example:
        >>> model_spec(Run(), datasets(Data(), 0)[0])["image_shape"]
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


def pick_device(name: str) -> torch.device:
    """The device a name stands for; "auto" is a GPU where there is one.

    Raises:
        UserError: no such device on this machine.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def make_folder(run: Run, run_dir: str | Path | None) -> Path:
    """Make the run's folder, never one that exists, and write config.yaml and environment.json.

    Raises:
        UserError: the folder exists or cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_folder(Run(), Path(folder) / "mine").name
        'mine'
    """
    numbered = (Path("runs") / (run.name if i == 1 else f"{run.name}-{i}") for i in range(1, 100_000))
    folder = Path(run_dir) if run_dir is not None else next(path for path in numbered if not path.exists())
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise UserError(f"{folder} exists and is never overwritten: choose another, or go on with --resume") from None
    except OSError as error:
        raise UserError(f"cannot make the run folder {folder}: {error.strerror}") from None
    write_text(folder / "config.yaml", text.dump(run))
    write_json(folder / "environment.json", environment())
    return folder


def read_run(folder: Path) -> Run:
    """The settings of a run folder.

    Example:
        >>> read_run(Path("missing-run"))
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.yaml")
    return text.load(path.read_text(), source=str(path))


def held_out_images(held_out: ImageSet, device: torch.device) -> Tensor:
    """A few images to try a model on.

    Example:
        >>> data = from_tensors(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> held_out_images(data, torch.device("cpu")).shape
        torch.Size([4, 1, 8, 8])
    """
    return as_float(held_out.images[:4]).to(device)
