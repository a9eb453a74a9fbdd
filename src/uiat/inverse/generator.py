"""A generator of inverse examples: a small network that is trained with the model, its optimiser, settings, file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from uiat.attacks.gradient import NO_GRADIENT, InnerLoss, require_gradient, take_pair
from uiat.checks import Amount, Between, Positive, checked, checked_fields
from uiat.errors import UserError
from uiat.formatting import parse_threat_record, threat_record
from uiat.inverse.loss import Inverse, Regulariser, inverse_loss, set_number
from uiat.inverse.state import InverseState
from uiat.inverse.universal import read_of_run
from uiat.shapes import Float, Int
from uiat.system.distributed import current_rank
from uiat.system.manifest import write_recorded_tensors
from uiat.threat import Linf, Threat, to_range

GENERATOR_FILE = "generator.safetensors"
KIND = "uiat.generator"
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, as its authors have them


class InverseGenerator(nn.Module):
    """G(x, y) = clip(x + bound(r), 0, 1) with r = W3 relu(W2 relu(W1 x + e_y)), an inverse example in one pass.

    W are 3x3 convolutions and e_y is a vector a class. In Linf, bound(r) is radius tanh(r); in L2 and L1 it is
    radius r / (1 + ||r||): both lie in the ball for every r. W3 starts at 0, so that G starts at x_inv = x.

    Its parameters require no gradient, and its optimiser's moments are buffers: so the model's optimiser leaves it
    alone, a checkpoint of the state it is in holds all of it, and a recorded step updates it in place.

    Args:
        num_classes: K.
        channels: C, of the images.
        width: number of channels inside.
        threat: the ball of the perturbation.

    Example:
        >>> generator = InverseGenerator(num_classes=10, channels=1, width=16, threat=Linf("4/255"))
        >>> x = torch.rand(3, 1, 8, 8)
        >>> torch.equal(generator(x, torch.tensor([0, 1, 2])), x)
        True
    """

    first_moment: Tensor
    second_moment: Tensor
    steps: Tensor

    def __init__(self, *, num_classes: int, channels: int, width: int, threat: Threat) -> None:
        super().__init__()
        self.threat = threat
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.classes = nn.Parameter(torch.randn(num_classes, width))
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.requires_grad_(False)
        entries = sum(p.numel() for p in self.parameters())
        for name in ("first_moment", "second_moment"):
            self.register_buffer(name, torch.zeros(entries))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """Return the inverse examples of images with these labels."""
        # A product with one-hot rows: the gradient of a lookup is summed in no fixed order on a GPU.
        one_hot = y[:, None] == torch.arange(len(self.classes), device=y.device)
        rows = one_hot.to(self.classes.dtype) @ self.classes
        hidden = F.relu(self.first(x.to(self.first.weight.dtype)) + rows[:, :, None, None])
        r = self.last(F.relu(self.middle(hidden))).to(x.dtype)
        return to_range(x + self._bound(r))

    def _bound(self, r: Tensor) -> Tensor:
        radius = float(self.threat.epsilon)
        if isinstance(self.threat, Linf):
            return radius * r.tanh()
        return radius * r / (1 + self.threat.length(r)).view(-1, 1, 1, 1)

    def improve(self, loss: InnerLoss, x: Tensor, y: Tensor, *, learning_rate: float) -> tuple[Tensor, Tensor]:
        """Make one Adam step (Kingma & Ba 2015) on the mean of loss(G(x, y)) over the batch of all processes.

        Args:
            loss: L_inv as a function of x_inv; see `uiat.inverse.loss`.
            x: images (B, C, H, W).
            y: labels (B,).
            learning_rate: of Adam.

        Returns:
            The inverse examples as G gave them before the step, and their logits (B, K), both detached.

        Raises:
            UserError: the loss does not depend on the images through autograd.
        """
        with torch.enable_grad():
            leaves = {name: p.detach().requires_grad_() for name, p in self.named_parameters()}
            x_inv = functional_call(self, leaves, (x, y))
            values, logits = take_pair(loss(x_inv))
            require_gradient(values)
            gradients = torch.autograd.grad(values.mean(), list(leaves.values()), allow_unused=True)
        found = [gradient for gradient in gradients if gradient is not None]
        if len(found) < len(gradients):
            raise UserError(NO_GRADIENT)
        self._update(current_rank().mean(torch.cat([g.flatten() for g in found])), learning_rate)
        return x_inv.detach(), logits.detach()

    @torch.no_grad()
    def _update(self, gradient: Tensor, learning_rate: float) -> None:
        """Move the parameters by Adam; everything stays on the device, the number of steps too."""
        one, two = BETAS
        self.steps.add_(1)
        self.first_moment.lerp_(gradient, 1 - one)
        self.second_moment.lerp_(gradient.square(), 1 - two)
        mean = self.first_moment / (1 - torch.pow(one, self.steps))
        scale = (self.second_moment / (1 - torch.pow(two, self.steps))).sqrt_().add_(EPSILON)
        parameters = list(self.parameters())
        moves = (learning_rate * mean / scale).split([p.numel() for p in parameters])
        for parameter, move in zip(parameters, moves, strict=True):
            parameter.sub_(move.view_as(parameter))

    @checked
    def save(self, path: str | Path) -> None:
        """Write the weights to a safetensors file, atomically; the optimiser's moments are not in it."""
        facts = {"kind": KIND, "threat": threat_record(self.threat, exact=True)}
        write_recorded_tensors(Path(path), dict(self.named_parameters()), facts)


@checked_fields
@dataclass(frozen=True, kw_only=True)
class GeneratorInverse:
    """A network G(x, y) that makes the inverse example in one pass, trained with the model by one step a batch.

    The paper (UIAT, CVPR 2023) names generative models of inverse adversaries as future work and says no more; how the
    network looks and learns is this package's choice (`uiat.inverse.generator.InverseGenerator`). G lowers the mean of
    L_inv(G(x, y)) over the batch by Adam, on frozen weights of the model: one forward and one input-only backward pass
    of it, as for a step of the universal perturbation, and a forward and a backward pass of G. Unlike z_y, G sees the
    image.

    Args:
        radius: epsilon_inv in units of [0, 1], in the norm of the attack; a number or a fraction.
        width: number of channels inside G.
        learning_rate: of Adam, constant.
        regulariser: R in L_inv = CE + mu R: "none", "feature", "feature-repulsion" or "logit".
        regulariser_weight: mu.

    Raises:
        UserError: a field out of its range.

    Example:
        >>> GeneratorInverse(radius="4/255").active(0)
        True
    """

    kind: Literal["generator"] = "generator"
    radius: float | str = "4/255"
    width: Annotated[int, Between(1, 10_000)] = 16
    learning_rate: Positive = 1e-3
    regulariser: Regulariser = "none"
    regulariser_weight: Amount = 1.0

    def __post_init__(self) -> None:
        set_number(self, "radius")

    def active(self, epoch: int) -> bool:
        """True: there is an inverse adversary in every epoch."""
        return True

    def initial(self, num_classes: int, image_shape: tuple[int, ...], threat: Threat) -> None:
        """Return None: there is no universal perturbation."""

    def make_generator(self, num_classes: int, image_shape: tuple[int, ...], threat: Threat) -> InverseGenerator:
        """Return G before its first step, its weights from torch's own random generator.

        Args:
            num_classes: K.
            image_shape: (C, H, W).
            threat: threat model whose norm the ball has.
        """
        ball = replace(threat, epsilon=self.radius)
        return InverseGenerator(num_classes=num_classes, channels=image_shape[0], width=self.width, threat=ball)

    def find(
        self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, state: InverseState, threat: Threat, epoch: int
    ) -> Inverse:
        """Train G by a step, in place, and return the inverse examples that it gave before it, with their logits.

        Args:
            model: the model, already frozen and in the mode of attacks.
            x: images (B, C, H, W).
            x_adv: their adversarial examples.
            y: labels.
            state: state that holds G.
            threat: not used; G has its ball.
            epoch: not used.

        Raises:
            UserError: the loss has no gradient with respect to the images.
        """
        assert isinstance(state.generator, InverseGenerator)
        loss = inverse_loss(model, x, x_adv, y, regulariser=self.regulariser, weight=self.regulariser_weight)
        return Inverse(*state.generator.improve(loss, x, y, learning_rate=self.learning_rate))


@checked
def load_generator(run: str | Path) -> InverseGenerator:
    """Load the generator of inverse examples of a run folder, or of a file that `InverseGenerator.save` wrote.

    Raises:
        UserError: the run has none (its method does not use one), or the file is damaged or of another kind.

    Example:
        >>> load_generator("missing-run")
        Traceback (most recent call last):
        uiat.errors.UserError: no such file: missing-run
    """
    path, tensors, meta = read_of_run(run, GENERATOR_FILE, what="generator", pronoun="one")
    generator = _build(tensors, meta, path)
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise UserError(f"{path} is damaged: it holds weights that are not finite")
    for name, parameter in generator.named_parameters():
        parameter.copy_(tensors[name])
    return generator.eval()


def _build(tensors: Mapping[str, Tensor], meta: Mapping[str, Any], path: Path) -> InverseGenerator:
    """Return a new generator of the shape of some weights."""
    first, classes = tensors.get("first.weight"), tensors.get("classes")
    known = meta.get("kind") == KIND and isinstance(meta.get("threat"), str)
    if not known or first is None or first.ndim != 4 or classes is None or classes.ndim != 2:
        raise UserError(f"{path} is not a file of a generator of inverse examples")
    threat, (width, channels) = parse_threat_record(meta["threat"], path), first.shape[:2]
    generator = InverseGenerator(num_classes=len(classes), channels=channels, width=width, threat=threat)
    shapes = {name: value.shape for name, value in generator.named_parameters()}
    if shapes != {name: value.shape for name, value in tensors.items()}:
        raise UserError(f"{path} is damaged: its weights are not those of one generator")
    return generator
