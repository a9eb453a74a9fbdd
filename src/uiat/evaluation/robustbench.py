"""Records of results and dictionaries of models as RobustBench has them (Croce et al. 2021, arXiv:2010.09670)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from uiat.checks import checked
from uiat.data import ImageSet, as_float, choose_subsample, load
from uiat.errors import UserError, nearest
from uiat.evaluation.evaluator import evaluate
from uiat.evaluation.result import EvaluationResult
from uiat.formatting import is_doubtful, whole_255ths
from uiat.models import build
from uiat.models.weights_file import load_weights
from uiat.threat import Threat, parse

STANDARD = "autoattack"  # the only attack whose accuracy may be called "autoattack_acc"
Data = str | ImageSet | tuple[Tensor, Tensor]


@checked
def entry(
    result: EvaluationResult | Mapping[str, Any],
    *,
    dataset: str,
    name: str = "",
    link: str = "",
    authors: str = "",
    venue: str = "",
    architecture: str = "",
    reported: str = "",
    footnote: str = "",
    additional_data: bool = False,
    number_forward_passes: int = 1,
    unreliable: bool = False,
) -> dict[str, Any]:
    """Return a result as a record of RobustBench's `model_info`: accuracies in percent as text, the radius as text.

    "autoattack_acc" is there only where the standard ensemble was run.

    Args:
        result: the result of `evaluate`, or the content of an evaluation.json.
        dataset: name of the data set, such as "cifar10".
        name: title of the paper.
        link: address of the paper.
        authors: names of the authors, with commas.
        venue: conference or journal and year.
        architecture: name of the architecture, such as "WideResNet-28-10".
        reported: robust accuracy that the authors report, in percent.
        footnote: what a reader should know.
        additional_data: True if further data was trained on.
        number_forward_passes: number of forward passes of a prediction.
        unreliable: True if the number should not be believed; set too where the result's verdict says so.

    Example:
        >>> result = EvaluationResult("Linf:0.03137255", 100, {"clean": 0.8, "autoattack": 0.45}, {}, [], 0)
        >>> record = entry(result, dataset="cifar10", architecture="WideResNet-28-10")
        >>> record["eps"], record["clean_acc"], record["autoattack_acc"]
        ('8/255', '80.00', '45.00')
    """
    facts = result.to_json() if isinstance(result, EvaluationResult) else result
    accuracy, threat = facts["accuracy"], parse(str(facts["threat"]))
    record = {
        "link": link,
        "name": name,
        "authors": authors,
        "additional_data": additional_data,
        "number_forward_passes": number_forward_passes,
        "dataset": dataset,
        "venue": venue,
        "architecture": architecture,
        "eps": _radius(threat),
        "clean_acc": f"{100 * accuracy['clean']:.2f}",
        "reported": reported,
    }
    if STANDARD in accuracy:
        record["autoattack_acc"] = f"{100 * accuracy[STANDARD]:.2f}"
    doubtful = is_doubtful(str(facts.get("verdict") or ""))
    return record | {"unreliable": unreliable or doubtful, "footnote": footnote}


def _radius(threat: Threat) -> str:
    """Return a radius as RobustBench writes it: Linf in 255ths wherever it is a whole number of them, 0.2 too."""
    epsilon = float(threat.epsilon)
    pixels = whole_255ths(epsilon) if threat.norm == "Linf" else None
    return f"{pixels}/255" if pixels else f"{epsilon:.7g}"


@checked
def zoo_model(
    models: Mapping[str, Mapping[str, Any]],
    name: str,
    *,
    weights: str | Path | Sequence[str | Path] | None = None,
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (3, 32, 32),
) -> nn.Module:
    """Build a model of a dictionary such as RobustBench's, {name: {"model": ..., "gdrive_id": ...}}, in eval mode.

    Nothing is downloaded: a "gdrive_id" is not looked at, and the weights are a file of yours. A model that
    normalises its images does so itself.

    Args:
        models: entries by name; "model" is a module, a function or class without arguments, or the name of a model as
            `uiat.models.build` takes it, such as "file.py:function".
        name: name of the entry.
        weights: weights file, see `uiat.models.weights_file.load_weights`; several files for an ensemble, whose parts
            are the model's `models`.
        num_classes: number of classes, for a model that is built by name.
        image_shape: (channels, height, width), likewise.

    Raises:
        UserError: no such model, an entry that names none, weights that do not fit.

    Example:
        >>> models = {"Mine2026": {"model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "gdrive_id": "x"}}
        >>> zoo_model(models, "Mine2026").training
        False
    """
    if name not in models:
        raise nearest("model", name, map(str, models))
    model = _build(models[name], name, num_classes=num_classes, image_shape=image_shape)
    if isinstance(weights, str | Path):
        load_weights(model, weights)
    elif weights is not None:
        parts = getattr(model, "models", None)
        if not isinstance(parts, Sequence | nn.ModuleList) or len(parts) != len(weights):
            raise UserError(f"{name}: {len(weights)} files of weights need a model with as many parts, its `models`")
        for part, path in zip(parts, weights, strict=True):
            load_weights(part, path)
    return model.eval()


def _build(entry: Mapping[str, Any], name: str, *, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    if not isinstance(entry, Mapping) or "model" not in entry:
        raise UserError(f'{name}: the entry must be a dictionary with a "model"')
    source: nn.Module | str | Callable[[], Any] = entry["model"]
    if isinstance(source, str):
        return build(source, num_classes=num_classes, image_shape=image_shape)
    model = source if isinstance(source, nn.Module) else source() if callable(source) else None
    if not isinstance(model, nn.Module):
        raise UserError(f"{name}: its model is a {type(source).__name__} that gives no torch.nn.Module")
    return model


@checked
def evaluate_zoo(
    models: Mapping[str, Mapping[str, Any]],
    name: str,
    *,
    weights: str | Path | Sequence[str | Path] | None = None,
    data: Data | None = None,
    threat: Threat | None = None,
    n: int | None = None,
    root: str | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> EvaluationResult:
    """Evaluate a model of such a dictionary; its data set and threat model may be named in the entry.

    Args:
        models: see `zoo_model`.
        name: name of the entry.
        weights: see `zoo_model`.
        data: "cifar10" or the like, an ImageSet, or images and labels; by default the entry's "data".
        threat: the threat model; by default the entry's "threat", such as "Linf:8/255".
        n: number of images, the first of the test set, or a stratified sample where it lies class by class; by
            default all.
        root: folder of the data sets.
        num_classes: number of classes, for a model by name on images and labels, which do not say; by default the
            entry's "num_classes".
        options: other arguments of `evaluate`.

    Raises:
        UserError: as `zoo_model` and `evaluate`, or no data, or no threat model, or no number of classes.

    Example:
        >>> from uiat.threat import Linf
        >>> models = {"Mine2026": {"model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "data": "digits"}}
        >>> evaluate_zoo(models, "Mine2026", threat=Linf("8/255"), n=50, attacks=["fgsm"]).n
        50
    """
    entry = models.get(name, {})
    x, y, classes = _images(entry.get("data") if data is None else data, name, root=root)
    shape = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
    # A module or a function brings its own; labels do not tell, of which the last may be missing.
    count = num_classes or entry.get("num_classes") or classes
    if count is None and isinstance(entry.get("model"), str):
        raise UserError(f"{name}: images and labels do not say how many classes there are: give num_classes")
    model = zoo_model(models, name, weights=weights, num_classes=count or 10, image_shape=shape)
    given = entry.get("threat") if threat is None else threat
    if given is None:
        raise UserError(f'{name}: give a threat model, such as threat=Linf("8/255")')
    if n is not None and n > len(x):
        raise UserError(f"there are {len(x)} images, fewer than the {n} asked for")
    if n is not None:
        chosen = choose_subsample(y, n, num_classes=count or int(y.max()) + 1).index
        x, y = x[chosen.to(x.device)], y[chosen.to(y.device)]
    return evaluate(model, x, y, threat=parse(given) if isinstance(given, str) else given, **options)


def _images(data: Data | None, name: str, *, root: str | None) -> tuple[Tensor, Tensor, int | None]:
    if data is None:
        raise UserError(f'{name}: give the data, such as data="cifar10"')
    if isinstance(data, str):
        data = load(data, "test", root=root)
    if isinstance(data, ImageSet):
        return as_float(data.images), data.labels, data.num_classes
    x, y = data
    return x, y, None
