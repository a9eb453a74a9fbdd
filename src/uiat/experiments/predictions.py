"""Predictions of several runs on the same images, for the report."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from uiat.attacks import PGD
from uiat.config.schema import Run, is_own_data, is_own_model
from uiat.data import Folder, ImageSet, Subsample, as_float, take_images
from uiat.errors import UserError
from uiat.evaluation.registry import attack
from uiat.experiments.output_files import EXAMPLES
from uiat.inverse import load_generator, load_inverse
from uiat.models.modes import frozen
from uiat.report import RunFiles, Sample, Samples
from uiat.runs import checkpoint
from uiat.runs.reader import CHECKPOINT_FILE, EVALUATION_STATE_FILE, GENERATOR_FILE, INVERSE_FILE, WEIGHTS_FILES
from uiat.runs.settings import read_evaluated
from uiat.system.tensor_files import read_tensors
from uiat.threat import Threat, parse
from uiat.training.device import pick_device
from uiat.training.test_set import open_lasting_test_set

ATTACK = "pgd-20"
INVERSE_STEPS = 10  # of the inverse attack, for runs without perturbations or a generator of their own
# Files of a run folder that hold no examples and need not be opened to know that.
OTHERS = {*WEIGHTS_FILES.values(), CHECKPOINT_FILE, INVERSE_FILE, GENERATOR_FILE, EVALUATION_STATE_FILE}


def predict(
    files: RunFiles,
    *,
    images: int,
    shown: int,
    root: str | None = None,
    device: str | None = None,
    own_code: bool = False,
) -> Samples:
    """Return the predictions of the best weights of a run on some test images, those that an evaluation takes.

    Adversarial images are those that `uiat evaluate --save-examples` left in the run folder, or of PGD-20. Inverse ones
    are made with the run's universal perturbations, or else by PGD that lowers the loss, in half the radius.

    Args:
        files: contents of the run folder.
        images: number of images to predict, for the confusion under attack.
        shown: number of images to keep as pictures, of different classes where there are enough; of each class one that
            the model has right and the attack turns, where there is one.
        root: folder of the data sets; that of the run by default.
        device: device to compute on; that of the run by default.
        own_code: let the run name Python code that builds the model.

    Raises:
        UserError: weights or data that are not there or do not fit, no threat model, or code that was not allowed.

    Example:
        >>> predict(RunFiles(Path("missing-run"), {}), images=5, shown=2)
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    run, _ = read_evaluated(files.folder)
    for what, name, own in (("model", run.model.name, is_own_model), ("data set", run.data.name, is_own_data)):
        if own(run) and not own_code:
            raise UserError(f"its {what} is code, {name!r}: allow it with --own-code")
    data, sample = take_images(_open_test_set(run, files.folder, root, own_code), images)
    where = pick_device(device or run.compute.device)
    model = checkpoint.load(files.folder, own_code=own_code).to(where).eval()
    threat = _read_threat(files, run)
    x_adv, attacked = _adversarial(files.folder, model, (data, sample), threat, where, run.evaluation.batch_size)
    answers = _answers(model, x_adv.to(where), run.evaluation.batch_size)
    confusion = torch.zeros(data.num_classes, data.num_classes, dtype=torch.int64)
    confusion.index_put_(
        (data.labels, answers.argmax(dim=1)), torch.ones(len(data), dtype=torch.int64), accumulate=True
    )
    right = _answers(model, as_float(data.images).to(where), run.evaluation.batch_size).argmax(dim=1) == data.labels
    chosen = _chosen(data.labels, shown, telling=right & (answers.argmax(dim=1) != data.labels))
    x, y = as_float(data.images)[chosen], data.labels[chosen]
    x_inv, helped = _inverse(files.folder, model, x.to(where), y.to(where), threat)
    pictures = {"natural": x, "adversarial": x_adv[chosen].cpu(), "inverse": x_inv.cpu()}
    said = {kind: _answers(model, z.to(where), len(z) or 1).max(dim=1) for kind, z in pictures.items()}
    cards = [
        Sample(
            index=int(sample.index[chosen[i]]),
            label=int(y[i]),
            images={kind: z[i] for kind, z in pictures.items()},
            predicted={kind: (int(best.indices[i]), float(best.values[i])) for kind, best in said.items()},
        )
        for i in range(len(chosen))
    ]
    return Samples(data.classes, attacked, helped, cards, confusion.tolist())


def _open_test_set(run: Run, folder: Path, root: str | None, own_code: bool) -> ImageSet | Folder:
    """Open the test images of a run; a report reads, so it downloads nothing into a folder that a run names."""
    try:
        return open_lasting_test_set(run, folder, root=root, own_code=own_code, download=False)
    except UserError as error:
        told = str(error).replace("or allow the download", "or `uiat evaluate --data.root DIR` downloads it")
        raise UserError(told) from None


def _read_threat(files: RunFiles, run: Run) -> Threat:
    """Return the threat model of the evaluation, so that the pictures belong to it; otherwise that of training."""
    if files.evaluation is not None:
        return parse(str(files.evaluation["threat"]))
    if run.threat is None:
        raise UserError("it was trained without a threat model and not evaluated: there is nothing to attack it with")
    return run.threat


def _adversarial(
    folder: Path, model: nn.Module, taken: tuple[ImageSet, Subsample], threat: Threat, where: torch.device, size: int
) -> tuple[Tensor, str]:
    data, sample = taken
    saved = _saved(folder, data, sample, threat)
    if saved is not None:
        return saved
    settings = attack(ATTACK, threat=threat)
    assert isinstance(settings, PGD)  # as its name says
    source = torch.Generator(where).manual_seed(0)
    x = as_float(data.images)
    return _batched(lambda a, b: settings(model, a, b, generator=source), x, data.labels, where, size), ATTACK.upper()


def _saved(folder: Path, data: ImageSet, sample: Subsample, threat: Threat) -> tuple[Tensor, str] | None:
    for path in sorted(folder.glob("*.safetensors")):
        if path.name in OTHERS or path.name.startswith(Path(EVALUATION_STATE_FILE).stem):
            continue
        tensors, meta = read_tensors(path)
        same = meta.get("kind") == EXAMPLES and meta.get("data") == data.name
        if not same or parse(str(meta.get("threat"))).norm != threat.norm:
            continue
        x_adv, y = tensors.get("x_adv"), tensors.get("y")
        if x_adv is None or y is None or x_adv.shape[1:] != data.images.shape[1:]:
            continue
        # Files of version 0.1 do not say which images they hold: the first.
        rows = _find_rows(tensors.get("index", torch.arange(len(y))), sample.index)
        if rows is not None and torch.equal(y[rows], data.labels):
            return x_adv[rows].float(), f"examples in {path.name}, {meta.get('threat')}"
    return None


def _find_rows(there: Tensor, wanted: Tensor) -> Tensor | None:
    """Return the place of each wanted position among those that are there; None where one is missing."""
    place = {position: row for row, position in enumerate(there.tolist())}
    if not all(position in place for position in wanted.tolist()):
        return None
    return torch.tensor([place[position] for position in wanted.tolist()], dtype=torch.int64)


def _inverse(folder: Path, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> tuple[Tensor, str]:
    if (folder / INVERSE_FILE).is_file():
        z = load_inverse(folder)
        return z(x, y), "the universal perturbation of the true class"
    if (folder / GENERATOR_FILE).is_file():
        return load_generator(folder).to(x.device)(x, y), "the run's generator, for the true class"
    radius = float(threat.epsilon) / 2
    step = PGD(threat=type(threat)(radius), step_size=radius / 4, steps=INVERSE_STEPS, start="none", descend=True)
    return step(model, x, y), f"PGD-{INVERSE_STEPS} that lowers the loss, in half the radius"


def _batched(f: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, where: torch.device, size: int) -> Tensor:
    pairs = zip(x.split(size), y.split(size), strict=True)
    return torch.cat([f(a.to(where), b.to(where)).detach().cpu() for a, b in pairs])


def _answers(model: nn.Module, x: Tensor, size: int) -> Tensor:
    """Probabilities (n, k)."""
    with torch.no_grad(), frozen(model, batchnorm="eval"):
        return torch.cat([model(part).float().softmax(dim=1).cpu() for part in x.split(size)])


def _chosen(y: Tensor, count: int, *, telling: Tensor) -> Tensor:
    """Return the places of an image of each class, then of others, up to a number: those that an attack turns first."""
    order = sorted(range(len(y)), key=lambda i: not telling[i])  # a stable sort
    first = [next(i for i in order if y[i] == label) for label in y.unique()]
    rest = [i for i in order if i not in set(first)]
    return torch.tensor(sorted((first + rest)[:count]), dtype=torch.int64)
