"""How a run is judged while it trains: on images held out of the training set, by a metric that selects its weights."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from uiat.attacks import PGD
from uiat.attacks.random_numbers import keys
from uiat.config.schema import Run
from uiat.data import ImageSet, as_float
from uiat.errors import UserError
from uiat.evaluation import attack, correct_under, stages
from uiat.evaluation.engine.stage import exact_inference
from uiat.inverse import UniversalInverse
from uiat.objectives.grad_align import alignment
from uiat.system.distributed import current_rank
from uiat.threat import Linf, Threat

# Held-out images whose gradient alignment is looked at: a standard error of 0.07 at most, for 800 forward passes, where
# the rest of a validation takes 1,000 and, of the images that are right as they are, 21 each: about a tenth more.
ALIGNED = 200


def validate(model: nn.Module, held_out: ImageSet, *, run: Run) -> dict[str, float]:
    """Accuracy on held-out images: "clean", "robust" under PGD where the run has a threat model, and the seconds taken.

    Of single-step runs also "alignment", the mean cosine of `uiat.objectives.grad_align` on the first 200 of them: it
    falls when such a run overfits catastrophically, which weights of two epochs do not show. It takes about a tenth of
    the seconds.

    Of several processes each judges its part. The random starts come from the run's seed alone, so the same images
    meet the same attack in every epoch.

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

    def accuracy(right: Tensor) -> float:
        return current_rank().total(right.double().sum()).item() / len(held_out)

    clean = correct_under(model, x, y, None, classes=held_out.num_classes)
    row = {"clean": accuracy(clean)}
    if (threat := run.threat) is not None:
        pgd = attack(f"pgd-{run.validation.steps}", threat=threat)
        classes = held_out.num_classes
        right = correct_under(model, x, y, pgd, among=clean, seed=run.seed, index=index, classes=classes)
        row["robust"] = accuracy(right)
        if is_single_step(run):
            few = index < ALIGNED
            cosines = _alignment(model, x[few], y[few], threat, seed=run.seed, index=index[few])
            row["alignment"] = current_rank().total(cosines).item() / min(ALIGNED, len(held_out))
    return row | {"validation_seconds": time.perf_counter() - start}


def is_single_step(run: Run) -> bool:
    """Whether a run is trained on attacks of one step, or of none but those that replays take (Free-AT).

    Example:
        >>> from uiat import recipes
        >>> is_single_step(recipes.get("cifar10-small-fgsm-rs")), is_single_step(recipes.get("cifar10-small-pgd-at"))
        (True, False)
    """
    trained_under = getattr(run.objective, "attack", None)
    return isinstance(trained_under, PGD) and trained_under.steps <= 1


def _alignment(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, seed: int, index: Tensor) -> Tensor:
    """The sum over this process's images, of which there may be none."""
    if len(x) == 0:
        return torch.zeros((), dtype=torch.float64)
    with exact_inference(model):
        return alignment(model, x, y, threat, key=keys(seed, index).to(x.device)).double().sum()


def selection_metric(row: Mapping[str, Any], name: str) -> float | None:
    """The value a run is selected by, from an epoch's row; robust accuracy falls back to clean without a threat model.

    Example:
        >>> selection_metric({"clean": 0.8, "robust": 0.4}, "mean")
        0.6000000000000001
    """
    clean, robust = row.get("clean"), row.get("robust", row.get("clean"))
    if clean is None or robust is None:
        return None
    return float({"clean": clean, "robust": robust, "mean": (clean + robust) / 2}[name])


def check_plan(run: Run) -> None:
    """Refuse before hours of training what would only come out after them.

    Raises:
        UserError: an attack of the evaluation that does not exist, or a one-off epoch that never comes.

    Example:
        >>> from uiat.config.schema import Evaluation
        >>> check_plan(Run(evaluation=Evaluation(attacks=("pgd20",))))
        Traceback (most recent call last):
        uiat.errors.UserError: evaluation.attacks: unknown attack 'pgd20'; did you mean ...
    """
    for name in run.evaluation.attacks:
        try:
            stages(name, threat=run.threat or Linf("8/255"))
        except UserError as error:
            raise UserError(f"evaluation.attacks: {error}") from None
    epochs, inverse = run.optimisation.epochs, getattr(run.objective, "inverse", None)
    if isinstance(inverse, UniversalInverse) and inverse.epoch is not None and inverse.epoch >= epochs:
        raise UserError(
            f"objective.inverse.epoch is {inverse.epoch}, counted from 0, but optimisation.epochs is {epochs}: "
            "the one-off perturbations would never be made"
        )
