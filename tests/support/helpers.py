"""Tiny models and batches for the tests of the method: linear ones with known answers, one with BatchNorm, odd ones."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uiat import PGD, Batch, Linf, models
from uiat.attacks import Search
from uiat.evaluation import registry
from uiat.threat import Threat

SHAPE = (1, 8, 8)
PIXELS = 64


class Binary(nn.Module):
    """Two classes, logits (-w.x, w.x) / 2: cross entropy and margin rise along w for class 0 and along -w for class 1.

    The direction is the same everywhere, so every attack has a closed form.
    """

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.w / 2
        return torch.stack([-score, score], dim=1)


class Blocks(nn.Module):
    """K classes whose weights have disjoint supports: class k reads block k of the pixels, and nothing else.

    d CE_y / dx = sum_k p_k u_k - u_y, which on block k is p_k u_k (k != y) or (p_y - 1) u_y: its sign is that of
    w_y = sum_{k != y} u_k - u_y wherever x is, although its size is not.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        u = torch.randn(classes, PIXELS).sign() * (0.5 + torch.rand(classes, PIXELS))
        block = torch.arange(PIXELS) * classes // PIXELS
        self.u = nn.Parameter(u * (block == torch.arange(classes)[:, None]))

    @property
    def w(self) -> Tensor:
        """(K, 64): the direction in which the loss of each class rises."""
        return (self.u.sum(dim=0) - 2 * self.u).detach()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.u.t()


class Passes(nn.Module):
    """A model that counts forward and backward passes, as "crafting" (parameters frozen) or "training" ones."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards: Counter[str] = Counter()
        self.backwards: Counter[str] = Counter()

    def forward(self, x: Tensor) -> Tensor:
        kind = "training" if any(p.requires_grad for p in self.parameters()) else "crafting"
        self.forwards[kind] += 1
        logits: Tensor = self.inner(x)
        if logits.requires_grad:
            logits.register_hook(lambda _: self.backwards.update([kind]))
        return logits


class Folded(nn.Module):
    """Its gradient changes its sign at every 0.5: what looks straight from one image is not."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        score = ((x - 0.5).abs() * self.w).flatten(1).sum(1)
        return torch.stack([-score, score], dim=1)


class Failing(nn.Module):
    """A model whose forward pass raises at a given call."""

    def __init__(self, inner: nn.Module, *, at: int) -> None:
        super().__init__()
        self.inner, self.at, self.calls = inner, at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.at:
            raise RuntimeError("boom")
        logits: Tensor = self.inner(x)
        return logits


def cnn(*, classes: int = 4, image_shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> nn.Module:
    """A small-cnn of width 4 whose BatchNorm statistics are not the initial ones, in train mode."""
    torch.manual_seed(seed)
    model = models.build("small-cnn", num_classes=classes, image_shape=image_shape, width=4)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(16, *image_shape))
    return model


def mlp(*, classes: int = 4, image_shape: tuple[int, ...] = SHAPE) -> nn.Module:
    """A smooth two-layer network, quick enough to be called often."""
    size = int(torch.tensor(image_shape).prod())
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 16), nn.SiLU(), nn.Dropout(0.5), nn.Linear(16, classes))


def batch(n: int = 12, *, classes: int = 4, image_shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> Batch:
    """Random images and labels, every class among them; `index` counts backwards, so it is not `arange`."""
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *image_shape, generator=source)
    return Batch(x, torch.arange(n) % classes, torch.arange(n).flip(0))


def interior(n: int, *, margin: float = 0.3) -> Tensor:
    """Images (n, 1, 8, 8) that no perturbation smaller than `margin` takes out of [0, 1]."""
    return margin + (1 - 2 * margin) * torch.rand(n, *SHAPE)


def pgd(steps: int = 2, **settings: object) -> PGD:
    """A short attack."""
    return PGD(**{"threat": Linf(0.1), "step_size": 0.05, "steps": steps, **settings})  # type: ignore[arg-type]


def snapshot(model: nn.Module) -> dict[str, object]:
    """All that an inner problem must leave alone: values, flags, modes, gradients."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "grad": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "training": {name: m.training for name, m in model.named_modules()},
        "tracking": {name: m.track_running_stats for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)},
    }


def assert_untouched(model: nn.Module, before: dict[str, object]) -> None:
    """The model is, bit for bit and flag for flag, what `snapshot` saw."""
    after = snapshot(model)
    for key in ("requires_grad", "training", "tracking"):
        assert after[key] == before[key], key
    for key in ("state", "grad"):
        assert after[key].keys() == before[key].keys()
        for name, value in after[key].items():
            old = before[key][name]
            assert (value is None) == (old is None), f"{key} {name}"
            assert value is None or torch.equal(value, old), f"{key} {name}"


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    """d loss / d parameters, zeros where there is none; nothing is accumulated."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def eval_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross entropy per example in eval mode, by torch alone."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    with torch.no_grad():
        values = F.cross_entropy(model(x).float(), y, reduction="none")
    for m, training in modes:
        m.training = training
    return values


def at_distances():
    """A linear model, and five images of class 1 whose Linf distance to its border is known exactly."""
    model = Binary(torch.cat([torch.ones(32), -torch.ones(32)]))
    x = torch.full((5, 1, 8, 8), 0.5)
    # score = sum of the first 32 less the others; margin in Linf is score / 64
    for i, distance in enumerate([0.05, 0.15, 0.25, -0.05, -0.15]):
        x[i].flatten()[:32] += distance
        x[i].flatten()[32:] -= distance
    return model, x, torch.ones(5, dtype=torch.int64)


def assert_as_strong(stands: Tensor, expected: Tensor, *, weaker: float, agree: float) -> None:
    """An attack is no weaker than the reference's, and the same attack but for its random starts.

    Both are (n,), or (seeds, n). Starts decide about points at the edge, each of which falls to either side as often:
    so how many more fall to ours has a standard deviation of the root of the sum, over points, of the squared
    differences of their means over seeds. Seeds are no further points: the same ones are at the edge in each. Three
    deviations are allowed where ours is the stronger. Which model is trained, and so which points those are, differs
    between processors.
    """
    more = (expected.float() - stands.float()).view(-1, stands.shape[-1]).mean(0)
    stronger, deviation = float(more.sum()), float(more.square().sum().clamp_min(1)) ** 0.5
    assert -weaker * len(more) < stronger <= 3 * deviation
    assert (stands == expected).float().mean() > agree


def replace_attack(monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Threat], Search]) -> None:
    """Let the name of an attack stand for another one, such as the same with a budget for tests."""
    short = {"make": lambda threat, source: make(threat)}
    rows = tuple(replace(row, **short) if row.name == name else row for row in registry.ROWS)
    monkeypatch.setattr(registry, "ROWS", rows)
