"""PGD, FGSM, FGSM-RS and N-FGSM as values: frozen settings that can be called on a model and images."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks.gradient import InnerLoss, Watch, expected_logits, expected_values, one_draw, projected_gradient
from uiat.attacks.random_numbers import KeyedNumbers, rekey
from uiat.attacks.search import Classifier, where_image
from uiat.checks import Between, Count, Whole, check_step, check_values, checked, checked_fields, number
from uiat.errors import UserError
from uiat.models.inspect import classes_of
from uiat.models.misfit import explained
from uiat.models.modes import BatchNormMode, frozen
from uiat.shapes import Float, Int
from uiat.system.distributed import current_rank
from uiat.system.surroundings import check_ordinary, neutral_surroundings, ordinary
from uiat.threat import Linf, Threat, to_range

# TRADES starts from N(0, 0.001^2) noise: at the natural image itself its KL has no gradient.
GAUSSIAN_STANDARD_DEVIATION = 0.001
StartRadius = Annotated[float, Between(0, 1_000, above=True)]


@checked_fields
@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent (Madry et al. 2018), of which FGSM, CW-PGD and the inverse adversary are settings.

    Args:
        threat: the ball, such as `Linf("8/255")`.
        step_size: length of a step in units of [0, 1], a number or a fraction such as "2/255". A float afterwards.
        steps: number of gradient steps a restart, one forward and one input-only backward each. 0: the start alone.
        restarts: number of independent runs; for each example the one with the best loss is returned.
        loss: "ce" (cross entropy), "margin" (Carlini & Wagner 2017), "kl" (to the prediction on x; Zhang et al. 2019),
            "squared" (squared distance of the probabilities from those on x; Pang et al. 2022).
        start: "uniform" in the ball, "gaussian" (standard deviation 0.001), "none" (at x), or "memory": at what the
            attack found for the same training image an epoch ago (ATTA; Zheng et al. 2020). That is for training under
            Linf alone; the training step keeps the memory, see `uiat.training.attack_memory`.
        start_radius: radius of the ball that a uniform start is drawn from, in epsilons.
        bounded: hold every iterate in the ball. Off, they are held in [0, 1] alone, as N-FGSM does in training.
        keep: "last" iterate, or the "best" one by the loss (one forward more).
        descend: lower the loss instead, as the inverse adversary of UIAT does.
        batchnorm: mode of the model during the attack: "eval", or "train" (batch statistics, nothing written).
        draws: number of passes over each iterate whose gradients and losses are averaged, for a model that answers at
            random (EOT; Athalye et al. 2018).

    Raises:
        UserError: a field out of its range.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
        >>> x_adv = PGD(threat=Linf(0.25), step_size=0.125, steps=3)(model, x, y)
        >>> bool((x_adv - x).abs().max() <= 0.25)
        True
    """

    threat: Threat = Linf("8/255")
    step_size: float | str = "2/255"
    steps: Whole = 10
    restarts: Count = 1
    loss: Literal["ce", "margin", "kl", "squared"] = "ce"
    start: Literal["uniform", "gaussian", "none", "memory"] = "uniform"
    start_radius: StartRadius = 1.0
    bounded: bool = True
    keep: Literal["last", "best"] = "last"
    descend: bool = False
    batchnorm: BatchNormMode = "eval"
    draws: Count = one_draw()

    def __post_init__(self) -> None:
        object.__setattr__(self, "step_size", number(self.step_size, name="step_size"))
        check_step(float(self.step_size), radius=float(self.threat.epsilon))
        if self.bounded and self.start_radius > 1:
            raise UserError(f"a start of {self.start_radius:g} epsilons lies outside the ball: set bounded to false")
        if self.loss in ("kl", "squared") and self.start == "none":
            raise UserError(
                f'the "{self.loss}" loss has no gradient at x itself: use start="gaussian" or start="uniform"'
            )

        if self.start == "memory" and not (self.threat.norm == "Linf" and self.bounded and self.restarts == 1):
            raise UserError('start="memory" is for a bounded attack under Linf with one restart')

    @checked
    @neutral_surroundings()
    def __call__(
        self,
        model: nn.Module,
        x: Float[Tensor, "b ..."],
        y: Int[Tensor, "b"],
        *,
        generator: torch.Generator | None = None,
        key: Int[Tensor, "b"] | None = None,
    ) -> Float[Tensor, "b ..."]:
        """Check the inputs and return adversarial examples.

        Args:
            model: maps images (B, ...) in [0, 1] to logits (B, K); as it was afterwards, also after an exception.
            x: images, floats in [0, 1].
            y: true labels, int64.
            generator: source of the random starts, on the device of `x`; torch's own by default.
            key: instead of a generator, a key for each example's own random starts, which then do not depend on the
                rest of the batch; see `uiat.attacks.random_numbers.keys`.

        Returns:
            The adversarial examples, like `x`.

        Raises:
            UserError: images or labels that cannot be what was meant, or a model that does not return logits.
        """
        check_ordinary(model)
        x = ordinary(x)
        check_values(x, y, num_classes=classes_of(model, x))
        return self.perturb(model, x, y, generator=generator, key=key)

    @checked
    @explained
    def perturb(
        self,
        model: Classifier,
        x: Float[Tensor, "b ..."],
        y: Int[Tensor, "b"],
        *,
        generator: torch.Generator | None = None,
        key: Tensor | None = None,
        reference: Tensor | None = None,
        watch: Watch | None = None,
        x_start: Tensor | None = None,
        soft_labels: Float[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b ..."]:
        """Return adversarial examples without checking the inputs, so that the host never waits for the device.

        For batches that were checked when they were loaded. The arguments are those of a call, but `model` may be any
        callable from images to logits, which is used in the mode that it is in.

        Args:
            model: as in a call.
            x: as in a call.
            y: as in a call.
            generator: as in a call.
            key: as in a call.
            reference: log-probabilities (B, K) that the losses "kl" and "squared" measure from; by default those of the
                model on `x`, for one forward pass.
            watch: sees each step before it is made, and says which images make it (`projected_gradient`).
            x_start: images to start from, for `start="memory"`: `batch.x_start`; they are projected first.
            soft_labels: labels as probabilities (B, K), which the loss "ce" takes in place of `y`; the others need one
                true class, and take `y`.

        Raises:
            UserError: two sources of random starts; a start from memory without `x_start`, as in an evaluation.
        """
        if generator is not None and key is not None:
            raise UserError("random starts come from a generator or from keys, not from both")
        mode: AbstractContextManager[None] = nullcontext()
        if isinstance(model, nn.Module):
            mode = frozen(model, batchnorm=self.batchnorm)
        with mode:
            x = x.detach()
            starts = (self._start(x, generator, key, restart, x_start) for restart in range(self.restarts))
            return self._attack(self._inner_loss(model, x, y, reference, soft_labels), x, starts, watch)

    def _attack(self, loss: InnerLoss, x: Tensor, starts: Iterator[Tensor], watch: Watch | None) -> Tensor:
        """Run all restarts, and return for each example the one with the best loss."""
        best, best_value = self._run(loss, x, next(starts), watch)
        for start in starts:
            other, value = self._run(loss, x, start, watch)
            assert best_value is not None
            assert value is not None
            better = value < best_value if self.descend else value > best_value
            best = where_image(better, other, best)
            best_value = torch.where(better, value, best_value)
        return best

    def single_step(self, x_adv: Tensor, gradient: Tensor, x: Tensor) -> Float[Tensor, "b ..."]:
        """Make one step along a gradient that is already there, as Free adversarial training does.

        Args:
            x_adv: images to move, in the ball around `x`.
            gradient: gradient of the loss with respect to them.
            x: the centre of the ball.

        Example:
            >>> x = torch.full((1, 2), 0.5)
            >>> PGD(threat=Linf(0.25), step_size=0.25).single_step(x, torch.tensor([[3.0, -0.1]]), x).tolist()
            [[0.75, 0.25]]
        """
        with torch.no_grad():
            step = float(self.step_size) * self.threat.steepest(gradient)
            moved = x_adv - step if self.descend else x_adv + step
            return self.threat.project(moved, x) if self.bounded else to_range(moved)

    def draw_start(self, x: Tensor) -> Float[Tensor, "b ..."]:
        """Draw a start of the attack for each image, from torch's own generator.

        Example:
            >>> x = torch.full((1, 2), 0.5)
            >>> bool((PGD(threat=Linf(0.25)).draw_start(x) - x).abs().max() <= 0.25)
            True
        """
        return self._start(x, None, None, 0, None)

    def _run(self, loss: InnerLoss, x: Tensor, start: Tensor, watch: Watch | None) -> tuple[Tensor, Tensor | None]:
        x_adv, value = projected_gradient(
            loss,
            x,
            start,
            threat=self.threat,
            step_size=float(self.step_size),
            steps=self.steps,
            descend=self.descend,
            bounded=self.bounded,
            keep_best=self.keep == "best",
            watch=watch,
            draws=self.draws,
        )
        if value is None and self.restarts > 1:
            with torch.no_grad():
                value = expected_values(loss, x_adv, draws=self.draws)
        return x_adv, value

    def _start(
        self, x: Tensor, generator: torch.Generator | None, key: Tensor | None, restart: int, x_start: Tensor | None
    ) -> Tensor:
        if self.start == "none":
            return x
        if self.start == "memory":
            if x_start is None:
                raise UserError(
                    'start="memory" is for training, whose step remembers each image (x_start=batch.x_start); '
                    'elsewhere use start="uniform"'
                )
            return self.threat.project(x_start, x)
        if key is None:
            noise = current_rank().draw(x, lambda like: self._noise(like, generator))
        elif self.start == "uniform":
            noise = self.start_radius * self.threat.noise_from(x, KeyedNumbers(rekey(key, restart)))
        else:
            noise = GAUSSIAN_STANDARD_DEVIATION * KeyedNumbers(rekey(key, restart)).normal(x.shape[1:]).to(x)
        return self.threat.project(x + noise, x) if self.bounded else to_range(x + noise)

    def _noise(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.start == "uniform":
            noise = self.threat.noise(like, generator=generator)
            return noise if self.start_radius == 1 else self.start_radius * noise
        return torch.empty_like(like).normal_(0.0, GAUSSIAN_STANDARD_DEVIATION, generator=generator)

    def _inner_loss(
        self, model: Classifier, x: Tensor, y: Tensor, reference: Tensor | None, soft_labels: Tensor | None
    ) -> InnerLoss:
        """Return the loss as a function of the images alone; what it takes of x is computed once."""
        if self.loss in ("kl", "squared"):
            return self._distance(model, x, reference)
        labels = soft_labels if soft_labels is not None and self.loss == "ce" else y
        loss_function = losses.cross_entropy if self.loss == "ce" else losses.margin

        def inner(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(x_adv)
            return loss_function(logits, labels), logits

        return inner

    def _distance(self, model: Classifier, x: Tensor, reference: Tensor | None) -> InnerLoss:
        """Return the distance of a prediction from that on x, or from another reference."""
        if reference is None:
            with torch.no_grad():
                reference = losses.log_probabilities(expected_logits(model, x, draws=self.draws))
        distance = losses.kl if self.loss == "kl" else losses.squared_distance

        def inner(x_adv: Tensor) -> tuple[Tensor, Tensor]:
            logits = model(x_adv)
            return distance(reference, losses.log_probabilities(logits)), logits

        return inner


@checked
def FGSM(*, threat: Threat, batchnorm: BatchNormMode = "eval") -> PGD:
    """Return the fast gradient sign method (Goodfellow et al. 2015): one step of epsilon from x itself.

    Example:
        >>> FGSM(threat=Linf(0.1)).steps
        1
    """
    return PGD(threat=threat, step_size=float(threat.epsilon), steps=1, start="none", batchnorm=batchnorm)


@checked
def FGSMRS(*, threat: Threat, batchnorm: BatchNormMode = "eval") -> PGD:
    """Return FGSM from a random start (Wong et al. 2020, "Fast is better than free"): a projected step of 1.25 epsilon.

    Example:
        >>> round(FGSMRS(threat=Linf(0.1)).step_size, 4)
        0.125
    """
    return PGD(threat=threat, step_size=1.25 * float(threat.epsilon), steps=1, batchnorm=batchnorm)


@checked
def NFGSM(*, threat: Threat, noise: StartRadius = 2.0, batchnorm: BatchNormMode = "eval") -> PGD:
    """Return N-FGSM (de Jorge et al. 2022, algorithm 1): a step of epsilon from a start in `noise` epsilons, unbounded.

    Example:
        >>> NFGSM(threat=Linf(0.1)).start_radius
        2.0
    """
    step_size = float(threat.epsilon)
    return PGD(threat=threat, step_size=step_size, steps=1, start_radius=noise, bounded=False, batchnorm=batchnorm)
