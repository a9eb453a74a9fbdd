"""The projected-gradient loop, of which every first-order attack and the inverse adversary is a setting."""

from collections.abc import Callable
from dataclasses import field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uiat.checks import Count, Whole, checked
from uiat.errors import UserError
from uiat.models.misfit import explained
from uiat.shapes import Float
from uiat.threat import Threat, to_range

NO_GRADIENT = "the model's output has no gradient with respect to its input: it detaches or quantises it"
# The loss of an inner problem: images (B, ...) -> (loss of each (B,), logits (B, K)).
InnerLoss = Callable[[Tensor], tuple[Tensor, Tensor]]


class Gradient(NamedTuple):
    """The gradient of an inner loss at some images, with the losses and logits of the same forward pass."""

    gradient: Tensor  # (B, ...) like the images
    values: Tensor  # (B,)
    logits: Tensor  # (B, K)


# Sees each step before it is made, and returns which images make it (B,), True for those that do.
Watch = Callable[[Gradient], Tensor]


UNSAID = "unsaid"  # in the metadata of a field: the value at which records leave it out


def one_draw() -> Any:
    """Return the default of a field `draws`: 1, at which records leave it out, so that they are as before it was there.

    Example:
        >>> one_draw().default
        1
    """
    return field(default=1, metadata={UNSAID: 1})


@checked
@explained
def input_gradient(loss: InnerLoss, x: Float[Tensor, "b ..."]) -> Gradient:
    """Compute the gradient of sum_i loss_i with respect to the images alone: one forward, one input-only backward.

    Works under `torch.no_grad` too. Parameter gradients are neither computed nor touched.

    Raises:
        UserError: the loss does not depend on the images through autograd.

    Example:
        >>> w = torch.tensor([[1.0, -2.0]])
        >>> input_gradient(lambda x: ((x * w).sum(1), x), torch.zeros(1, 2)).gradient.tolist()
        [[1.0, -2.0]]
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        values, logits = take_pair(loss(x))
        require_gradient(values)
        # None, and no error, where the weights have a gradient but the images do not: a quantised layer between them.
        (gradient,) = torch.autograd.grad(values.sum(), x, allow_unused=True)
        if gradient is None:
            raise UserError(NO_GRADIENT)
    return Gradient(gradient, values.detach(), logits.detach())


def take_pair(result: object) -> tuple[Tensor, Tensor]:
    """Return what an inner loss has returned, (losses, logits).

    Raises:
        UserError: it is no pair of tensors.

    Example:
        >>> take_pair(torch.zeros(2))
        Traceback (most recent call last):
        uiat.errors.UserError: an inner loss must return a pair of tensors (losses, logits), not a Tensor
    """
    if isinstance(result, tuple) and len(result) == 2 and all(isinstance(each, Tensor) for each in result):
        return result
    raise UserError(f"an inner loss must return a pair of tensors (losses, logits), not a {type(result).__name__}")


def require_gradient(values: Tensor) -> None:
    """Raise a UserError for values that autograd cannot differentiate with respect to the images.

    Example:
        >>> require_gradient(torch.zeros(1))
        Traceback (most recent call last):
        uiat.errors.UserError: the model's output has no gradient with respect to its input: it detaches or quantises it
    """
    if not values.requires_grad:
        raise UserError(NO_GRADIENT)


def expected_gradient(loss: InnerLoss, x: Float[Tensor, "b ..."], *, draws: int) -> Gradient:
    """Average gradient, loss and logits over several passes of a randomised model (EOT; Athalye et al. 2018).

    Example:
        >>> w = torch.tensor([[1.0, -2.0]])
        >>> expected_gradient(lambda x: ((x * w).sum(1), x), torch.zeros(1, 2), draws=3).gradient.tolist()
        [[1.0, -2.0]]
    """
    total = input_gradient(loss, x)
    for _ in range(draws - 1):
        total = Gradient(*(one + other for one, other in zip(total, input_gradient(loss, x), strict=True)))
    return total if draws == 1 else Gradient(*(value / draws for value in total))


def expected_values(loss: InnerLoss, x: Float[Tensor, "b ..."], *, draws: int) -> Float[Tensor, "b"]:
    """Average an inner loss alone over several passes of a randomised model, without a gradient.

    Example:
        >>> expected_values(lambda x: (x.sum(1), x), torch.ones(1, 2), draws=2).tolist()
        [2.0]
    """
    return _mean(lambda at: loss(at)[0], x, draws)


def expected_logits(
    model: Callable[[Tensor], Tensor], x: Float[Tensor, "b ..."], *, draws: int
) -> Float[Tensor, "b k"]:
    """Average the logits over several passes of a randomised model, for queries as `expected_gradient` does for steps.

    Example:
        >>> answers = iter([torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 0.0]])])
        >>> expected_logits(lambda x: next(answers), torch.zeros(1, 2), draws=2).tolist()
        [[2.0, 1.0]]
    """
    return _mean(model, x, draws)


def _mean(function: Callable[[Tensor], Tensor], x: Tensor, draws: int) -> Tensor:
    total = function(x)
    for _ in range(draws - 1):
        total = total + function(x)
    return total if draws == 1 else total / draws


def usual_step_size(threat: Threat, steps: int) -> float:
    """Return the length of a step of 2.5 epsilon / K, and no longer than epsilon (Madry et al. 2018).

    Example:
        >>> from uiat import Linf
        >>> usual_step_size(Linf(0.1), 10), usual_step_size(Linf(0.1), 1)
        (0.025, 0.1)
    """
    return min(2.5 / steps, 1.0) * float(threat.epsilon)


@checked
def projected_gradient(
    loss: InnerLoss,
    x: Float[Tensor, "b ..."],
    start: Float[Tensor, "b ..."],
    *,
    threat: Threat,
    step_size: float,
    steps: Whole,
    descend: bool = False,
    bounded: bool = True,
    keep_best: bool = False,
    watch: Watch | None = None,
    draws: Count = 1,
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b"] | None]:
    """Run x_{t+1} = project(x_t +- step_size * steepest(grad)) (Madry et al. 2018, eq. 2.2), with minus to descend.

    Args:
        loss: the inner loss; it is raised, or lowered with `descend`.
        x: the centre of the ball, (B, ...) in [0, 1].
        start: the first iterate, in the ball and in [0, 1].
        threat: the ball.
        step_size: length of a step in the norm of the threat model, in units of [0, 1].
        steps: number of steps, one forward and one input-only backward each.
        descend: lower the loss, as an inverse adversary does.
        bounded: project each iterate onto the ball; off, iterates are only clipped to [0, 1].
        keep_best: return, for each example, the iterate with the best loss and that loss, at one forward more.
        watch: sees each step before it is made, and says which images make it; by default all do.
        draws: number of passes over each iterate that are averaged, for a model that answers at random.

    Returns:
        The last or the best iterate (B, ...), and its loss (B,), which is None for the last iterate.

    Raises:
        UserError: the loss does not depend on the images through autograd.

    Example:
        >>> from uiat.threat import Linf
        >>> x = torch.full((1, 2), 0.5)
        >>> x_adv, _ = projected_gradient(lambda x: (x.sum(1), x), x, x, threat=Linf(0.25), step_size=0.1, steps=3)
        >>> x_adv.tolist()
        [[0.75, 0.75]]
    """
    if start.shape != x.shape:
        raise UserError(f"start must have the shape of x, {tuple(x.shape)}, not {tuple(start.shape)}")
    direction, x_t = -step_size if descend else step_size, start
    best: Tensor | None = None
    best_value: Tensor | None = None

    def update_best(value: Tensor) -> None:
        nonlocal best, best_value
        if best is None or best_value is None:
            best, best_value = x_t, value
            return
        better = value < best_value if descend else value > best_value
        best = torch.where(better.view(-1, *[1] * (x.ndim - 1)), x_t, best)
        best_value = torch.where(better, value, best_value)

    for _ in range(steps):
        step = expected_gradient(loss, x_t, draws=draws)
        if keep_best:
            update_best(step.values)
        moved = x_t + direction * threat.steepest(step.gradient)
        moved = threat.project(moved, x) if bounded else to_range(moved)
        x_t = moved if watch is None else torch.where(watch(step).view(-1, *[1] * (x.ndim - 1)), moved, x_t)
    if keep_best:
        with torch.no_grad():
            update_best(expected_values(loss, x_t, draws=draws))
    return (x_t if best is None else best), best_value
