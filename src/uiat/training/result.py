"""The result of training: the model with its best weights, and what was measured on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from uiat.formatting import Summary, percent
from uiat.inverse import InverseGenerator, UniversalPerturbation
from uiat.objectives.abilities import generator_in, universal_of
from uiat.runs import checkpoint
from uiat.training.loop import Training


@dataclass(frozen=True)
class Trained:
    """Result of training.

    Args:
        model: the model with its best weights, in eval mode; `model.threat` is the threat model it was trained for.
        history: a row of measurements an epoch.
        best: {"epoch": ..., "value": ...} of the best epoch by the run's metric.
        inverse: the universal inverse perturbations or the generator, if the method has them.
        folder: the run folder; None if everything was kept in memory.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    best: dict[str, Any] | None
    inverse: UniversalPerturbation | InverseGenerator | None
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
        if isinstance(self.inverse, UniversalPerturbation):
            said.append(repr(self.inverse))
        return Summary(title, rows, said)


def load_best(training: Training) -> nn.Module:
    """Put the best weights of a finished run into its model, wherever they were kept; returns it in eval mode.

    Example:
        >>> from uiat import Run
        >>> from uiat.training.open_run import start_run
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, start_run(Run(), run_dir=f"{folder}/run") as training:
        ...     load_best(training).training
        False
    """
    model, store = training.model, training.store
    if store is not None and training.best is not None:
        checkpoint.restore(model, store.read_best_weights(), source=store.folder)
    elif training.best_weights is not None:
        model.load_state_dict(training.best_weights)
    model.threat = training.run.threat  # type: ignore[assignment]
    return model.eval()


def make_result(training: Training) -> Trained:
    """Put the best weights into the model, wherever they were kept."""
    model, store, state = load_best(training), training.store, training.step.state
    inverse = universal_of(training.run.objective, state) or generator_in(state)
    return Trained(model, training.history, training.best, inverse, None if store is None else store.folder)
