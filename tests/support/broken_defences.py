"""Defences known to be broken: their robustness comes from an attack that cannot see, not from the model.

Each takes a sound classifier of images in [0, 1], or is trained like one, and hides its gradient, its output or both.
Sources: Athalye, Carlini & Wagner (2018), "Obfuscated gradients give a false sense of security"; Carlini & Wagner
(2016), "Defensive distillation is not robust to adversarial examples"; Xiao, Zhong & Zheng (2020), k-winners-take-all;
Tramer et al. (2020), "On adaptive attacks to adversarial example defenses".
"""

import copy
import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn


class Wrapped(nn.Module):
    """A function before a classifier and one after it."""

    def __init__(
        self,
        inner: nn.Module,
        *,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.after(self.inner(self.before(x)))
        return logits


def straight_through(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return a function that is the change forwards and the identity backwards."""
    return lambda x: x + (change(x) - x).detach()


def quantise(x: Tensor, levels: int = 7) -> Tensor:
    """Round to three bits a pixel; the derivative of rounding is zero."""
    return (x * levels).round() / levels


def jpeg(x: Tensor, quality: int = 50) -> Tensor:
    """Compress each channel as a grey image and read it again: no gradient at all."""
    pixels = (x.detach() * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return torch.from_numpy(np.stack([np.stack([_grey(plane, quality) for plane in image]) for image in pixels])).to(x)


def _grey(plane: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(plane).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), dtype=np.float32) / 255


def thermometer(x: Tensor, levels: int = 10) -> Tensor:
    """Count how many of ten thresholds a pixel passes (Buckman et al. 2018): a comparison has no gradient."""
    thresholds = (torch.arange(levels) + 0.5) / levels
    return (x[..., None] > thresholds).to(x).mean(dim=-1)


def noise(x: Tensor, sigma: float = 0.1) -> Tensor:
    """Add fresh Gaussian noise at every call."""
    return x + sigma * torch.randn_like(x)


def noise_of_the_input(x: Tensor, sigma: float = 0.1) -> Tensor:
    """Add noise that is a function of the image: the same at every call, and different for the slightest change."""
    shift = (x.detach().flatten(1).double().sum(1) * 1e6).view(-1, 1, 1, 1)
    place = torch.arange(x[0].numel(), dtype=torch.float64).view(1, *x.shape[1:])
    return x + sigma * (12.9898 * place + shift).sin().mul(43758.5453).frac().mul(2).to(x)


def resize(x: Tensor) -> Tensor:
    """Enlarge a little, and crop at a random place (Xie et al. 2018)."""
    side = x.shape[-1]
    larger = F.interpolate(x, size=side + int(torch.randint(1, 3, ())), mode="bilinear")
    top, left = (int(torch.randint(0, larger.shape[-1] - side + 1, ())) for _ in range(2))
    return larger[..., top : top + side, left : left + side]


def square_of_root(x: Tensor) -> Tensor:
    """Return the image itself; its gradient where a pixel is zero is infinity times zero."""
    return x.sqrt().square()


class _Scrambled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient.flatten(1).roll(7, dims=1).view_as(gradient)


def scramble(x: Tensor) -> Tensor:
    """Return the image itself, with a gradient that belongs to other pixels."""
    result: Tensor = _Scrambled.apply(x)
    return result


class Ensemble(nn.Module):
    """Answers with one of its members in turn: it has a state."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.inner(x.roll(self.calls % 2, dims=-1))
        return logits


class BatchStatistics(nn.Module):
    """Normalises by the batch it is given, in evaluation mode too: outputs depend on the other images of the batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(inner)
        for module in self.inner.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats, module.running_mean, module.running_var = False, None, None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return logits


class KWinners(nn.Module):
    """Keeps the largest fraction of a layer's activations (Xiao et al. 2020): discontinuous almost everywhere."""

    def __init__(self, fraction: float = 0.1) -> None:
        super().__init__()
        self.fraction = fraction

    def forward(self, z: Tensor) -> Tensor:
        flat = z.flatten(1)
        least = flat.topk(max(1, int(self.fraction * flat.shape[1])), dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(z)


def replace_relus(model: nn.Module, fraction: float = 0.1) -> nn.Module:
    """Replace every ReLU of an untrained model."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, KWinners(fraction))
    return model


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int = 12,
    teacher: nn.Module | None = None,
    heat: float = 1.0,
    lr: float = 0.01,
) -> nn.Module:
    """Train, on a teacher's probabilities where there is one; both at the temperature `heat`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    target = F.one_hot(y, int(y.max()) + 1).float()
    if teacher is not None:
        with torch.no_grad():
            target = (teacher.eval()(x) / heat).softmax(dim=1)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[part]) / heat, target[part]).backward()
            optimizer.step()
    return model.eval()


def distil(fresh: Callable[[], nn.Module], x: Tensor, y: Tensor, *, heat: float, epochs: int = 12) -> nn.Module:
    """Train by defensive distillation (Papernot et al. 2016): at one temperature, and used at 1."""
    teacher = train(fresh(), x, y, epochs=epochs, heat=heat)
    return train(fresh(), x, y, epochs=epochs, teacher=teacher, heat=heat)


# By name, what each makes of a sound classifier. Those that have to be trained are in TRAINED below.
WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "saturated, 1,000": lambda m: Wrapped(m, after=lambda z: 1_000 * z),
    "saturated, 100": lambda m: Wrapped(m, after=lambda z: 100 * z),
    "softmax": lambda m: Wrapped(m, after=lambda z: z.softmax(dim=1)),
    "detached input": lambda m: Wrapped(m, before=lambda x: x.detach()),
    "3 bits": lambda m: Wrapped(m, before=quantise),
    "3 bits, straight through": lambda m: Wrapped(m, before=straight_through(quantise)),
    "1 bit": lambda m: Wrapped(m, before=lambda x: quantise(x, 1)),
    "thermometer": lambda m: Wrapped(m, before=thermometer),
    "thermometer, straight through": lambda m: Wrapped(m, before=straight_through(thermometer)),
    "JPEG": lambda m: Wrapped(m, before=jpeg),
    "JPEG, straight through": lambda m: Wrapped(m, before=straight_through(jpeg)),
    "noise": lambda m: Wrapped(m, before=noise),
    "noise of the input": lambda m: Wrapped(m, before=noise_of_the_input),
    "random resizing": lambda m: Wrapped(m, before=resize),
    "state": Ensemble,
    "batch statistics": BatchStatistics,
    "NaN gradient": lambda m: Wrapped(m, before=square_of_root),
    "scrambled gradient": lambda m: Wrapped(m, before=scramble),
    "expects normalised images": lambda m: Wrapped(m, before=lambda x: 0.38 * x + 0.31),
}


# Those that are trained, on an architecture that a function builds anew.
TRAINED: dict[str, Callable[[Callable[[], nn.Module], Tensor, Tensor], nn.Module]] = {
    "distillation, 100": lambda fresh, x, y: distil(fresh, x, y, heat=100.0),
    "distillation, 40": lambda fresh, x, y: distil(fresh, x, y, heat=40.0),
    "k winners, 10 %": lambda fresh, x, y: train(replace_relus(fresh(), 0.1), x, y),
    "k winners, 20 %": lambda fresh, x, y: train(replace_relus(fresh(), 0.2), x, y),
}
