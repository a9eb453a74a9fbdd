"""Validation during training, on images held out of the training set, and the metric that selects the best weights."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from uiat.attacks.random_numbers import keys
from uiat.config.schema import Run
from uiat.data import ImageSet, as_float, choose_subsample
from uiat.evaluation import attack, correct_under
from uiat.evaluation.engine.attack_target import exact_inference
from uiat.objectives.abilities import is_single_step
from uiat.objectives.grad_align import alignment
from uiat.system.distributed import current_rank
from uiat.threat import Threat

# Held-out images whose gradient alignment is measured: a standard error of 0.07 at most, for 800 forward passes, where
# the rest of a validation takes 1,000 and, for each correctly classified image, 21: about a tenth more.
ALIGNED = 200


def validate(model: nn.Module, held_out: ImageSet, *, run: Run) -> dict[str, float]:
    """Measure accuracy on held-out images: "clean", "robust" under PGD if the run has a threat model, and the seconds.

    Where `validation.metric` is "worst-class", also "worst_class", the lowest robust accuracy of a class.

    For single-step runs also "alignment", the mean cosine of `uiat.objectives.grad_align` on 200 of them: it
    falls when such a run overfits catastrophically, which weights of two epochs do not show. It takes about a tenth of
    the seconds.

    Each of several processes evaluates its own images. The random starts come from the run's seed alone, so the same
    images meet the same attack in every epoch.

    Args:
        model: maps images in [0, 1] to logits; its mode is left as it was.
        held_out: images that are not trained on.
        run: its threat model, objective, seed and `validation.steps`.

    Example:
        >>> import torch
        >>> from uiat.data import from_tensors
        >>> held_out = from_tensors(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> sorted(validate(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), held_out, run=Run()))
        ['clean', 'robust', 'validation_seconds']
    """
    start = time.perf_counter()
    device = next(model.parameters()).device
    index = current_rank().index(len(held_out))
    x, y = as_float(held_out.images[index]).to(device), held_out.labels[index].to(device)

    def accuracy(correct: Tensor) -> float:
        return current_rank().total(correct.double().sum()).item() / len(held_out)

    clean = correct_under(model, x, y, None, classes=held_out.num_classes)
    row = {"clean": accuracy(clean)}
    if (threat := run.threat) is not None:
        pgd, classes = attack(f"pgd-{run.validation.steps}", threat=threat), held_out.num_classes
        robust = correct_under(model, x, y, pgd, mask=clean, seed=run.seed, index=index, classes=classes)
        row["robust"] = accuracy(robust)
        if run.validation.metric == "worst-class":
            row["worst_class"] = _lowest_by_class(robust, held_out.labels[index], held_out)
        if is_single_step(run.objective):
            chosen = choose_subsample(held_out.labels, ALIGNED, num_classes=held_out.num_classes).index
            few = torch.isin(index, chosen)
            cosines = _sum_alignment(model, x[few], y[few], threat, seed=run.seed, index=index[few])
            row["alignment"] = current_rank().total(cosines).item() / min(ALIGNED, len(held_out))
    return row | {"validation_seconds": time.perf_counter() - start}


def _lowest_by_class(correct: Tensor, y: Tensor, held_out: ImageSet) -> float:
    """Return the lowest accuracy of a class among the held-out images of all processes."""
    classes = held_out.num_classes
    hits = current_rank().total(torch.bincount(y[correct.to(y.device)], minlength=classes).double())
    total = torch.bincount(held_out.labels, minlength=classes)
    return float((hits[total > 0] / total[total > 0]).min())


def _sum_alignment(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, seed: int, index: Tensor) -> Tensor:
    """Return the sum of the gradient alignments of this process's images, of which there may be none."""
    if len(x) == 0:
        return torch.zeros((), dtype=torch.float64)
    with exact_inference(model):
        return alignment(model, x, y, threat, key=keys(seed, index).to(x.device)).double().sum()


def selection_metric(row: Mapping[str, Any], name: str) -> float | None:
    """Return the value that selects a run's best weights, from the measurements of an epoch.

    Args:
        row: measurements of the epoch; "robust" falls back to "clean" without a threat model.
        name: "clean", "robust", "mean" of the two, or "worst-class", the robust accuracy of the class that has the
            lowest.

    Returns:
        None for an epoch without validation.

    Example:
        >>> selection_metric({"clean": 0.8, "robust": 0.4}, "mean")
        0.6000000000000001
    """
    if name == "worst-class" and "worst_class" in row:
        return float(row["worst_class"])
    clean, robust = row.get("clean"), row.get("robust", row.get("clean"))
    if clean is None or robust is None:
        return None
    return float({"clean": clean, "robust": robust, "mean": (clean + robust) / 2}.get(name, robust))
