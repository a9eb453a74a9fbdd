"""Universal adversarial perturbations: one for all images or one a class, fitted on some images, tried on others.

They are the counterpart of the universal inverse perturbations of UIAT, and are moved and applied by the same code.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks.gradient import UNSAID, expected_gradient, expected_logits, one_draw
from uiat.attacks.random_numbers import keys, rekey
from uiat.attacks.search import Classifier, SearchState, one_attempt, query
from uiat.checks import Count, checked_fields
from uiat.errors import UserError
from uiat.inverse.adversary import UniversalInverse
from uiat.inverse.state import InverseState
from uiat.inverse.universal import apply_universal
from uiat.models.modes import frozen
from uiat.shapes import Float, Int
from uiat.system.distributed import current_rank
from uiat.threat import Threat

BATCH = 100  # fitting images a step, whatever fits into memory at once: another number is another fit
FIRST_STEP = 0.3  # length of the first step, as a fraction of the radius; the last one is nearly 0
MOMENTUM = 0.9  # of the gradients: as if a step saw ten batches
NOT_FITTED = "is fitted before it is tried, on images apart from those it is tried on: give them, fit=(x, y)"


# Works on the positions of a batch part by part, and yields how many are done after each.
InParts = Callable[[Tensor, Callable[[Tensor], None]], Iterable[int]]


def at_once(positions: Int[Tensor, "b"], work: Callable[[Tensor], None]) -> list[int]:
    """Work on all positions of a batch in one part.

    Example:
        >>> at_once(torch.arange(3), lambda part: None)
        [3]
    """
    work(positions)
    return [len(positions)]


class FitImages(NamedTuple):
    """Images that perturbations are fitted on, which are not those that they are measured on."""

    x: Tensor  # (n, C, H, W), on the CPU or on the device of the model
    y: Tensor  # (n,)


class FitBatch(NamedTuple):
    """The images of a step of a fit that this process works on."""

    x: Tensor  # (b, C, H, W)
    y: Tensor  # (b,)
    weight: Tensor  # (b,), 0 for an image that is there for its place alone


@checked_fields
@dataclass(frozen=True, kw_only=True)
class UniversalAttack:
    """Universal adversarial perturbations (Moosavi-Dezfooli et al. 2017), by projected steps on batches.

    z_c <- project(z_c + step * steepest(g_c)), with g_c the mean over a batch's images of class c, or over all of them,
    of the gradient of min(CE, ln K) at clip(x + z, 0, 1), averaged over steps (Shafahi et al. 2020, "Universal
    adversarial training", section 4: clipped, so that no image counts that is misclassified for certain). The step
    falls linearly from 0.3 epsilon to 0. Towards a class t, CE_t is lowered on all images of other classes, until it is
    below -ln of one half. An evaluation fits before it measures, see `uiat.evaluate(..., fit=(x, y))`.

    Args:
        threat: the ball.
        passes: number of passes over the fitting images, one forward and one input-only backward an image each.
        per_class: one perturbation a class in place of one for all.
        targeted: towards one class after another; an image is broken by any of them, and by any wrong prediction.
        targets: number of classes to aim at, at most all; those with the largest logits on the fitting images first.
        draws: number of passes that are averaged, for a model that answers at random (EOT).
        z: the fitted perturbations (T, R, C, H, W), of T targets and R classes; None before the fit.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> from uiat import Linf
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> images = FitImages(torch.rand(8, 1, 2, 2), torch.arange(8) % 2)
        >>> attack = UniversalAttack(threat=Linf(0.1), passes=2, per_class=True)
        >>> attack.fit(model, images, num_classes=2).z.shape
        torch.Size([1, 2, 1, 2, 2])
    """

    threat: Threat
    passes: Count = 10
    per_class: bool = False
    targeted: bool = False
    targets: Count = 10
    draws: Count = one_draw()
    z: Float[Tensor, "t r c h w"] | None = field(default=None, compare=False, repr=False, metadata={UNSAID: None})

    @property
    def name(self) -> str:
        """Name of the search; it draws no random numbers."""
        return "uap-class" if self.per_class else "uap"

    @property
    def iterations(self) -> int:
        """Number of perturbations that each image is tried with, a query each."""
        if self.z is not None:
            return len(self.z)
        return self.targets if self.targeted else 1

    attempts = one_attempt

    def start(self, model: Classifier, points: SearchState, attempt: int) -> SearchState:
        """Return the images as they are.

        Raises:
            UserError: the perturbations are not fitted, or to images of another shape.
        """
        z, shape = self._fitted(), tuple(points["x"].shape[1:])
        if tuple(z.shape[2:]) != shape:
            raise UserError(f"the perturbations were fitted to images {tuple(z.shape[2:])}, and these are {shape}")
        return points

    @torch.no_grad()
    def iterate(self, model: Classifier, points: SearchState, i: int) -> SearchState:
        """Try the perturbation towards the next class, and keep it where it breaks the image."""
        z = self._fitted()
        x_t = apply_universal(points["x"], self.rows(points["y"]), z[i].to(points["x"].device))
        return query(model, points, x_t, draws=self.draws)

    def fit(
        self,
        model: Classifier,
        images: FitImages,
        *,
        num_classes: int,
        seed: int = 0,
        device: torch.device | None = None,
        in_parts: InParts = at_once,
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> "UniversalAttack":
        """Return the attack with its perturbations fitted on some images; the same for the same seed.

        Several processes share the images of each step and hold the same perturbations, those of one process up to the
        rounding of sums.

        Args:
            model: maps images in [0, 1] to logits (b, num_classes); a module is frozen while it is used.
            images: images in [0, 1] and their labels; they travel to the device step by step.
            num_classes: K.
            seed: seed of the order of the images.
            device: the device of the model; by default that of the images.
            in_parts: works on positions of a step's images part by part, as memory allows.
            on_step: called after each step with (steps done, of how many).

        Raises:
            UserError: the model's output has no gradient.
        """
        work = _Fit(self, model, images, num_classes, device or images.x.device, in_parts)
        with frozen(model) if isinstance(model, nn.Module) else nullcontext():
            goals = work.rank_targets() if self.targeted else [None]
            total = len(goals) * work.steps
            z = []
            for number, goal in enumerate(goals):

                def report(done: int, before: int = number * work.steps) -> None:
                    on_step(before + done, total)

                z.append(work.fit_one(goal, seed, report))
        return self.fitted(torch.stack(z))

    def fitted(self, z: Float[Tensor, "t r c h w"]) -> "UniversalAttack":
        """Return the attack with perturbations that were fitted before."""
        return replace(self, z=z)

    def rows(self, y: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
        """Return the row of `z` that belongs to each label."""
        return y if self.per_class else torch.zeros_like(y)

    def _fitted(self) -> Tensor:
        if self.z is None:
            raise UserError(f"{self.name} {NOT_FITTED}")
        return self.z


@dataclass(frozen=True)
class _Fit:
    """A fit under way: the attack, the model, and the images."""

    attack: UniversalAttack
    model: Classifier
    images: FitImages
    num_classes: int
    device: torch.device
    in_parts: InParts

    @property
    def steps(self) -> int:
        """Number of steps towards a goal."""
        return self.attack.passes * -(-len(self.images.y) // BATCH)

    def rank_targets(self) -> list[Tensor]:
        """Return the class that each perturbation aims at, (R,) for each of the targets."""
        attack, images = self.attack, self.images
        total = torch.zeros(self.num_classes if attack.per_class else 1, self.num_classes, dtype=images.x.dtype)

        def add(part: Tensor) -> None:
            with torch.no_grad():
                logits = expected_logits(self.model, images.x[part].to(self.device), draws=attack.draws)
            total.index_add_(0, attack.rows(images.y[part].cpu()), logits.cpu().to(total))

        for part in current_rank().index(len(images.y)).split(BATCH):
            for _ in self.in_parts(part, add):
                pass
        current_rank().total(total)
        if attack.per_class:
            total.fill_diagonal_(float("-inf"))
        order = total.argsort(dim=1, descending=True, stable=True)
        return list(order[:, : min(attack.targets, self.num_classes - attack.per_class)].t())

    def fit_one(
        self, goal: Int[Tensor, "r"] | None, seed: int, on_step: Callable[[int], None]
    ) -> Float[Tensor, "r c h w"]:
        """Fit a perturbation, or one a class: away from the labels, or each towards its goal."""
        attack, radius = self.attack, float(self.attack.threat.epsilon)
        rows = self.num_classes if attack.per_class else 1
        z = torch.zeros(rows, *self.images.x.shape[1:], dtype=self.images.x.dtype, device=self.device)
        state = InverseState(z, gradient_momentum=True, rows=0, num_classes=rows)
        for step, batch in enumerate(self._batches(seed)):
            gradient = torch.empty_like(batch.x)
            target = None if goal is None else goal.to(self.device)[attack.rows(batch.y)]

            def fill(part: Tensor, batch: FitBatch = batch, gradient: Tensor = gradient, target: Any = target) -> None:
                here = None if target is None else target[part]
                gradient[part] = self._gradient(FitBatch(*(each[part] for each in batch)), z, here)

            for _ in self.in_parts(torch.arange(len(batch.y)), fill):
                pass
            size = FIRST_STEP * radius * (1 - step / self.steps)
            ascent = UniversalInverse(radius=radius, step_size=size, gradient_momentum=MOMENTUM)
            # An inverse adversary descends: it gets the gradient of the negative loss.
            ascent.update(state, -gradient, attack.rows(batch.y), attack.threat)
            on_step(step + 1)
        return z

    def _gradient(self, batch: FitBatch, z: Tensor, target: Tensor | None) -> Tensor:
        """Compute the gradient of each image's clipped loss at clip(x + z, 0, 1)."""
        x, y, weight = batch
        if target is not None:
            weight = weight * (y != target)

        def loss(at: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.model(at)
            if target is not None:
                return -weight * losses.cross_entropy(logits, target).clamp_min(math.log(2)), logits
            return weight * losses.cross_entropy(logits, y).clamp_max(math.log(self.num_classes)), logits

        at = apply_universal(x, self.attack.rows(y), z)
        return expected_gradient(loss, at, draws=self.attack.draws).gradient.nan_to_num(0, 0, 0)

    def _batches(self, seed: int) -> Iterator[FitBatch]:
        """Yield this process's images of each step, in an order that the seed alone decides.

        Every process gets as many; where a batch does not divide, an image is repeated and given no weight. That
        enlarges the number that a class's gradient is divided by, and a step is as long whatever its gradient.
        """
        rank, key, images = current_rank(), keys(seed, torch.arange(len(self.images.y))), self.images
        for number in range(self.attack.passes):
            for rows in rekey(key, number).argsort().split(BATCH):
                own = rows[rank.rank :: rank.size]
                spare = -(-len(rows) // rank.size) - len(own)
                chosen = torch.cat([own, rows[:1].expand(spare)])
                weight = torch.ones(len(chosen), dtype=images.x.dtype)
                weight[len(own) :] = 0
                yield FitBatch(*(each.to(self.device) for each in (images.x[chosen], images.y[chosen], weight)))
