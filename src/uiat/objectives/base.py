"""The protocol of training objectives: three methods, and the examples that pass between them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from uiat.checks import check_choices
from uiat.data import Batch
from uiat.errors import UserError


@dataclass(frozen=True)
class Examples:
    """A batch after the inner problems, from `perturb` to `loss`.

    Args:
        x: natural images (B, C, H, W) in [0, 1].
        y: labels (B,).
        x_adv: adversarial examples (B, C, H, W).
        x_inv: inverse adversarial examples (B, C, H, W), where the loss trains through the prediction on them.
        target: probabilities (B, K), detached: the remembered part of the inverse prediction.
        share: (B, 1), the fraction of the final target that `target` makes up; the rest is p(x_inv) now.
        weight: lambda in this epoch.

    Example:
        >>> Examples(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])).x_adv is None
        True
    """

    x: Tensor
    y: Tensor
    x_adv: Tensor | None = None
    x_inv: Tensor | None = None
    target: Tensor | None = None
    share: Tensor | None = None
    weight: float = 0.0

    def __repr__(self) -> str:
        parts = {"adversarial": self.x_adv, "inverse": self.x_inv, "target": self.target}
        there = ", ".join(name for name, value in parts.items() if value is not None)
        return f"Examples of {len(self.y)} images {tuple(self.x.shape[1:])}, with {there or 'nothing but themselves'}"


@runtime_checkable
class Objective(Protocol):
    """A training method as a frozen value. `loss` neither attacks nor touches the state, so AWP fits each of them.

    The epoch alone decides what it does in a step, and what it remembers is in the state's buffers: on a GPU the
    steps of an epoch replay one recorded step (`uiat.speed.cuda_graphs`).
    """

    @property
    def name(self) -> str:
        """The method's name in configurations."""

    def init(
        self, *, num_classes: int, image_shape: tuple[int, int, int], num_examples: int | None = None
    ) -> nn.Module:
        """Return the state that the method keeps between steps: a module of named buffers."""

    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Solve the inner problems. May update the state; leaves the model as it was."""

    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return loss terms, each (B,) float, that add up to the loss; a (B,) bool entry is a measurement, no term."""


def check_objective(objective: object) -> None:
    """Refuse an objective of the user's own that lacks something which training asks of it.

    Raises:
        UserError: names what it lacks.

    Example:
        >>> check_objective("mart")
        Traceback (most recent call last):
        uiat.errors.UserError: the objective has no name or init or perturb or loss or threat: see uiat.Objective ...
    """
    needed = ("name", "init", "perturb", "loss", "threat")
    if missing := [name for name in needed if not hasattr(objective, name)]:
        raise UserError(f"the objective has no {' or '.join(missing)}: see uiat.Objective (threat may be None)")


def check_fields(objective: object) -> None:
    """Refuse choices that do not exist, and numbers out of range, in the fields that methods share.

    Example:
        >>> from uiat import Trades
        >>> Trades(weight=-1.0)
        Traceback (most recent call last):
        uiat.errors.UserError: weight must be at least 0 and finite, but is -1
    """
    check_choices(objective)
    smoothing, weight = getattr(objective, "label_smoothing", 0.0), getattr(objective, "weight", 0.0)
    if not 0 <= smoothing < 1:
        raise UserError(f"label_smoothing must be in [0, 1), but is {smoothing:g}")
    for name, number in (("weight", weight), ("alignment", getattr(objective, "alignment", 0.0))):
        if not 0 <= number < float("inf"):
            raise UserError(f"{name} must be at least 0 and finite, but is {number:g}")


def total(terms: dict[str, Tensor]) -> Tensor:
    """Return the sum of the loss terms of each example, (B,). Measurements (bool) are left out.

    Example:
        >>> total({"adv_ce": torch.tensor([1.0]), "kl": torch.tensor([0.5]), "correct": torch.tensor([True])}).tolist()
        [1.5]
    """
    summands = [v for v in terms.values() if v.is_floating_point()]
    return torch.stack(summands).sum(dim=0)


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """Return (B,) bool, True where the prediction is correct: a measurement, so no gradient is kept for it.

    Example:
        >>> correct(torch.tensor([[2.0, 1.0]]), torch.tensor([0])).tolist()
        [True]
    """
    return logits.detach().argmax(dim=1) == y
