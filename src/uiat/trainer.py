"""Training runs: from a recipe (`train`), from a folder (`resume`), from one's own model and data (`fit`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from uiat import checkpoint, models
from uiat.config import Compute, Data, Guards, Model, Optimisation, Run, Validation
from uiat.data import Folder, ImageSet, loader_for, split_validation
from uiat.inverse import UniversalInverse, UniversalPerturbation
from uiat.objectives import UIAT, AnyObjective, Objective
from uiat.runs import as_image_set, datasets, held_out_images, make_folder, model_spec, pick_device, read_run
from uiat.training import Listener, Training


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Args:
        model: with the best weights, in eval mode; `model.threat` is what it was trained for.
        history: a row of measurements an epoch.
        best: {"epoch": ..., "value": ...} by the run's metric.
        inverse: the universal inverse perturbations, where the method has them.
        folder: where everything lies; None if it was kept in memory.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    inverse: UniversalPerturbation | None
    folder: Path | None


def train(run: Run, *, run_dir: str | Path | None = None, listener: Listener | None = None) -> Trained:
    """Train a run in a new folder: config.yaml, environment.json, metrics.jsonl, best, last, inverse and checkpoint.

    Args:
        run: such as `recipes.get("digits-uiat")`.
        run_dir: the folder to make; `runs/NAME`, with a number where that exists, by default.
        listener: told about each step and epoch.

    Raises:
        UserError: the folder exists, or something about the run cannot be what was meant.
        NotFinite: a loss term is not finite.

    Example:
        >>> import tempfile
        >>> from uiat import override, recipes
        >>> run = override(recipes.get("digits-standard"), [("optimisation.epochs", "1"), ("model.width", "4")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained = train(run, run_dir=Path(folder) / "run")
        >>> len(trained.history)
        1
    """
    device = pick_device(run.compute.device)
    training_set, held_out = datasets(run.data, run.seed)
    with torch.random.fork_rng(devices=_cuda(device)):
        torch.manual_seed(run.seed)
        spec = model_spec(run, training_set)
        model = models.build(**spec).to(device)
        folder = make_folder(run, run_dir)
        training = _training(
            run, model, training_set, held_out, device=device, spec=spec, folder=folder, listener=listener
        )
        models.check_model(model, held_out_images(held_out, device), training_set.num_classes)
        training.fit()
    return _trained(training)


def resume(run_dir: str | Path, *, listener: Listener | None = None, own_code: bool = False) -> Trained:
    """Go on with a run that was stopped or killed, to weights bit-identical to those of an uninterrupted run.

    Args:
        run_dir: its folder.
        listener: told about each step and epoch.
        own_code: allow the folder to name code of yours to build the model with, which runs it.

    Raises:
        UserError: no run in the folder, or a damaged one.

    Example:
        >>> resume("missing-run")
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    folder = Path(run_dir)
    run = read_run(folder)
    device = pick_device(run.compute.device)
    training_set, held_out = datasets(run.data, run.seed)
    with torch.random.fork_rng(devices=_cuda(device)):
        torch.manual_seed(run.seed)
        spec = model_spec(run, training_set)
        model = checkpoint.build(spec, own_code=own_code).to(device)
        training = _training(
            run, model, training_set, held_out, device=device, spec=spec, folder=folder, listener=listener
        )
        training.resume()
        training.fit()
    return _trained(training)


def fit(
    model: nn.Module,
    train_data: ImageSet | tuple[Tensor, Tensor] | Any,
    *,
    objective: Objective | None = None,
    validation_data: ImageSet | tuple[Tensor, Tensor] | Any | None = None,
    optimisation: Optimisation | None = None,
    validation: Validation | None = None,
    guards: Guards | None = None,
    compute: Compute | None = None,
    batch_size: int = 128,
    augment: Literal["none", "crop", "crop-flip"] = "none",
    seed: int = 0,
    run_dir: str | Path | None = None,
    listener: Listener | None = None,
) -> Trained:
    """Train a model of one's own on data of one's own, with the very loop that recipes use.

    Args:
        model: maps images in [0, 1] to logits; trained in place, on the device it is on.
        train_data: an `ImageSet`, a pair (images, labels) of tensors, or any torch Dataset of such pairs.
        objective: `UIAT()` by default.
        validation_data: likewise; by default 5 % of the training set, at most 1,000 images, is held out.
        optimisation: epochs, learning rate, schedule and the rest.
        validation: how often and by what to judge.
        guards: what is watched.
        compute: precision and memory format; the device is the model's.
        batch_size: images a step.
        augment: "none", "crop" or "crop-flip".
        seed: of order, augmentation, held-out part and random starts.
        run_dir: a new folder to write weights, perturbations, metrics and checkpoints to; none by default.
        listener: told about each step and epoch.

    Raises:
        UserError: data or a model that cannot be what was meant.
        NotFinite: a loss term is not finite.

    Example:
        >>> from uiat import PGDAT
        >>> model = models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4)
        >>> x, y = torch.rand(64, 1, 8, 8), torch.arange(64) % 2
        >>> trained = fit(model, (x, y), objective=PGDAT(), optimisation=Optimisation(epochs=1), batch_size=16)
        >>> sorted(trained.best)
        ['epoch', 'value']
    """
    data = as_image_set(train_data)
    if validation_data is None:
        data, held_out, _ = split_validation(data, seed=seed)
    else:
        held_out = as_image_set(validation_data)
    settings = {"optimisation": optimisation, "validation": validation, "guards": guards, "compute": compute}
    run = Run(
        name="fit",
        seed=seed,
        data=Data(name=data.name, batch_size=batch_size, augment=augment),
        model=Model(name="custom"),
        objective=cast(AnyObjective, objective or UIAT()),
        **{name: value for name, value in settings.items() if value is not None},  # type: ignore[arg-type]
    )
    device = next(model.parameters()).device
    spec = {"name": "custom", "num_classes": data.num_classes, "image_shape": list(data.image_shape)}
    models.check_model(model, held_out_images(held_out, device), data.num_classes)
    with torch.random.fork_rng(devices=_cuda(device)):
        torch.manual_seed(seed)
        folder = None if run_dir is None else make_folder(run, run_dir)
        training = _training(run, model, data, held_out, device=device, spec=spec, folder=folder, listener=listener)
        training.fit()
    return _trained(training)


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _training(
    run: Run,
    model: nn.Module,
    training_set: ImageSet | Folder,
    held_out: ImageSet,
    *,
    device: torch.device,
    spec: Mapping[str, Any],
    folder: Path | None,
    listener: Listener | None,
) -> Training:
    if run.compute.channels_last:
        model.to(memory_format=torch.channels_last)
    loader = loader_for(
        training_set,
        batch_size=run.data.batch_size,
        augment=run.data.augment,
        device=device,
        seed=run.seed,
        channels_last=run.compute.channels_last,
        num_workers=run.data.workers,
    )
    return Training(run, model, loader, held_out, spec=spec, folder=folder, listener=listener)


def _trained(training: Training) -> Trained:
    """The best weights in the model itself, wherever they were kept."""
    model, folder = training.model, training.folder
    if folder is not None and (folder / "best.safetensors").exists():
        checkpoint.load(folder, "best", model=model)
    elif training.best_weights is not None:
        model.load_state_dict(training.best_weights)
    model.threat = training.run.threat  # type: ignore[assignment]
    z, inverse = getattr(training.step.state, "z", None), getattr(training.run.objective, "inverse", None)
    universal = None
    if z is not None and isinstance(inverse, UniversalInverse) and training.run.threat is not None:
        universal = UniversalPerturbation(z.detach().cpu(), type(training.run.threat)(inverse.radius))
    return Trained(model.eval(), training.history, training.best, universal, folder)
