"""Accuracy of a model under common corruptions."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from uiat.checks import Count, checked
from uiat.errors import UserError
from uiat.evaluation.corruptions.kinds import KINDS, SEVERITIES, check_kinds, corrupt, strengths
from uiat.evaluation.engine.misclassified import is_misclassified
from uiat.evaluation.engine.plan import check_inputs
from uiat.evaluation.listener import Progress
from uiat.formatting import Summary, percent
from uiat.models.inspect import Target
from uiat.models.modes import frozen
from uiat.shapes import Float, Int
from uiat.system.environment import describe_environment
from uiat.system.surroundings import neutral_surroundings


@dataclass(frozen=True)
class CorruptionResult:
    """Accuracy under common corruptions, by kind and severity.

    Args:
        n: number of images.
        strengths: name of the published set of strengths, "CIFAR-10-C" or "ImageNet-C", or of the files.
        clean: fraction of the images classified correctly as they are; None for files, which do not have those.
        accuracy: the same fraction for every kind and severity.
        seconds: time of each kind.
        seed: seed of the random numbers.
        environment: versions and hardware.

    Example:
        >>> CorruptionResult(2, "CIFAR-10-C", 1.0, {"fog": {1: 1.0, 5: 0.0}, "snow": {1: 1.0, 5: 0.5}}, {}, 0).mean
        0.625
    """

    n: int
    strengths: str
    clean: float | None
    accuracy: dict[str, dict[int, float]]
    seconds: dict[str, float]
    seed: int
    environment: dict[str, Any] = field(default_factory=describe_environment)

    @property
    def by_kind(self) -> dict[str, float]:
        """The mean over the severities of each kind."""
        return {kind: sum(values.values()) / len(values) for kind, values in self.accuracy.items()}

    @property
    def mean(self) -> float:
        """The mean over kinds and severities, one minus which is the mean corruption error, not normalised."""
        return sum(self.by_kind.values()) / len(self.by_kind)

    def __repr__(self) -> str:
        return self.summary().text

    def _repr_html_(self) -> str:
        return self.summary().html

    def summary(self) -> Summary:
        """Return what `print` shows: the accuracy under each kind, the mean over its severities."""
        rows = [(kind, percent(accuracy)) for kind, accuracy in self.by_kind.items()]
        rows = [
            ("corruption", "accuracy"),
            *[("none", percent(self.clean))][: self.clean is not None],
            *rows,
            ("mean", percent(self.mean)),
        ]
        return Summary(f"common corruptions, strengths of {self.strengths}, {self.n:,} images, seed {self.seed}", rows)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the means.

        Example:
            >>> CorruptionResult(2, "CIFAR-10-C", 1.0, {"fog": {1: 1.0, 5: 0.0}}, {}, 0).to_json()["accuracy"]
            {'fog': {'1': 1.0, '5': 0.0}}
        """
        accuracy = {kind: {str(s): value for s, value in values.items()} for kind, values in self.accuracy.items()}
        return vars(self) | {"accuracy": accuracy, "by_kind": self.by_kind, "mean": self.mean}


@checked
@neutral_surroundings()
def corruption_accuracy(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, "n"],
    *,
    kinds: Sequence[str] = KINDS,
    severities: Sequence[int] = SEVERITIES,
    batch_size: Count = 500,
    seed: int = 0,
    progress: Progress | None = None,
) -> CorruptionResult:
    """Compute the accuracy of a model, in eval mode, under common corruptions, which are made as they are needed.

    Args:
        model: maps images in [0, 1] to logits (n, k).
        x: images, floats in [0, 1].
        y: labels, int64.
        kinds: some of `KINDS`; all fifteen by default.
        severities: some of 1 to 5; all by default.
        batch_size: images at a time; the corrupted images do not depend on it.
        seed: seed of the random numbers.
        progress: called after every batch with (kind, batches done, of how many).

    Raises:
        UserError: an unknown kind or severity, images or labels that do not fit, a model that does not return logits.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> result = corruption_accuracy(model, torch.rand(6, 1, 8, 8), torch.arange(6) % 2, kinds=["fog", "contrast"])
        >>> {kind: len(by_severity) for kind, by_severity in result.accuracy.items()}
        {'fog': 5, 'contrast': 5}
    """
    kinds, severities = _unique(kinds, "kinds"), _unique(severities, "severities")
    check_kinds(kinds, severities)
    target = Target(model, x)
    check_inputs(target, x, y, batch_size=batch_size)
    batches = torch.arange(len(x)).split(batch_size)
    clean = sum(count_correct(model, x[rows].to(target.device), y[rows]) for rows in batches) / len(x)
    accuracy, seconds = {}, {}
    for kind in kinds:
        start, correct = time.perf_counter(), dict.fromkeys(severities, 0)
        for done, (severity, rows) in enumerate(itertools.product(severities, batches), 1):
            images = corrupt(x[rows].to(target.device), kind, severity, seed=seed, index=rows)
            correct[severity] += count_correct(model, images, y[rows])
            if progress is not None:
                progress(kind, done, len(severities) * len(batches))
        accuracy[kind] = {severity: count / len(x) for severity, count in correct.items()}
        seconds[kind] = time.perf_counter() - start
    return CorruptionResult(len(x), strengths(*x.shape[2:])[0], clean, accuracy, seconds, seed)


def _unique(values: Sequence[Any], name: str) -> list[Any]:
    """Return each value once; refuse a text and an empty list."""
    if isinstance(values, str):
        raise UserError(f"{name} must be a list, such as {values.split(',')}, not the text {values!r}")
    if len(values) == 0:
        raise UserError(f"{name} must name at least one")
    return list(dict.fromkeys(values))


def count_correct(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return how many images a model, in eval mode, classifies correctly.

    Example:
        >>> count_correct(nn.Flatten(), torch.eye(2)[:, None, None], torch.tensor([0, 0]))
        1
    """
    with torch.no_grad(), frozen(model):
        return len(x) - int(is_misclassified(model(x), y.to(x.device)).sum())
