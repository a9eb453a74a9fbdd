"""State of inverse adversaries between steps: universal perturbations, running predictions, a generator."""

from typing import Literal

import torch
from torch import Tensor, nn

from uiat.inverse.universal import class_means
from uiat.shapes import Float, Int
from uiat.system.distributed import current_rank

Momentum = Literal["none", "example", "class"]
MomentumStart = Literal["first-visit", "uniform"]


class InverseState(nn.Module):
    """State of UIAT: universal perturbations z, the momentum g of their gradient, and running predictions p_bar.

    Args:
        z: first universal perturbations (K, C, H, W), or None for instance-wise inverse adversaries.
        gradient_momentum: average the class gradients over steps, in float32 whatever the type of z: small ones would
            vanish in a narrower one.
        rows: number of rows of p_bar: N for a row an example, K for a row a class, 0 for no momentum.
        num_classes: K.
        start: first value of p_bar: "first-visit" for the first prediction, "uniform" for 1/K.
        generator: the network that makes inverse examples, or None.

    Example:
        >>> state = InverseState(torch.zeros(10, 1, 8, 8), gradient_momentum=False, rows=10, num_classes=10)
        >>> sorted(name for name, _ in state.named_buffers())
        ['p_bar', 'visited', 'z']
    """

    z: Tensor | None
    g: Tensor | None
    p_bar: Tensor
    visited: Tensor

    def __init__(
        self,
        z: Tensor | None,
        *,
        gradient_momentum: bool,
        rows: int,
        num_classes: int,
        start: MomentumStart = "first-visit",
        generator: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("z", z)
        self.register_buffer("g", None)
        if gradient_momentum and z is not None:
            self.g = torch.zeros_like(z, dtype=torch.promote_types(z.dtype, torch.float32))
        if rows:
            uniform = start == "uniform"
            self.register_buffer("p_bar", torch.full((rows, num_classes), 1 / num_classes if uniform else 0.0))
            self.register_buffer("visited", torch.full((rows,), uniform))

    def recall(self, rows: Int[Tensor, "b"], gamma: float) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b 1"]]:
        """Return p_bar of the rows, and the fraction of it to keep: gamma, but 0 at a first visit."""
        return self.p_bar[rows], gamma * self.visited[rows].to(self.p_bar.dtype)[:, None]

    def remember(self, rows: Int[Tensor, "b"], p: Float[Tensor, "b k"], gamma: float, *, by_class: bool) -> None:
        """Update p_bar_i <- gamma p_bar_i + (1 - gamma) p_i, UIAT's momentum on predictions.

        Every process makes the updates of the whole batch, so that all of them hold the same values.

        Args:
            rows: row of p_bar for each example: its index, or its class.
            p: predicted probabilities (B, K).
            gamma: fraction of the old value that is kept.
            by_class: p is averaged over the images of each class first.
        """
        p = p.to(self.p_bar.dtype)
        if not by_class:
            rows, p = current_rank().concatenate(rows), current_rank().concatenate(p)
            old, kept = self.recall(rows, gamma)
            self.p_bar[rows] = kept * old + (1 - kept) * p
            self.visited.index_fill_(0, rows, True)  # not by assignment, which would move a True to the device
            return
        means, present = class_means(p, rows, len(self.p_bar))
        kept = gamma * self.visited.to(self.p_bar.dtype)[:, None]
        mixed = kept * self.p_bar + (1 - kept) * means
        self.p_bar.copy_(torch.where(present[:, None], mixed, self.p_bar))
        self.visited.logical_or_(present)
