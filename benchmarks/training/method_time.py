"""Time of a training step of each method, in interleaved rounds: medians, and ratios to the first of the same round.

    python benchmarks/training/method_time.py cifar10-small --root DATA --threads 2 --rounds 7
    python benchmarks/training/method_time.py digits --methods uiat,uiat/generator,iat --threads 1 --rounds 9
    python benchmarks/training/method_time.py cifar10-small --methods fgsm-rs,fgsm-rs-uiat,fgsm-rs-uiat-one-off/detached

Precision is what the recipe's "auto" comes to on this machine; nothing is compiled unless asked for.

A round takes one step of every method, so a change of the machine's speed meets all of them alike.
"""

import argparse
import statistics
import time
from itertools import cycle

import torch

import uiat
from uiat.system.environment import describe_environment
from uiat.training.autotune import resolve_auto
from uiat.training.setup import load_datasets, model_spec

METHODS = ("pgd-at", "standard", "trades", "mart", "uiat-one-off", "uiat", "iat")
# After a method: its target without a gradient; inverse examples of a generator.
ENDINGS = {"/detached": "objective.inverse_gradient=false", "/generator": "objective.inverse.kind=generator"}


def make_method(recipe: str, root: str | None, settings: list[str]):
    """Make a step of the recipe's method, and batches of its data for it."""
    pairs = [("data.root", root)] if root else []
    for ending, setting in ENDINGS.items():
        if recipe.endswith(ending):
            recipe, settings = recipe.removesuffix(ending), [*settings, setting]
    pairs += [(path, value) for path, _, value in (setting.partition("=") for setting in settings)]
    run = uiat.override(uiat.recipes.get(recipe), pairs)
    data, _ = load_datasets(run.data, run.seed)
    model = uiat.models.build(**model_spec(run, data)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    shape = {"num_classes": data.num_classes, "image_shape": data.image_shape}
    run = resolve_auto(run, model, steps=1, **shape)
    options = {"precision": run.compute.precision, "compile": run.compute.compile}
    step = uiat.make_step(model, run.objective, optimizer, num_examples=len(data), **options, **shape)
    batches = {"batch_size": run.data.batch_size, "augment": run.data.augment, "channels_last": True}
    loader = uiat.data.Loader(data, **batches)
    return step, cycle(loader.epoch(0)), len(loader), run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", help="digits, mnist or cifar10-small")
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated; ratios are to the first")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of every recipe")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    methods = {
        m: make_method(f"{arguments.family}-{m}", arguments.root, arguments.set) for m in arguments.methods.split(",")
    }
    seconds: dict[str, list[float]] = {m: [] for m in methods}
    base = next(iter(methods))
    for number in range(arguments.rounds + 2):
        for method, (step, batches, _, run) in methods.items():
            batch = next(batches)
            start = time.perf_counter()
            step(batch, epoch=run.optimisation.epochs - 1)
            if number > 1:  # the first rounds warm up, and compile
                seconds[method].append(time.perf_counter() - start)
    print(f"| method | step, ms (median) | of {base} (median of rounds) | epoch, s |\n|---|---|---|---|")
    for method, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[base], strict=True))
        median = statistics.median(times)
        print(f"| {method} | {1000 * median:.0f} | {ratio:.2f} | {median * methods[method][2]:.0f} |")
    facts = {k: describe_environment()[k] for k in ("torch", "processor", "cores", "threads")}
    facts["precision"] = methods[base][3].compute.precision
    print(f"\n{arguments.rounds} rounds, {facts}")


if __name__ == "__main__":
    main()
