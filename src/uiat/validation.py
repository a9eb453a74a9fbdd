"""How a run is judged while it trains: on images held out of the training set, by a metric that selects its weights."""

import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from uiat.config import Run
from uiat.data import ImageSet, as_float
from uiat.evaluation import attack, correct_under


def validate(model: nn.Module, held_out: ImageSet, *, run: Run) -> dict[str, float]:
    """Accuracy on held-out images: "clean", "robust" under PGD where the run has a threat model, and the seconds taken.

    The random starts come from the run's seed alone, so the same images meet the same attack in every epoch.

    Example:
        >>> import torch
        >>> from uiat.data import from_tensors
        >>> held_out = from_tensors(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> sorted(validate(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), held_out, run=Run()))
        ['clean', 'robust', 'validation_seconds']
    """
    start = time.perf_counter()
    device = next(model.parameters()).device
    x, y = as_float(held_out.images).to(device), held_out.labels.to(device)
    clean = correct_under(model, x, y, None)
    row = {"clean": clean.double().mean().item()}
    if (threat := run.threat) is not None:
        pgd = attack(f"pgd-{run.validation.steps}", threat=threat)
        right = correct_under(model, x, y, pgd, among=clean, seed=run.seed)
        row["robust"] = right.double().mean().item()
    return row | {"validation_seconds": time.perf_counter() - start}


def metric(row: Mapping[str, Any], name: str) -> float | None:
    """The value a run is selected by, from an epoch's row; robust accuracy falls back to clean without a threat model.

    Example:
        >>> metric({"clean": 0.8, "robust": 0.4}, "mean")
        0.6000000000000001
    """
    clean, robust = row.get("clean"), row.get("robust", row.get("clean"))
    if clean is None or robust is None:
        return None
    return float({"clean": clean, "robust": robust, "mean": (clean + robust) / 2}[name])
