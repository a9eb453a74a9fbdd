"""Time of a training step of each method, in interleaved rounds: medians, and ratios to PGD-AT of the same round.

    python benchmarks/method_time.py cifar10-small --root DATA --threads 2 --rounds 7

A round takes one step of every method, so a change of the machine's speed meets all of them alike.
"""

import argparse
import statistics
import time
from itertools import cycle

import torch

import uiat
from uiat.environment import environment
from uiat.runs import datasets, model_spec

METHODS = ("standard", "pgd-at", "trades", "mart", "uiat-one-off", "uiat", "iat")


def prepare(recipe: str, root: str | None):
    """A step of the recipe's method on batches of its data, in an epoch in which a one-off's z is frozen."""
    run = uiat.override(uiat.recipes.get(recipe), [("data.root", root)] if root else [])
    data, _ = datasets(run.data, run.seed)
    model = uiat.models.build(**model_spec(run, data)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    shape = {"num_classes": data.num_classes, "image_shape": data.image_shape, "num_examples": len(data)}
    step = uiat.make_step(model, run.objective, optimizer, **shape)
    options = {"batch_size": run.data.batch_size, "augment": run.data.augment, "channels_last": True}
    loader = uiat.data.Loader(data, **options)
    return step, cycle(loader.epoch(0)), len(loader), run.optimisation.epochs - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", help="digits, mnist or cifar10-small")
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    prepared = {m: prepare(f"{arguments.family}-{m}", arguments.root) for m in METHODS}
    seconds: dict[str, list[float]] = {m: [] for m in METHODS}
    for number in range(arguments.rounds + 1):
        for method, (step, batches, _, epoch) in prepared.items():
            batch = next(batches)
            start = time.perf_counter()
            step(batch, epoch=epoch)
            if number:  # the first round warms up
                seconds[method].append(time.perf_counter() - start)
    print("| method | step, ms (median) | of PGD-AT (median of rounds) | epoch, s |\n|---|---|---|---|")
    for method, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["pgd-at"], strict=True))
        median = statistics.median(times)
        print(f"| {method} | {1000 * median:.0f} | {ratio:.2f} | {median * prepared[method][2]:.0f} |")
    facts = {k: environment()[k] for k in ("torch", "processor", "cores", "threads")}
    print(f"\n{arguments.rounds} rounds, {facts}")


if __name__ == "__main__":
    main()
