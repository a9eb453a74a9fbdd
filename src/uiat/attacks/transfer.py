"""Transfer attack: examples made on one model, tried on another whose gradients the attacker never sees."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks.gradient import expected_gradient, expected_logits, one_draw, usual_step_size
from uiat.attacks.random_numbers import KeyedNumbers
from uiat.attacks.search import Classifier, SearchState, per_image, where_image
from uiat.checks import Amount, Count, checked_fields
from uiat.errors import UserError
from uiat.models.modes import frozen
from uiat.threat import Threat


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Projected gradient steps with momentum (Dong et al. 2018, MI-FGSM) on a second model, each tried on the first.

    The second model is in eval mode and frozen while it is used, and as it was afterwards. A step costs a forward and
    an input-only backward pass through it and a forward pass through the model that is attacked.

    Args:
        source: the second model, on the device of the images, with as many classes as the first.
        threat: the ball.
        iterations: number of steps, of 2.5 epsilon / iterations each.
        restarts: number of attempts; the first begins at the image itself, others at random in the ball.
        loss: loss that is raised on the second model: "margin" or "ce".
        momentum: fraction of the last direction that the next one keeps.
        draws: number of passes of either model that are averaged, where one answers at random (EOT).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> from uiat import Linf
        >>> from uiat.attacks.random_numbers import keys
        >>> from uiat.attacks.search import advance, begin
        >>> source, model = nn.Linear(4, 2), nn.Linear(4, 2)
        >>> x, y = torch.rand(3, 4), torch.tensor([0, 0, 1])
        >>> attack = Transfer(source=source, threat=Linf(0.3), iterations=5)
        >>> points = begin(attack, model, x, y, keys(0, torch.arange(3)))
        >>> advance(attack, model, points, 0, 5)["broken"].shape
        torch.Size([3])
    """

    name: ClassVar[str] = "transfer"
    source: nn.Module
    threat: Threat
    iterations: Count = 20
    restarts: Count = 2
    loss: Literal["margin", "ce"] = "margin"
    momentum: Amount = 1.0
    draws: Count = one_draw()

    def attempts(self, num_classes: int) -> int:
        """Return the number of restarts, 0 if there is only one class to predict."""
        return self.restarts if num_classes > 1 else 0

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Start at the image, in later attempts at a random point of the ball.

        Raises:
            UserError: the two models differ in the number of their classes.
        """
        x = points["x"]
        with frozen(self.source):
            ours, theirs = (classifier(x[:1]).shape[-1] for classifier in (model, self.source))
        if ours != theirs:
            raise UserError(f"the model to transfer from tells {theirs} classes apart, and the model judged {ours}")
        x_t = x
        if attempt > 0:
            x_t = self.threat.project(x + self.threat.noise_from(x, KeyedNumbers(points["key"])), x)
        return points | {"x_t": x_t, "direction": torch.zeros_like(x)}

    def best(self, points: SearchState) -> Tensor:
        """Return the last iterate; of a broken image its example."""
        return where_image(points["broken"], points["x_adv"], points["x_t"])

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Make a step on the second model, and query the first."""
        x, y, x_t, broken = points["x"], points["y"], points["x_t"], points["broken"]
        loss_function = losses.margin if self.loss == "margin" else losses.cross_entropy

        def loss(at: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.source(at)
            return loss_function(logits, y), logits

        with frozen(self.source):
            gradient = expected_gradient(loss, x_t, draws=self.draws).gradient.nan_to_num(0, 0, 0)
        # Each gradient at L1 length one, as in the paper, so that the momentum weighs directions and not sizes.
        size = gradient.abs().flatten(1).sum(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        direction = self.momentum * points["direction"] + gradient / per_image(size, x)
        step = usual_step_size(self.threat, self.iterations) * self.threat.steepest(direction)
        x_t = where_image(broken, x_t, self.threat.project(x_t + step, x))
        breaks = (expected_logits(model, x_t, draws=self.draws).argmax(dim=1) != y) & ~broken
        return points | {
            "x_t": x_t,
            "direction": direction,
            "x_adv": where_image(breaks, x_t, points["x_adv"]),
            "broken": broken | breaks,
        }
