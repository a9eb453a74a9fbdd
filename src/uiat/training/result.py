"""The result of training: the model with its best weights, and what was measured on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from uiat.formatting import Summary, percent
from uiat.inverse import UniversalPerturbation
from uiat.objectives.abilities import universal_of
from uiat.training.loop import Training
from uiat.training.open_run import load_best


@dataclass(frozen=True)
class Trained:
    """Result of training.

    Args:
        model: the model with its best weights, in eval mode; `model.threat` is the threat model it was trained for.
        history: a row of measurements an epoch.
        best: {"epoch": ..., "value": ...} of the best epoch by the run's metric.
        inverse: the universal inverse perturbations, if the method has them.
        folder: the run folder; None if everything was kept in memory.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    inverse: UniversalPerturbation | None
    folder: Path | None

    def __repr__(self) -> str:
        return self.summary().text

    def _repr_html_(self) -> str:
        return self.summary().html

    def summary(self) -> Summary:
        """Return what `print` shows: the model, and the accuracies of the best and the last epoch."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        kept = f", in {self.folder}" if self.folder is not None else ""
        title = f"trained {type(self.model).__name__} of {parameters:,} parameters, {len(self.history)} epochs{kept}"
        rows = [("weights", "epoch", "clean", "robust")]
        epochs = {"best": -1 if self.best is None else self.best["epoch"], "last": len(self.history) - 1}
        for name, epoch in epochs.items():
            if 0 <= epoch < len(self.history):
                row = self.history[epoch]
                rows.append((name, str(epoch + 1), percent(row.get("clean")), percent(row.get("robust"))))
        said = ["accuracies on held-out training images; the model has its best weights"]
        return Summary(title, rows, said + ([repr(self.inverse)] if self.inverse is not None else []))


def make_result(training: Training) -> Trained:
    """Put the best weights into the model, wherever they were kept."""
    model, store = load_best(training), training.store
    universal = universal_of(training.run.objective, training.step.state)
    return Trained(model, training.history, training.best, universal, None if store is None else store.folder)
