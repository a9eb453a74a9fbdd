"""What a pass of an attack costs in the forms that a model can have, in interleaved rounds.

    python benchmarks/pass_time.py RUN --n 256 --rounds 7 --data.root DIR

Processor time on one thread, so that a busy machine does not count: forward without a gradient, and forward with the
gradient of the images.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import uiat
from uiat.attacks.gradient import input_gradient
from uiat.cli.evaluate import judged_images
from uiat.data import as_float
from uiat.environment import environment
from uiat.prepared import prepare
from uiat.runs import read_run


def forms(model: nn.Module, x: torch.Tensor) -> Iterator[tuple[str, object, torch.Tensor, int]]:
    """(name, images to logits, images in the memory format that it wants, images at a time)."""
    last = x.contiguous(memory_format=torch.channels_last)
    channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    for size in (256, 64):
        yield f"eager, NCHW, batches of {size}", model, x, size
        yield f"channels-last, batches of {size}", channels_last, last, size
    yield "prepared, batches of 64", prepare(model, x[:4]), last, 64


def passes(model, x: torch.Tensor, size: int, *, gradient: bool) -> float:
    """Seconds of processor time."""

    def loss(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(images)
        return logits.logsumexp(dim=1), logits

    start = time.process_time()
    for part in x.split(size):
        if gradient:
            input_gradient(loss, part)
        else:
            with torch.no_grad():
                model(part)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--n", type=int, default=256, help="images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data.root", dest="root", help="folder of the data sets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = as_float(judged_images(read_run(arguments.run), n=arguments.n, root=arguments.root).images)
    model = uiat.load(arguments.run).eval().requires_grad_(False)
    rows = list(forms(model, x))
    times: dict[tuple[str, bool], list[float]] = {(name, way): [] for name, *_ in rows for way in (False, True)}
    for number in range(arguments.rounds + 1):
        for name, form, images, size in rows:
            for way in (False, True):
                seconds = passes(form, images, size, gradient=way)
                if number:  # the first round warms up
                    times[name, way].append(seconds)
    print("| form | forward, ms | forward and input gradient, ms |\n|---|---|---|")
    for name, *_ in rows:
        cells = (f"{1000 * statistics.median(times[name, way]):.0f}" for way in (False, True))
        print(f"| {name} | {' | '.join(cells)} |")
    facts = {k: environment()[k] for k in ("torch", "processor", "cores", "threads")}
    print(f"\n{len(x)} images, medians of {arguments.rounds} rounds, {facts}")


if __name__ == "__main__":
    main()
