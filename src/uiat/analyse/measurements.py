"""Measurements that several studies make of a run or a model."""

import json
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.analyse.study import Context, Data, Split, StudyRun
from uiat.attacks import PGD
from uiat.attacks.gradient import input_gradient
from uiat.attacks.random_numbers import keys
from uiat.data.notices import warn_once
from uiat.evaluation.engine.stage import correct_under
from uiat.experiments.arithmetic import describe_arithmetic
from uiat.models.inspect import device_of
from uiat.models.modes import frozen
from uiat.runs.checkpoint import Which, read_weights
from uiat.runs.reader import WEIGHTS_FILES, shared_by_repeats
from uiat.runs.run_files import RunFiles, find_copies
from uiat.runs.settings import read_plain
from uiat.training.pass_count import activation_bytes, step_cost

BATCH = 250  # images at a time


def compute_logits(model: nn.Module, x: Tensor) -> Tensor:
    """Compute the logits of images, (n, k) on the CPU, in eval mode.

    Example:
        >>> compute_logits(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)).shape
        torch.Size([3, 2])
    """
    device = device_of(model)
    with torch.no_grad(), frozen(model):
        return torch.cat([model(part.to(device)).float().cpu() for part in x.split(BATCH)])


def compute_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Compute the gradient of each image's cross entropy with respect to the image, on the CPU.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> compute_gradients(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
        torch.Size([3, 1, 2, 2])
    """
    device, gradients = device_of(model), []
    with frozen(model):
        for images, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            target = labels.to(device)

            def loss(at: Tensor, target: Tensor = target) -> tuple[Tensor, Tensor]:
                logits = model(at)
                return losses.cross_entropy(logits, target), logits

            gradients.append(input_gradient(loss, images.to(device)).gradient.cpu())
    return torch.cat(gradients)


def craft(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, *, seed: int) -> Tensor:
    """Craft adversarial or inverse examples, on the CPU; each image has random numbers of its own.

    Example:
        >>> from uiat import Linf
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.full((3, 1, 2, 2), 0.5)
        >>> x_adv = craft(model, x, torch.tensor([0, 1, 0]), PGD(threat=Linf(0.1), step_size=0.1), seed=0)
        >>> round((x_adv - x).abs().max().item(), 4)
        0.1
    """
    device, examples = device_of(model), []
    for part in torch.arange(len(x)).split(BATCH):
        key = keys(seed, part).to(device)
        examples.append(attack.perturb(model, x[part].to(device), y[part].to(device), key=key).cpu())
    return torch.cat(examples)


def without_copies(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """Return the runs without copies of earlier ones, which are no seeds of their own; a warning names these.

    Example:
        >>> without_copies([])
        []
    """
    copies = find_copies([RunFiles(run.folder, read_plain(run.folder)) for run in runs])
    for copy, of in copies.items():
        warn_once(f"{copy} is passed over: it has the seed and the weights of {of}")
    return [run for run in runs if run.folder not in copies]


def group_by_seed(runs: Sequence[StudyRun]) -> dict[str, list[StudyRun]]:
    """Group runs that differ in the seed alone, as reports do, by a label of what sets each group apart."""
    from uiat.report.groups import group_runs  # late: reports need an extra

    by_folder = {run.folder: run for run in runs}
    groups = group_runs([RunFiles(run.folder, read_plain(run.folder)) for run in runs])
    return {group.label: [by_folder[each.folder] for each in group.runs] for group in groups}


def find_repeats(runs: Sequence[StudyRun]) -> dict[str, list[str]]:
    """Group the labels of runs that differ in the seed alone, under what the labels of a group have in common.

    Example:
        >>> find_repeats([])
        {}
    """
    groups: dict[str, list[str]] = {}
    for run in runs:
        settings = shared_by_repeats(read_plain(run.folder))
        groups.setdefault(json.dumps([settings, describe_arithmetic(run.config)], default=str), []).append(run.label)
    named: dict[str, list[str]] = {}
    for labels in groups.values():
        shared = re.sub(r"[-_,/= ]*(s|seed)?[-_= ]*$", "", _common_beginning(labels))
        named[labels[0] if len(labels) == 1 or not shared or shared in named else shared] = labels
    return named


def _common_beginning(labels: Sequence[str]) -> str:
    first, last = min(labels), max(labels)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def held_out_accuracy(context: Context, run: StudyRun) -> Data:
    """Measure the accuracy of a run on images held out of its training, clean and attacked, and read its seconds."""
    x, y = context.load_images(run, "held-out")
    accuracies = measure_accuracy(context.load_model(run), x, y, context.make_attack(), seed=context.options.seed)
    seconds = sum(row.get("seconds", 0.0) for row in context.read_history(run))
    return {**accuracies, "seconds": seconds}


def measure_accuracy(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, *, seed: int) -> Data:
    """Measure the fraction of images that a model gets right, as they are and attacked.

    Example:
        >>> from uiat import Linf
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.full((4, 1, 2, 2), 0.5)
        >>> y = model(x).argmax(1)
        >>> measure_accuracy(model, x, y, PGD(threat=Linf(0.0001), step_size=0.0001, steps=1), seed=0)["clean"]
        1.0
    """
    clean = correct_under(model, x, y, None)
    robust = correct_under(model, x, y, attack, mask=clean, seed=seed)
    return {"n": len(x), "clean": clean.double().mean().item(), "robust": robust.double().mean().item()}


def correct_by_split(
    context: Context, run: StudyRun, attack: PGD, splits: tuple[Split, Split], *, which: Which | None = None
) -> dict[Split, Tensor]:
    """Attack equally many images of two splits, and return a mask of those that a run's model still gets right."""
    model = context.load_model(run, which)
    images = {split: context.load_images(run, split) for split in splits}
    count = min(len(y) for _, y in images.values())
    context.sizes |= dict.fromkeys(splits, count)
    return {
        split: correct_under(model, x[:count], y[:count], attack, seed=context.options.seed)
        for split, (x, y) in images.items()
    }


def measure_step_cost(context: Context, run: StudyRun) -> Data:
    """Count passes of a step of a run's method, and the bytes it keeps: on noise, so that no data set is needed."""
    model = context.load_model(run)
    spec = read_weights(run.folder / WEIGHTS_FILES[context.options.which])[1]["model"]
    c, h, w = spec["image_shape"]
    shape, classes = (c, h, w), int(spec["num_classes"])
    cost = step_cost(run.config, model, image_shape=shape, classes=classes)
    kept = activation_bytes(run.config, model, image_shape=shape, classes=classes)
    return {**vars(cost), "passes": cost.units, "kept_bytes": kept}
