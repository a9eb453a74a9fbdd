"""The protocol of training objectives: three methods, and the examples that pass between them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from uiat.attacks import PGD
from uiat.checks import Classes, Count, Side, checked, checked_fields
from uiat.data import Batch
from uiat.errors import UserError
from uiat.models.misfit import explained
from uiat.shapes import Float, Int
from uiat.system.distributed import current_rank
from uiat.threat import Linf, Threat


@checked_fields
@dataclass(frozen=True)
class Examples:
    """A batch after the inner problems, from `perturb` to `loss`.

    Args:
        x: natural images (B, C, H, W) in [0, 1].
        y: labels (B,).
        x_adv: adversarial examples (B, C, H, W).
        x_inv: inverse adversarial examples (B, C, H, W), where the loss trains through the prediction on them.
        target: probabilities (B, K), detached: what the prediction is pulled to (of UIAT the remembered part of it), or
            the class weights of DKL.
        share: (B, 1), the fraction of the final target that `target` makes up; the rest is p(x_inv) now.
        weight: lambda in this epoch.
        importance: (B,), detached: how much an example counts, 1 in the mean over the batch.
        x_background: inverse adversarial examples without their foreground (B, C, H, W), of DHAT.
        network: a second network that is trained together with the model (LBGAT).
        soft_labels: labels as probabilities (B, K), of images that MixUp or CutMix has mixed.

    Example:
        >>> Examples(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])).x_adv is None
        True
    """

    x: Float[Tensor, "b ..."]
    y: Int[Tensor, "b"]
    x_adv: Float[Tensor, "b ..."] | None = None
    x_inv: Float[Tensor, "b ..."] | None = None
    target: Float[Tensor, "b k"] | None = None
    share: Float[Tensor, "b 1"] | None = None
    weight: float = 0.0
    importance: Float[Tensor, "b"] | None = None
    x_background: Float[Tensor, "b ..."] | None = None
    network: nn.Module | None = None
    soft_labels: Float[Tensor, "b k"] | None = None

    @property
    def labels(self) -> Tensor:
        """The labels that a cross entropy takes: probabilities (B, K) where images were mixed, else `y`."""
        return self.y if self.soft_labels is None else self.soft_labels

    def __repr__(self) -> str:
        parts = {"adversarial": self.x_adv, "inverse": self.x_inv, "target": self.target}
        there = ", ".join(name for name, value in parts.items() if value is not None)
        return f"Examples of {len(self.y)} images {tuple(self.x.shape[1:])}, with {there or 'nothing but themselves'}"


@runtime_checkable
class Objective(Protocol):
    """A training method as a frozen value. `loss` neither attacks nor touches the state, so AWP fits each of them.

    The epoch alone decides what it does in a step, and what it remembers is in the state's buffers: on a GPU the
    steps of an epoch replay one recorded step (`uiat.speed.cuda_graphs`).

    A method with networks beside the model has one method more, `networks`, or the name of a `teacher_method`: see
    `uiat.objectives.networks`.
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


class Stateless(nn.Module):
    """Empty state, of a method that remembers nothing between steps.

    Example:
        >>> list(Stateless().buffers())
        []
    """


@runtime_checkable
class HasAttack(Protocol):
    """An objective that trains on the examples of one attack."""

    @property
    def attack(self) -> PGD:
        """The inner maximisation."""


@checked
def stateless(
    self: object, *, num_classes: Classes, image_shape: tuple[Side, Side, Side], num_examples: Count | None = None
) -> nn.Module:
    """Return an empty state: the `init` of methods that remember nothing.

    Example:
        >>> stateless(None, num_classes=10, image_shape=(1, 8, 8))
        Stateless()
    """
    return Stateless()


@checked
@explained
def attack_batch(self: HasAttack, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
    """Return the batch with its adversarial examples: the `perturb` of methods that need nothing else.

    Example:
        >>> from uiat import PGDAT
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> batch = Batch(x, torch.tensor([0, 1, 0]), torch.arange(3))
        >>> attack_batch(PGDAT(), model, batch, Stateless(), epoch=0).x_adv.shape
        torch.Size([3, 1, 2, 2])
    """
    x_adv = self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start, soft_labels=batch.soft_labels)
    return Examples(batch.x, batch.y, x_adv, soft_labels=batch.soft_labels)


def attack_threat(self: HasAttack) -> Threat | None:
    """Return the threat model of an objective's attack.

    Example:
        >>> from uiat import PGDAT
        >>> attack_threat(PGDAT())
        Linf(epsilon=0.03137254901960784, norm='Linf')
    """
    return self.attack.threat


def kl_attack() -> PGD:
    """Return the attack of TRADES: PGD-10 on KL(p(x) || p(x_adv)), from Gaussian noise.

    Example:
        >>> kl_attack().loss
        'kl'
    """
    return PGD(threat=Linf("8/255"), step_size="2/255", steps=10, loss="kl", start="gaussian")


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


def part_of(examples: Examples, name: str) -> Tensor:
    """Return a tensor of the examples that a loss is about.

    Raises:
        UserError: there is none; `perturb` makes it.

    Example:
        >>> part_of(Examples(torch.zeros(1, 1, 2, 2), torch.tensor([0])), "target")
        Traceback (most recent call last):
        uiat.errors.UserError: the examples have no target: perturb makes them
    """
    value = getattr(examples, name)
    if not isinstance(value, Tensor):
        raise UserError(f"the examples have no {name}: perturb makes them")
    return value


def adversarial_of(examples: Examples) -> Tensor:
    """Return the adversarial examples that a loss is about.

    Raises:
        UserError: there are none; `perturb` makes them.

    Example:
        >>> adversarial_of(Examples(torch.zeros(1, 1, 2, 2), torch.tensor([0])))
        Traceback (most recent call last):
        uiat.errors.UserError: the examples have no x_adv: perturb makes them
    """
    return part_of(examples, "x_adv")


def positions_of(batch: Batch) -> Tensor:
    """Return the position of each example in the training set, which state kept per example is addressed by.

    Raises:
        UserError: the batch has none.

    Example:
        >>> positions_of(Batch(torch.zeros(1, 1, 2, 2), torch.tensor([0]), torch.tensor([7]))).tolist()
        [7]
    """
    if batch.index is None:
        raise UserError("a row is kept for each training image: give uiat.Batch(x, y, index)")
    return batch.index


@checked
def total(terms: dict[str, Tensor]) -> Tensor:
    """Return the sum of the loss terms of each example, (B,). Measurements (bool) are left out.

    Example:
        >>> total({"adv_ce": torch.tensor([1.0]), "kl": torch.tensor([0.5]), "correct": torch.tensor([True])}).tolist()
        [1.5]
    """
    summands = [v for v in terms.values() if v.is_floating_point()]
    if not summands:
        raise UserError("the terms hold no loss: each is a measurement, or there is none")
    return torch.stack(summands).sum(dim=0)


def importance(weights: Tensor) -> Tensor:
    """Scale the weights (B,) of a batch's examples to a mean of 1 over the batch, that of all processes.

    Example:
        >>> importance(torch.tensor([1.0, 3.0])).tolist()
        [0.5, 1.5]
    """
    rank = current_rank()
    whole = rank.total(weights.sum()) / (rank.size * len(weights))
    return weights / whole.clamp_min(torch.finfo(weights.dtype).tiny)


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """Return (B,) bool, True where the prediction is correct: a measurement, so no gradient is kept for it.

    Example:
        >>> correct(torch.tensor([[2.0, 1.0]]), torch.tensor([0])).tolist()
        [True]
    """
    return logits.detach().argmax(dim=1) == y
