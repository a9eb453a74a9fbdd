"""Runs small enough for tests, ways to interrupt them, and what two of them must have in common."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import uiat
from uiat import PGD, UIAT, Compute, Data, Linf, Model, Optimisation, Run, Validation
from uiat.system.tensor_files import read_tensors

TIMING = ("seconds", "images_per_second", "validation_seconds")
DROPOUT_MODEL = """
from torch import nn

def net(*, num_classes, image_shape):
    c = image_shape[0]
    return nn.Sequential(
        nn.Conv2d(c, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(72, num_classes),
    )
"""


class Killed(Exception):
    """Stands for kill -9: nothing in the package catches it."""


class Killer:
    """A listener that raises after a number of steps, or does something else then."""

    def __init__(self, at: int, *, action: Any = None) -> None:
        self.at, self.action, self.steps = at, action, 0

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        self.steps += 1
        if self.steps == self.at:
            if self.action is None:
                raise Killed
            self.action()

    def epoch(self, row: Mapping[str, Any]) -> None:
        pass


def attack(steps: int = 2, **settings: Any) -> PGD:
    return PGD(threat=Linf(0.2), step_size=0.1, steps=steps, **settings)


def run(
    *,
    epochs: int = 2,
    seed: int = 1,
    objective: Any = None,
    data: Mapping[str, Any] | None = None,
    model: Model | None = None,
    compute: Mapping[str, Any] | None = None,
    validation: Mapping[str, Any] | None = None,
    guards: uiat.Guards | None = None,
    **optimisation: Any,
) -> Run:
    """Digits, 96 images in batches of 32, a CNN of width 4: three steps an epoch, a checkpoint after each."""
    return Run(
        seed=seed,
        data=Data(**{"validation": 40, "subset": 96, "batch_size": 32, **(data or {})}),
        model=model or Model(name="small-cnn", width=4),
        objective=objective or UIAT(attack=attack()),
        optimisation=Optimisation(epochs=epochs, **{"learning_rate": 0.05, **optimisation}),
        validation=Validation(**{"steps": 2, **(validation or {})}),
        compute=Compute(**{"checkpoint_steps": 1, "device": "cpu", **(compute or {})}),
        guards=guards or uiat.Guards(),
    )


def untimed(history: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMING} for row in history]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return untimed(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())


def differences(one: Path, two: Path) -> list[str]:
    """Every tensor of two run folders that is not the same bit for bit, and the metrics if they are not."""
    result = []
    for name in sorted({file.name for folder in (one, two) for file in folder.glob("*.safetensors")}):
        a, b = (read_tensors(folder / name)[0] for folder in (one, two))
        result += [f"{name}: {key}" for key in sorted(a.keys() ^ b.keys())]
        result += [f"{name}: {key}" for key in sorted(a.keys() & b.keys()) if not same(a[key], b[key])]
    return result + (["metrics.jsonl"] if metrics(one) != metrics(two) else [])


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit."""
    bits = (each.reshape(-1).view(torch.uint8).numpy().tobytes() for each in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and next(bits) == next(bits)


def tensors(n: int = 64, classes: int = 4, shape: tuple[int, int, int] = (1, 8, 8)) -> tuple[Tensor, Tensor]:
    """Images whose class is where they are bright: learnt in a few steps."""
    y = torch.arange(n) % classes
    x = 0.3 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    x.flatten(2)[torch.arange(n), :, y * 9] = 0.9
    return x, y


def linear(classes: int = 4, pixels: int = 64) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))


class Pairs(Dataset[Any]):
    """A torch Dataset as people write them: uint8 images without a channel, labels as ints."""

    def __init__(self, n=64):
        x, y = tensors(n)
        self.x, self.y = (x[:, 0] * 255).to(torch.uint8), y.tolist()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]
