"""Between which bounds the accuracy of an evaluation will lie, while a part of its images is still to come.

The images are taken in random order, each through every attack before the next part begins. So at any moment the
accuracy on those that are done says something of the rest, and the evaluation may stop once it says enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from uiat.checks import Between, check_batch
from uiat.data.stream import Piece, Stream
from uiat.intervals import wilson
from uiat.shapes import Float, Int

Width = Annotated[float, Between(0, 1, above=True, below=True)]
FEWEST, PARTS = 50, 20  # images of a part, at least; parts of all images, at most


@dataclass(frozen=True)
class Bracket:
    """What is known of the accuracy in the worst case of n images, of which some are done.

    Args:
        done: number of images that went through every attack.
        robust: number of these that nothing broke.
        n: number of all images.
        in_random_order: True where those that are done are a random choice of all.

    Example:
        >>> bracket = Bracket(100, 40, 1_000)
        >>> bracket.bounds, [round(edge, 3) for edge in bracket.interval]
        ([0.04, 0.94], [0.314, 0.493])
    """

    done: int
    robust: int
    n: int
    in_random_order: bool = True

    @property
    def bounds(self) -> list[float]:
        """The accuracy on all n images if every image to come is broken, and if none is: certain."""
        return [self.robust / self.n, (self.robust + self.n - self.done) / self.n]

    @property
    def interval(self) -> list[float]:
        """The 95 % interval of the accuracy on all n images, within the bounds; these where the order is not random.

        Wilson (1927) with the correction for drawing without replacement, which counts k images as k (n - 1) / (n - k).
        """
        low, high = self.bounds
        if self.done in (0, self.n) or not self.in_random_order:
            return [low, high]
        size = self.done * (self.n - 1) / (self.n - self.done)
        from_, to = wilson(self.robust / self.done * size, size)
        return [max(low, from_), min(high, to)]

    def is_within(self, width: float) -> bool:
        """True if the interval is no wider than that."""
        low, high = self.interval
        return high - low <= width

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "of": self.n,
            "done": self.done,
            "robust": self.robust,
            "bounds": self.bounds,
            "interval": self.interval,
        }


def random_order(n: int, *, seed: int) -> Int[Tensor, "n"]:
    """Return the positions of n images in random order.

    Example:
        >>> sorted(random_order(3, seed=0).tolist())
        [0, 1, 2]
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed % 2**63))


def in_random_order(x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"], *, seed: int) -> tuple[Stream, Int[Tensor, "n"]]:
    """Return images as a stream of parts in random order, and their positions in that order.

    Example:
        >>> stream, order = in_random_order(torch.rand(120, 1, 2, 2), torch.arange(120) % 2, seed=0)
        >>> [len(y) for _, y in stream.chunks()], sorted(order.tolist()) == list(range(120))
        ([50, 50, 20], True)
    """
    check_batch(x, y)
    order = random_order(len(y), seed=seed)
    most = max(FEWEST, -(-len(y) // PARTS))

    def pieces() -> Iterator[Piece]:
        for rows in order.split(most):
            yield x[rows.to(x.device)], y[rows.to(y.device)]

    head = next(pieces())
    name = f"{len(y)} images in the random order of seed {seed}"
    return Stream(pieces(), head, name, total=len(y), most=most), order


def sentence_on_until(until: dict[str, Any]) -> str:
    """Say how many images were evaluated and what that says of all.

    Example:
        >>> sentence_on_until({"width": 0.1, "stopped": True, "seed": 0, **Bracket(100, 40, 1_000).to_json()})
        'stopped early: of 1,000 images 100, in random order, are done; the worst case on all is within [4.00, 94.00] %
        for certain, and within [31.37, 49.30] % with 95 % confidence'
    """
    begin = "stopped early" if until["stopped"] else "not stopped early"
    (low, high), (likely_low, likely_high) = until["bounds"], until["interval"]
    return (
        f"{begin}: of {until['of']:,} images {until['done']:,}, in random order, are done; the worst case on all is "
        f"within [{100 * low:.2f}, {100 * high:.2f}] % for certain, and within [{100 * likely_low:.2f}, "
        f"{100 * likely_high:.2f}] % with 95 % confidence"
    )
