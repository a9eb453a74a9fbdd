"""Measure the memory of an attack's step through a purifier of many steps: as a loop, checkpointed, by a surrogate.

    python benchmarks/evaluation/purifier_memory.py

The purifier is a residual convolution (3 to 32 to 3 channels) made 50 times on 64 images of 32 x 32 pixels, before a
small classifier. Each way runs in a process of its own; its peak is compared with that of a process that makes no step.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor, nn

from uiat import BPDA, CheckpointedSteps, models

STEPS, IMAGES = 50, 64
WAYS = ("nothing", "loop", "checkpointed", "surrogate")


class Loop(nn.Module):
    """The steps as a plain loop."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """Return the images after all steps."""
        for _ in range(STEPS):
            x = self.step(x)
        return x


class Step(nn.Module):
    """One step of the purifier."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return images like those given, a little purer."""
        return x - 0.02 * self.net(x)


def run(way: str) -> None:
    """Print the checksum of a gradient, its seconds and the peak of this process in MB."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    step, x = Step(), torch.rand(IMAGES, 3, 32, 32, requires_grad=True)
    ways = {"loop": Loop(step), "checkpointed": CheckpointedSteps([step] * STEPS), "surrogate": BPDA(Loop(step))}
    classifier = models.build("small-cnn", num_classes=10, image_shape=(3, 32, 32), width=8).eval()
    start, total = time.perf_counter(), 0.0
    if way in ways:
        model = nn.Sequential(ways[way], classifier).requires_grad_(False)
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x)
        total = gradient.abs().sum().item()
    print(total, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", nargs="?", choices=WAYS, help="one way, in this process")
    way = parser.parse_args().way
    if way is not None:
        run(way)
        return
    print("| gradient by | seconds | peak, MB above no step | sum of the gradient |\n|---|---|---|---|")
    base = 0.0
    for each in WAYS:
        output = subprocess.run([sys.executable, __file__, each], check=True, capture_output=True, text=True).stdout
        total, seconds, peak = map(float, output.split())
        base = peak if each == "nothing" else base
        if each != "nothing":
            print(f"| {each} | {seconds:.1f} | {peak - base:.0f} | {total:.6f} |", flush=True)


if __name__ == "__main__":
    main()
