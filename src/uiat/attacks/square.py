"""The Square Attack (Andriushchenko, Croce, Flammarion & Hein 2020): random search with squares, without gradients.

One query an iteration: a square window of the perturbation is redrawn, and the image keeps the change if its loss falls
or if it breaks. The windows shrink as the search proceeds. Each image draws where its window lies from its own key.
A model that can compute logits from a changed window alone (`uiat.speed.incremental`) is asked to, for Linf.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from uiat import losses
from uiat.attacks.gradient import expected_logits, one_draw
from uiat.attacks.random_numbers import rekey, uniform
from uiat.attacks.search import Classifier, SearchState, where_image
from uiat.checks import Between, Count, checked_fields
from uiat.errors import UserError
from uiat.shapes import Bool, Float, Int
from uiat.threat import Threat

# The windows' area halves after these queries of 10,000 (section 5 of the paper); other budgets in proportion.
HALVINGS = (10, 50, 200, 500, 1_000, 2_000, 4_000, 6_000, 8_000)
SCHEDULE = 10_000
TILES = 5  # bumps along a side of the start for L2 and L1
MAP = "map"  # prefix of the state's names for layer outputs that are cached between queries
# Row and column of the first pixel of each image's window.
Corner = tuple[Int[Tensor, "b"], Int[Tensor, "b"]]


@runtime_checkable
class Change(Protocol):
    """A change that a pass has written into cached layer outputs."""

    def undo(self, mask: Bool[Tensor, "b"]) -> None:
        """Restore the old values for the images of the mask."""


@runtime_checkable
class IncrementalModel(Protocol):
    """Optional attribute `incremental` of a model: logits of images that changed in a window, from cached maps.

    Maps are layer outputs of the images before the change. `uiat.speed.incremental.Incremental` is one.
    """

    def __call__(self, x: Tensor, corner: Corner, pixels: int, maps: list[Tensor]) -> tuple[Tensor, Sequence[Change]]:
        """Compute the logits of the images; returned with the changes that were written into the maps."""

    def count_usable(self, pixels: int, images: int) -> int:
        """Count the maps worth using for windows of so many pixels along a side in a batch; 0: a whole pass."""

    def compute_maps(self, x: Tensor, count: int) -> list[Tensor]:
        """Compute the first `count` maps of images by a whole pass."""


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Square:
    """The Square Attack (Andriushchenko et al. 2020, algorithms 1 to 3), for Linf, L2 and L1; needs no gradient.

    For L1 it is that of Croce & Hein (2021, "Mind the box"): as for L2, with bumps that fall faster.

    Its start is one query, each iteration another. With two classes the margin is the difference of the two logits;
    on constant logits no change is ever kept, because the loss has to fall.

    Args:
        threat: the ball.
        iterations: number of queries of an attempt after its start.
        restarts: number of attempts, each on the images that are still robust.
        p_init: fraction of the pixels that the first windows cover.
        loss: loss that has to fall: "margin" (logit_y - the largest other one) or "ce" (log p_y).
        stretched: fit the schedule of window sizes, which is for 10,000 queries, to the budget; the standard ensemble
            takes the first 5,000 queries of it as they are.
        draws: number of answers to each query that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range, or a norm that the attack does not have.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 2, 2 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.full((2, 1, 2, 2), 0.6), torch.tensor([0, 0])
        >>> attack = Square(threat=Linf(0.2), iterations=50)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(2)))
        >>> advance(attack, model, points, 0, 50)["broken"].tolist()
        [True, True]
    """

    name: ClassVar[str] = "square"
    threat: Threat
    iterations: Count = 5_000
    restarts: Count = 1
    p_init: Annotated[float, Between(0, 1, above=True)] = 0.8
    loss: Literal["margin", "ce"] = "margin"
    stretched: bool = True
    draws: Count = one_draw()

    def __post_init__(self) -> None:
        if self.threat.norm not in ("Linf", "L2", "L1"):
            raise UserError(f"the Square Attack has versions for Linf, L2 and L1, but none for {self.threat.norm}")

    def attempts(self, num_classes: int) -> int:
        """Return the number of restarts, 0 if there is only one class to predict."""
        return self.restarts if num_classes > 1 else 0

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Start from vertical stripes (Linf) or a grid of bumps (L2, L1), at the full radius, with one query.

        Raises:
            UserError: not images (B, C, H, W); a window has a height and a width.
        """
        x = points["x"]
        if x.ndim != 4:
            raise UserError(f"the Square Attack needs images (B, C, H, W), not a batch of shape {tuple(x.shape)}")
        draw = _draw_stripes if self.threat.norm == "Linf" else _draw_bumps
        x_adv = draw(x, rekey(points["key"], 0), self.threat)
        loss, broken = self._evaluate(expected_logits(model, x_adv, draws=self.draws), points["y"])
        return points | {"x_adv": x_adv, "loss": loss, "broken": broken}

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Redraw a window, query the model, and keep the change where the loss falls or the image breaks."""
        x, x_adv, broken = points["x"], points["x_adv"], points["broken"]
        budget = self.iterations if self.stretched else SCHEDULE
        pixels = window_side(i, budget, self.p_init, (x.shape[2], x.shape[3]), odd=self.threat.norm != "Linf")
        key, maps = rekey(points["key"], i + 1), list[Tensor]()
        changes: Sequence[Change] = ()
        if self.threat.norm != "Linf":
            x_new = _move_mass(x, x_adv, key, pixels, self.threat)
            logits = expected_logits(model, x_new, draws=self.draws)
        else:
            x_new, corner = _repaint_window(x, x_adv, key, pixels, self.threat)
            # Cached layer outputs are one answer's, and not those of a mean.
            incremental: IncrementalModel | None = getattr(model, "incremental", None) if self.draws == 1 else None
            maps = _cached_maps(incremental, points, pixels)
            if incremental and maps:
                logits, changes = incremental(x_new, corner, pixels, maps)
            else:
                logits = expected_logits(model, x_new, draws=self.draws)
        loss, wrong = self._evaluate(logits, points["y"])
        kept = (wrong | (loss < points["loss"])) & ~broken
        # The maps are now those of x_new; for images that keep x_adv they go back to those of x_adv.
        for change in changes:
            change.undo(~kept)
        # Maps that this window was too large for are out of date, and dropped.
        others = {name: value for name, value in points.items() if not name.startswith(MAP)}
        return others | {
            "x_adv": where_image(kept, x_new, x_adv),
            "loss": torch.where(kept, loss, points["loss"]),
            "broken": broken | wrong,
            **{f"{MAP}{at}": value for at, value in enumerate(maps)},
        }

    def unbreak(self, points: SearchState, mask: Bool[Tensor, "b"]) -> SearchState:
        """Forget the loss of an example that proved to be none: no later loss could be below it."""
        return points | {"loss": points["loss"].masked_fill(mask, float("inf"))}

    def _evaluate(self, logits: Tensor, y: Tensor) -> tuple[Float[Tensor, "b"], Bool[Tensor, "b"]]:
        """Compute the loss, which the attack lowers, and whether the prediction is wrong."""
        loss_function = losses.margin if self.loss == "margin" else losses.cross_entropy
        return -loss_function(logits, y), logits.argmax(dim=1) != y


def window_side(i: int, iterations: int, p_init: float, size: tuple[int, int], *, odd: bool) -> int:
    """Compute the pixels along a side of the window in iteration i, from the fraction of the area in the schedule.

    Args:
        i: number of the iteration, from 0.
        iterations: budget that the schedule for 10,000 queries is stretched to.
        p_init: fraction of the pixels in the first windows.
        size: height and width of the images; a window is never larger.
        odd: round up to an odd number of at least three, so that a window has a centre and two halves (L2, L1).

    Example:
        >>> [window_side(i, 5_000, 0.8, (32, 32), odd=False) for i in (0, 6, 100, 1_000, 4_999)]
        [29, 20, 14, 5, 1]
        >>> [window_side(i, 5_000, 0.8, (32, 32), odd=True) for i in (0, 6, 100, 1_000, 4_999)]
        [29, 21, 15, 5, 3]
    """
    done = i * SCHEDULE // iterations
    fraction = p_init / 2 ** sum(done > at for at in HALVINGS)
    pixels = max(round(math.sqrt(fraction * size[0] * size[1])), 1)
    if odd:
        pixels = max(pixels, 3)
        pixels += 1 - pixels % 2
    return min(pixels, *size)


def _draw_stripes(x: Tensor, key: Tensor, threat: Threat) -> Tensor:
    """Set each column of each channel at plus or minus epsilon (section 4.2 of the paper)."""
    c, _, w = x.shape[1:]
    # Two epsilon, so that rounding in x + epsilon cannot leave a pixel short of the face of the ball.
    return threat.project(x + 2 * float(threat.epsilon) * _signs(uniform(key, (c, 1, w)), x), x)


def _repaint_window(x: Tensor, x_adv: Tensor, key: Tensor, pixels: int, threat: Threat) -> tuple[Tensor, Corner]:
    """Set each channel of a window at plus or minus epsilon (algorithm 2); returned with where the window is.

    A step of 2 epsilon from anywhere in the ball, projected, ends where one from x itself does: the old values play no
    part, and only the window is projected.
    """
    c = x.shape[1]
    draws = uniform(key, (2 + c,))
    corner = _corner(draws[:, 0], draws[:, 1], pixels, x)
    window = _window(corner, pixels, x).expand(-1, c, -1)
    inside = x.flatten(2).gather(2, window)
    far = inside + 2 * float(threat.epsilon) * _signs(draws[:, 2:, None], x)
    return x_adv.flatten(2).clone().scatter_(2, window, threat.project(far, inside)).view_as(x), corner


def _cached_maps(incremental: IncrementalModel | None, points: SearchState, pixels: int) -> list[Tensor]:
    """Return the layer outputs that windows of this size can use, computed by a whole pass if they are not cached."""
    count = 0 if incremental is None else incremental.count_usable(pixels, len(points["x"]))
    names = [f"{MAP}{at}" for at in range(count)]
    if incremental is None or all(name in points for name in names):
        return [points[name] for name in names]
    return incremental.compute_maps(points["x_adv"], count)


def _draw_bumps(x: Tensor, key: Tensor, threat: Threat) -> Tensor:
    """Draw a grid of five by five bumps, each of its own sign and lying or standing, at length epsilon (section 4.3).

    Images smaller than ten pixels get a random sign for each pixel. For L1 bumps of length one are shortened together,
    so that their peaks are left; where epsilon is beyond their sum they are stretched.
    """
    c, h, w = x.shape[1:]
    pixels = max(min(h, w) // TILES, 1)
    rows, columns = h // pixels, w // pixels
    draws = uniform(key, (rows, columns, 1 + c))
    lying = _bump(pixels, x, _power(threat))
    # (b, rows, columns, c, pixels, pixels): one orientation for all channels of a tile, one sign for each.
    tiles = torch.where(draws[..., :1, None, None] < 0.5, lying, lying.t()) * _signs(draws[..., 1:, None, None], x)
    delta = torch.zeros_like(x)
    top, left = (h - rows * pixels) // 2, (w - columns * pixels) // 2
    inside = delta[:, :, top : top + rows * pixels, left : left + columns * pixels]
    inside.copy_(tiles.permute(0, 3, 1, 4, 2, 5).reshape_as(inside))  # tile rows beside pixel rows, then columns
    if threat.norm == "L1":
        stretch = (float(threat.epsilon) / threat.length(delta)).clamp_min(1)
        return threat.project(x + delta * stretch.view(-1, 1, 1, 1), x)
    return threat.project(x + float(threat.epsilon) * threat.steepest(delta), x)


def _move_mass(x: Tensor, x_adv: Tensor, key: Tensor, pixels: int, threat: Threat) -> Tensor:
    """Empty one window, and fill another with a bump and all the length that is left over (algorithm 3).

    The length left over is that of both windows and of what clipping to [0, 1] had cut off, divided among the channels;
    so the new perturbation has length epsilon before it is clipped in its turn (less only where the bump and the old
    values of the filled window cancel). For L1 every channel gets all of it, and the projection removes the excess.
    """
    c, power = x.shape[1], _power(threat)
    draws = uniform(key, (5 + c,))
    filled = _window(_corner(draws[:, 0], draws[:, 1], pixels, x), pixels, x).expand(-1, c, -1)
    emptied = _window(_corner(draws[:, 2], draws[:, 3], pixels, x), pixels, x).expand(-1, c, -1)
    delta = (x_adv - x).flatten(2)
    # Lengths add up as p-th powers: what the p-th power of epsilon exceeds that of the whole perturbation by is unused.
    unused = (float(threat.epsilon) ** power - delta.abs().pow(power).sum(dim=(1, 2))).clamp_min(0).view(-1, 1, 1)
    old = delta.gather(2, filled)
    delta.scatter_(2, filled, 0)  # first, so that what both windows hold is counted once
    both = torch.cat([old, delta.gather(2, emptied)], dim=2)
    left_over = both.abs().pow(power).sum(2, keepdim=True) + unused / c
    delta.scatter_(2, emptied, 0)
    lying = _bump(pixels, x, power)
    bump = torch.where(draws[:, 4, None] < 0.5, lying.flatten(), lying.t().flatten())[:, None]
    # The bump and the direction of the old values count alike; their sum is scaled to the length left over.
    new = _normalise(_normalise(old, power) + bump * _signs(draws[:, 5:, None], x), power)
    new *= left_over.sqrt() if power == 2 else left_over * c
    return threat.project(x + delta.scatter_(2, filled, new).view_as(x), x)


def _power(threat: Threat) -> int:
    """p of an Lp norm, 1 or 2."""
    return 1 if threat.norm == "L1" else 2


def _bump(pixels: int, like: Tensor, power: int) -> Float[Tensor, "s s"]:
    """Return a square of length one, its upper half a bump and its lower half a negative one (eq. 2 of the paper).

    Each half falls with the distance d from its centre as 1/(d+1)^2 + ... + 1/(n+1)^2, n being half the square's side;
    for L1 as the sum of fourth powers.
    """
    # height[d] is the sum of the terms from d on. Distance is the larger of those along the two sides.
    terms = torch.arange(1, pixels // 2 + 2, device=like.device, dtype=like.dtype).pow(-2 if power == 2 else -4)
    height = terms.flip(0).cumsum(0).flip(0)
    across = (torch.arange(pixels, device=like.device) - pixels // 2).abs()
    halves = []
    for rows, sign in ((pixels // 2, 1), (pixels - pixels // 2, -1)):
        along = (torch.arange(rows, device=like.device) - rows // 2).abs()
        half = height[torch.maximum(along[:, None], across)].flatten()
        halves.append(sign * _normalise(half, power).view(rows, pixels))
    return _normalise(torch.cat(halves).flatten(), power).view(pixels, pixels)


def _normalise(v: Tensor, power: int) -> Tensor:
    """Scale vectors along the last dimension to length one; those of zeros stay."""
    length = torch.linalg.vector_norm(v, ord=power, dim=-1, keepdim=True)
    return v / length.clamp_min(torch.finfo(v.dtype).tiny)


def _signs(u: Tensor, like: Tensor) -> Tensor:
    """Turn numbers in [0, 1) into minus or plus one, each as likely, in the dtype of the images."""
    return (u >= 0.5).to(like.dtype) * 2 - 1


def _corner(row: Float[Tensor, "b"], column: Float[Tensor, "b"], pixels: int, x: Tensor) -> Corner:
    """Turn two numbers in [0, 1) into the row and the column of a window's first pixel."""
    h, w = x.shape[2:]
    return (row * (h - pixels + 1)).long(), (column * (w - pixels + 1)).long()


def _window(corner: Corner, pixels: int, x: Tensor) -> Int[Tensor, "b 1 n"]:
    """Positions of the pixels of each window in a flattened channel."""
    (top, left), w = corner, x.shape[3]
    steps = torch.arange(pixels, device=x.device)
    return ((top[:, None] + steps) * w)[:, :, None].add((left[:, None] + steps)[:, None, :]).flatten(1)[:, None]
