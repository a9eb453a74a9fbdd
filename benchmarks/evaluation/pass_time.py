"""Time a pass of an attack in the forms that a model can have, in interleaved rounds.

    python benchmarks/evaluation/pass_time.py RUN --n 256 --rounds 7 --data.root DIR

Processor time on one thread, so that a busy machine does not count: forward without a gradient, and forward with the
gradient of the images. Each form has a process of its own, because one that keeps its memory does so for good.
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

import uiat
from uiat.attacks.gradient import input_gradient
from uiat.data import as_float
from uiat.experiments.images import evaluated_images
from uiat.runs.settings import read_run
from uiat.speed.fast_copy import make_fast_copy
from uiat.speed.malloc import keep_memory
from uiat.system.environment import describe_environment

# name: (of the model, whether the process keeps its memory, images at a time)
FORMS = {
    "eager, NCHW, batches of 256": ("plain", False, 256),
    "eager, NCHW, batches of 64": ("plain", False, 64),
    "eager, NCHW, batches of 256, memory kept": ("plain", True, 256),
    "channels-last, batches of 256, memory kept": ("channels-last", True, 256),
    "channels-last, batches of 64, memory kept": ("channels-last", True, 64),
    "prepared, batches of 256, memory kept": ("prepared", True, 256),
    "prepared, batches of 64, memory kept": ("prepared", True, 64),
}


class Form:
    """A model in one form, with images in the layout that it takes."""

    def __init__(self, name: str, run: Path, n: int, root: str | None) -> None:
        torch.set_num_threads(1)
        form, keep, self.size = FORMS[name]
        if keep:
            keep_memory(torch.device("cpu"))
        self.x = as_float(evaluated_images(read_run(run), n=n, root=root).images)
        self.model = uiat.load(run).eval().requires_grad_(False)
        if form != "plain":
            self.x = self.x.contiguous(memory_format=torch.channels_last)
            self.model.to(memory_format=torch.channels_last)
        if form == "prepared":
            self.model = make_fast_copy(self.model, self.x[:4])

    def round(self) -> dict[bool, float]:
        """Return the seconds without and with a gradient."""
        return {way: time_passes(self.model, self.x, self.size, gradient=way) for way in (False, True)}


def begin(*arguments) -> None:
    """Make this process's form."""
    global mine
    mine = Form(*arguments)


def run_round() -> dict[bool, float]:
    """Run a round in this process."""
    return mine.round()


def time_passes(model, x: torch.Tensor, size: int, *, gradient: bool) -> float:
    """Return the seconds of processor time."""

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
    context, given = get_context("spawn"), (arguments.run, arguments.n, arguments.root)
    workers = {
        name: ProcessPoolExecutor(1, mp_context=context, initializer=begin, initargs=(name, *given)) for name in FORMS
    }
    times: dict[tuple[str, bool], list[float]] = {(name, way): [] for name in FORMS for way in (False, True)}
    for number in range(arguments.rounds + 1):
        for name, worker in workers.items():
            for way, seconds in worker.submit(run_round).result().items():
                if number:  # the first round warms up
                    times[name, way].append(seconds)
    print("| form | forward, ms | forward and input gradient, ms |\n|---|---|---|")
    for name in FORMS:
        cells = (f"{1000 * statistics.median(times[name, way]):.0f}" for way in (False, True))
        print(f"| {name} | {' | '.join(cells)} |")
    facts = {k: describe_environment()[k] for k in ("torch", "processor", "cores")}
    print(f"\n{arguments.n} images, medians of {arguments.rounds} rounds, one thread, {facts}")


if __name__ == "__main__":
    main()
