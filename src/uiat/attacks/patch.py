"""Adversarial patches: a square of the image may change in any way, and the rest not at all."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from uiat import losses
from uiat.attacks.gradient import expected_gradient, expected_logits, one_draw
from uiat.attacks.random_numbers import KeyedNumbers, rekey
from uiat.attacks.search import Classifier, SearchState, where_image
from uiat.checks import Count, Positive, Side, Whole, checked_fields
from uiat.errors import UserError
from uiat.shapes import Bool, Float, Int
from uiat.threat import to_range


@checked_fields
@dataclass(frozen=True)
class Patch:
    """Threat model of a patch: the pixels of one square may have any value in [0, 1], the others stay as they are.

    Args:
        size: side of the square in pixels.
        place: row and column of its upper left corner; anywhere by default.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> x_adv = torch.zeros(2, 1, 4, 4)
        >>> x_adv[0, 0, 1:3, 2:4] = 1.0
        >>> x_adv[1, 0, 0, 0] = x_adv[1, 0, 3, 3] = 1.0
        >>> Patch(2).allows(x_adv, torch.zeros(2, 1, 4, 4)).tolist()
        [True, False]
    """

    size: Side
    place: tuple[Whole, Whole] | None = None

    def allows(self, x_adv: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"]) -> Bool[Tensor, "b"]:
        """Mask of the images all of whose changes lie in one square of this size, and at its place."""
        changed = (x_adv != x).any(dim=1)
        if self.place is not None:
            row, column = self.place
            changed = changed.clone()
            changed[:, row : row + self.size, column : column + self.size] = False
            return ~changed.flatten(1).any(dim=1)
        return self._fits(changed.any(dim=2)) & self._fits(changed.any(dim=1))

    def _fits(self, changed: Bool[Tensor, "b n"]) -> Bool[Tensor, "b"]:
        """Mask of the rows whose first and last change are less than the side apart."""
        at = torch.arange(changed.shape[1], device=changed.device)
        first = at.masked_fill(~changed, changed.shape[1]).amin(dim=1)
        return at.masked_fill(~changed, -1).amax(dim=1) - first < self.size

    def check_fits(self, image_shape: tuple[int, ...]) -> None:
        """Raise a UserError for a patch that is not inside images of this shape."""
        height, width = image_shape[-2:]
        if self.size > min(height, width):
            raise UserError(
                f"a patch of {self.size} x {self.size} pixels is larger than the images, {height} x {width}"
            )
        if self.place is not None and (self.place[0] + self.size > height or self.place[1] + self.size > width):
            raise UserError(f"a patch of {self.size} pixels at {self.place} leaves the images, {height} x {width}")

    def masks(self, corner: Int[Tensor, "b 2"], image_shape: tuple[int, ...]) -> Bool[Tensor, "b 1 h w"]:
        """Return the square of each image whose upper left corner is at this row and column."""
        inside = []
        for axis, side in enumerate(image_shape[-2:]):
            at, first = torch.arange(side, device=corner.device), corner[:, axis, None]
            inside.append((at >= first) & (at < first + self.size))
        return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


@checked_fields
@dataclass(frozen=True, kw_only=True)
class PatchAttack:
    """Patch attack: sign steps of the cross entropy on a square of pixels, at one random place an attempt.

    Each image has a patch of its own (Karmon et al. 2018, "LaVAN"), no universal one (Brown et al. 2017). An attempt
    starts at random values, and costs a forward and an input-only backward pass an iteration, and a forward pass more
    to try where the last step led. A patch is in no ball: an evaluation keeps it out of the worst case over its threat
    model.

    Args:
        threat: the size of the square and, if it is fixed, its place.
        iterations: number of steps of an attempt.
        restarts: number of attempts, each at another random place, or from another start.
        step_size: change of a pixel in a step, in units of [0, 1].
        draws: number of passes that are averaged, for a model that answers at random (EOT).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> model = lambda x: torch.stack([x.flatten(1).sum(1) - 8, 8 - x.flatten(1).sum(1)], dim=1)
        >>> x, y = torch.full((2, 1, 4, 4), 0.6), torch.tensor([0, 0])
        >>> attack = PatchAttack(threat=Patch(2), iterations=20)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(2)))
        >>> advance(attack, model, points, 0, 20)["broken"].tolist()
        [True, True]
    """

    name: ClassVar[str] = "patch"
    outside_ball: ClassVar[bool] = True
    threat: Patch
    iterations: Count = 30
    restarts: Count = 10
    step_size: Positive = 0.1
    draws: Count = one_draw()

    def check_fits(self, num_classes: int, image_shape: tuple[int, ...]) -> None:
        """Raise a UserError for a patch that is not inside the images."""
        self.threat.check_fits(image_shape)

    def attempts(self, num_classes: int) -> int:
        """Return the number of restarts, 0 if there is only one class to predict."""
        return self.restarts if num_classes > 1 else 0

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Choose the square of each image, and fill it with random values.

        Raises:
            UserError: the square is not inside the images.
        """
        x, key = points["x"], points["key"]
        self.threat.check_fits(tuple(x.shape[1:]))
        room = torch.tensor([side - self.threat.size + 1 for side in x.shape[-2:]], device=x.device)
        corner = (KeyedNumbers(rekey(key, 0)).uniform((2,)).to(x.device) * room).long()
        if self.threat.place is not None:
            corner = torch.tensor(self.threat.place, device=x.device).expand_as(corner)
        mask = self.threat.masks(corner, tuple(x.shape[1:]))
        values = KeyedNumbers(rekey(key, 1)).uniform(x.shape[1:]).to(x)
        return points | {"mask": mask, "x_t": torch.where(mask, values, x)}

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Keep the patch where it breaks the image, and make a step on the others."""
        y, x_t, broken = points["y"], points["x_t"], points["broken"]

        def loss(at: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(at)
            return losses.cross_entropy(logits, y), logits

        here = expected_gradient(loss, x_t, draws=self.draws)
        breaks = (here.logits.argmax(dim=1) != y) & ~broken
        moved = to_range(x_t + self.step_size * here.gradient.nan_to_num(0, 0, 0).sign() * points["mask"])
        x_t, broken = where_image(broken | breaks, x_t, moved), broken | breaks
        if i + 1 == self.iterations:  # no other step tries where this one has led
            last = (expected_logits(model, x_t, draws=self.draws).argmax(dim=1) != y) & ~broken
            breaks, broken = breaks | last, broken | last
        return points | {"x_t": x_t, "x_adv": where_image(breaks, x_t, points["x_adv"]), "broken": broken}

    def best(self, points: SearchState) -> Float[Tensor, "b ..."]:
        """Return the last iterate; of a broken image its example."""
        return where_image(points["broken"], points["x_adv"], points["x_t"])
