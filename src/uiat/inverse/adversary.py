"""Inverse adversaries: perturbations that lower the loss, for each image, a class, or by a generator of both.

Source: Dong et al., "The Enemy of My Enemy is My Friend", CVPR 2023 (UIAT). PAPER.md says which details are the
paper's own and which are inferred.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from uiat.attacks import input_gradient, projected_gradient
from uiat.checks import Amount, Between, Count, Whole, check_step, checked_fields, number
from uiat.errors import UserError
from uiat.inverse.generator import GeneratorInverse
from uiat.inverse.grid import (
    Storage,
    cell_of,
    check_storage,
    grid_shape,
    norm_scale,
    round_inwards,
    storage_type,
    sum_cells,
)
from uiat.inverse.loss import Inverse, Regulariser, inverse_loss, set_number
from uiat.inverse.state import InverseState
from uiat.inverse.universal import apply_universal, class_gradients, load_inverse
from uiat.shapes import Float
from uiat.threat import Threat


def _set_numbers(adversary: "UniversalInverse | InstanceInverse") -> None:
    radius = set_number(adversary, "radius")
    check_step(set_number(adversary, "step_size"), radius=radius, name="inverse.step_size")


@checked_fields
@dataclass(frozen=True, kw_only=True)
class InstanceInverse:
    """An inverse adversary for each image (IAT, UIAT CVPR 2023): x_inv = argmin over the ball of L_inv.

    Args:
        radius: epsilon_inv in units of [0, 1], in the norm of the attack; a number or a fraction.
        step_size: length of a step in units of [0, 1]; a number or a fraction.
        steps: number of descent steps from x itself, one forward and one input-only backward each.
        regulariser: R in L_inv = CE + mu R: "none", "feature", "feature-repulsion" or "logit".
        regulariser_weight: mu.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> InstanceInverse(radius="4/255").radius == 4 / 255
        True
    """

    kind: Literal["instance"] = "instance"
    radius: float | str = "4/255"
    step_size: float | str = "2/255"
    steps: Count = 10
    regulariser: Regulariser = "none"
    regulariser_weight: Amount = 1.0

    def __post_init__(self) -> None:
        _set_numbers(self)

    def active(self, epoch: int) -> bool:
        """True: there is an inverse adversary in every epoch."""
        return True

    def initial(self, num_classes: int, image_shape: tuple[int, ...], threat: Threat) -> None:
        """Return None: there is no universal perturbation."""

    def find(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, state: InverseState, threat: Threat, epoch: int
    ) -> Inverse:
        """Descend L_inv from x, within `radius` in the norm of `threat`; the state is not used.

        Args:
            model: the model, already frozen and in the mode of attacks.
            x: images (B, C, H, W).
            x_adv: their adversarial examples.
            y: labels.
            state: not used.
            threat: threat model whose norm the ball has.
            epoch: not used.
        """
        loss = inverse_loss(model, x, x_adv, y, regulariser=self.regulariser, weight=self.regulariser_weight)
        inverse_threat = replace(threat, epsilon=self.radius)
        step = float(self.step_size)
        x_inv, _ = projected_gradient(loss, x, x, threat=inverse_threat, step_size=step, steps=self.steps, descend=True)
        return Inverse(x_inv, None)


@checked_fields
@dataclass(frozen=True, kw_only=True)
class UniversalInverse:
    """One universal inverse perturbation a class (UIAT), refined by one gradient a step, in every epoch or in one.

    z_c <- project(z_c - step_size * steepest(g_c)), with g_c the mean over the batch's images of class c of the
    gradient of L_inv at clip(x + z_y, 0, 1). Classes that are not in the batch stay as they are.

    Args:
        radius: epsilon_inv in units of [0, 1], in the norm of the attack; a number or a fraction.
        step_size: length of a step in units of [0, 1]; a number or a fraction.
        steps: number of gradient steps a batch, one forward and one input-only backward each.
        epoch: one-off UIAT: refine in this epoch only (counted from 0), with the base method alone before it and the
            frozen z after it. None refines in every epoch.
        start: first value of z: "zeros", "uniform" in the ball, or "sign" (a random corner of it).
        gradient_momentum: fraction of the last g_c that is kept, in [0, 1).
        regulariser: R in L_inv = CE + mu R: "none", "feature", "feature-repulsion" or "logit".
        regulariser_weight: mu.
        warm_start: a run folder or a file of universal perturbations to start from, of any resolution and type.
        resolution: side of z as a fraction of the image's: 1, or 1/n such as "1/2", on whose grid z is kept and moved
            and from which it is upsampled, each n x n pixels alike; the radius is that of the upsampled one. Not of
            the paper; memory falls with its square.
        storage: type that z is kept in between steps: "float32", "bfloat16" or "float16". Steps are computed in
            float32 and rounded towards zero, which never leaves the ball. Not of the paper.

    Raises:
        UserError: a field out of its range, a step that could vanish in rounding, or a warm start that does not fit.

    Example:
        >>> UniversalInverse(epoch=5).refines(5), UniversalInverse(epoch=5).refines(6), UniversalInverse().refines(6)
        (True, False, True)
    """

    kind: Literal["universal"] = "universal"
    radius: float | str = "4/255"
    step_size: float | str = "1/255"
    steps: Count = 1
    epoch: Whole | None = None
    start: Literal["zeros", "uniform", "sign"] = "zeros"
    gradient_momentum: Annotated[float, Between(0, 0.9999)] = 0.0
    regulariser: Regulariser = "none"
    regulariser_weight: Amount = 1.0
    warm_start: str | None = None
    resolution: float | str = 1.0
    storage: Storage = "float32"

    def __post_init__(self) -> None:
        _set_numbers(self)
        object.__setattr__(self, "resolution", number(self.resolution, name="inverse.resolution"))
        cell_of(float(self.resolution))
        check_storage(self.storage, step_size=float(self.step_size), radius=float(self.radius))

    @property
    def cell(self) -> int:
        """Pixels of an image along the side of one entry of z."""
        return cell_of(float(self.resolution))

    def refines(self, epoch: int) -> bool:
        """True if z is updated in this epoch."""
        return self.epoch is None or epoch == self.epoch

    def active(self, epoch: int) -> bool:
        """True if z is used in this epoch: a one-off z does not exist before its epoch."""
        return self.epoch is None or epoch >= self.epoch

    def initial(self, num_classes: int, image_shape: tuple[int, ...], threat: Threat) -> Float[Tensor, "k c h w"]:
        """Return z before the first step, from torch's own random generator if it is random.

        Args:
            num_classes: K.
            image_shape: (C, H, W).
            threat: threat model whose norm the ball has.

        Raises:
            UserError: the warm start cannot be read or has another shape, or the resolution does not divide the image.
        """
        shape, dtype = (num_classes, *grid_shape(image_shape, self.cell)), storage_type(self.storage)
        if self.warm_start is None and self.start == "zeros":
            return torch.zeros(shape, dtype=dtype)
        ball = self._grid_ball(threat)
        if self.warm_start is not None:
            z = ball.ball(self._read_warm(self.warm_start, num_classes, image_shape))
        else:
            noise = ball.noise(torch.zeros(shape))
            z = noise if self.start == "uniform" else ball.ball(float(ball.epsilon) * noise.sign())
        return round_inwards(z, dtype)

    def _read_warm(self, path: str, num_classes: int, image_shape: tuple[int, ...]) -> Tensor:
        """Read perturbations, on this grid: the nearest ones on it, which are the means over its cells."""
        warm, needed = load_inverse(path), (num_classes, *image_shape)
        if (has := (len(warm.z), *warm.image_shape)) != needed:
            raise UserError(f"inverse.warm_start has shape {has}, this run needs {needed}")
        if warm.cell == self.cell:
            return warm.z.float()
        return sum_cells(warm.upsampled(), self.cell) / self.cell**2

    def _grid_ball(self, threat: Threat) -> Threat:
        """Return the ball that z lies in on its grid, where its upsampled form lies in that of `radius`."""
        return replace(threat, epsilon=float(self.radius) / norm_scale(threat.norm, self.cell))

    def find(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, state: InverseState, threat: Threat, epoch: int
    ) -> Inverse:
        """Refine z in place, in epochs in which it is refined, and apply it.

        The logits returned come from the last gradient's forward pass: they are at z before its update.

        Args:
            model: the model, already frozen and in the mode of attacks.
            x: images (B, C, H, W).
            x_adv: their adversarial examples.
            y: labels.
            state: state that holds z, and the momentum of its gradient.
            threat: threat model whose norm the ball has.
            epoch: number of the epoch, from 0.
        """
        z = state.z
        assert z is not None
        logits = None
        if self.refines(epoch):
            loss = inverse_loss(model, x, x_adv, y, regulariser=self.regulariser, weight=self.regulariser_weight)
            for _ in range(self.steps):
                gradient, _, logits = input_gradient(loss, apply_universal(x, y, z, self.cell))
                self.update(state, gradient, y, threat)
        return Inverse(apply_universal(x, y, z, self.cell), logits)

    def update(self, state: InverseState, gradient: Tensor, y: Tensor, threat: Threat) -> None:
        """Make one projected descent step on z, in place, from the gradient of each image (B, C, H, W).

        On a grid, the gradient of a cell is the sum of its pixels', and radius and step are divided by the length that
        upsampling adds; `uiat.inverse.grid` derives that this is the step on the images.
        """
        z = state.z
        assert z is not None
        wide = torch.promote_types(z.dtype, torch.float32)
        g, rows, present = class_gradients(gradient.to(wide), y, len(z), self.cell)
        here = present.view(-1, 1, 1, 1)
        if state.g is not None:
            before = state.g[rows]
            g = torch.where(here, self.gradient_momentum * before + (1 - self.gradient_momentum) * g, before)
            state.g[rows] = g
        ball, before = self._grid_ball(threat), z[rows]
        step = float(self.step_size) / norm_scale(threat.norm, self.cell)
        moved = round_inwards(ball.ball(before.to(wide) - step * ball.steepest(g)), z.dtype)
        z[rows] = torch.where(here, moved, before)  # absent classes do not even move by rounding


InverseAdversary = UniversalInverse | InstanceInverse | GeneratorInverse
