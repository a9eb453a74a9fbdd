"""Self-adaptive training: the labels of TRADES' natural loss become running means of the model's own predictions."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import Amount, BelowOne, Classes, Count, Side, Whole, checked, checked_fields
from uiat.data import Batch
from uiat.errors import UserError
from uiat.models.misfit import explained
from uiat.models.modes import frozen
from uiat.objectives.base import Examples, adversarial_of, attack_threat, correct, importance, kl_attack, positions_of
from uiat.shapes import Float, Int
from uiat.system.distributed import current_rank


class SoftLabels(nn.Module):
    """A label as probabilities for each training image, (N, K), at first its one-hot label.

    Args:
        num_examples: N.
        num_classes: K.

    Example:
        >>> sorted(name for name, _ in SoftLabels(4, 2).named_buffers())
        ['table', 'visited']
    """

    table: Tensor
    visited: Tensor

    def __init__(self, num_examples: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(num_examples, num_classes))
        self.register_buffer("visited", torch.zeros(num_examples, dtype=torch.bool))

    def update(
        self, index: Int[Tensor, "b"], y: Int[Tensor, "b"], p: Float[Tensor, "b k"], *, momentum: float
    ) -> Float[Tensor, "b k"]:
        """Update t_i <- momentum t_i + (1 - momentum) p_i and return the new rows of the batch.

        Every process makes the updates of the whole batch, so that all of them hold the same table.
        """
        rank, own = current_rank(), index
        index, y, p = (rank.concatenate(value) for value in (index, y, p.to(self.table.dtype)))
        labels = nn.functional.one_hot(y, self.table.shape[1]).to(self.table.dtype)
        old = torch.where(self.visited[index][:, None], self.table[index], labels)
        self.table[index] = momentum * old + (1 - momentum) * p
        self.visited.index_fill_(0, index, True)  # not by assignment, which would move a True to the device
        return self.table[own]


@checked_fields
@dataclass(frozen=True, kw_only=True)
class SelfAdaptive:
    """w CE(t, f(x)) + beta KL(p(x) || p(x_adv)), w ~ max_k t_k (Huang et al. 2020, self-adaptive training).

    "Self-Adaptive Training: beyond Empirical Risk Minimization", algorithm 1 with TRADES (section 5). From `from_epoch`
    on, t <- momentum t + (1 - momentum) p(x) once an epoch, from the image's label; before, t is the label and w is 1.
    The weights have mean 1 over a batch. p(x) is the prediction that the attack measures from, in eval mode, so that it
    costs no pass; the authors take that of the training pass.

    Args:
        attack: the inner maximisation, that of TRADES.
        weight: beta.
        momentum: fraction of a soft label that is kept at a visit, in [0, 1).
        from_epoch: first epoch, counted from 0, with soft labels; the authors' 70 of 100.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> SelfAdaptive().init(num_classes=10, image_shape=(1, 8, 8), num_examples=100).table.shape
        torch.Size([100, 10])
    """

    takes_replays: ClassVar[bool] = False  # a label moves once a visit
    name: Literal["sat"] = "sat"
    attack: PGD = field(default_factory=kl_attack)
    weight: Amount = 6.0
    momentum: BelowOne = 0.9
    from_epoch: Whole = 70

    threat = property(attack_threat)

    @checked
    def init(
        self, *, num_classes: Classes, image_shape: tuple[Side, Side, Side], num_examples: Count | None = None
    ) -> SoftLabels:
        """Return the state: a soft label for each training image.

        Raises:
            UserError: without `num_examples`.
        """
        if num_examples is None:
            raise UserError("self-adaptive training keeps a label for each training image: give num_examples")
        return SoftLabels(num_examples, num_classes)

    @checked
    @explained
    def perturb(self, model: nn.Module, batch: Batch, state: nn.Module, *, epoch: int) -> Examples:
        """Return the batch with x_adv and, from `from_epoch` on, its soft labels and their weights."""
        if not isinstance(state, SoftLabels):
            raise UserError(f"state must be what init returns, not a {type(state).__name__}")
        with torch.no_grad(), frozen(model, batchnorm=self.attack.batchnorm):
            log_p = losses.log_probabilities(model(batch.x))
        x_adv = self.attack.perturb(model, batch.x, batch.y, x_start=batch.x_start, reference=log_p)
        if epoch < self.from_epoch:
            return Examples(batch.x, batch.y, x_adv)
        target = state.update(positions_of(batch), batch.y, log_p.exp(), momentum=self.momentum)
        return Examples(batch.x, batch.y, x_adv, target=target, importance=importance(target.amax(dim=1)))

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"ce": (B,), "kl": (B,)}, each weighted."""
        logits, adv_logits = model(examples.x), model(adversarial_of(examples))
        if examples.target is None or examples.importance is None:
            ce = losses.cross_entropy(logits, examples.y)
        else:
            ce = examples.importance * losses.soft_cross_entropy(logits, examples.target)
        kl = losses.kl(losses.log_probabilities(logits), losses.log_probabilities(adv_logits))
        return {"ce": ce, "kl": self.weight * kl, "correct": correct(adv_logits, examples.y)}
