"""How time and memory grow with the work: images, classes, pixels, processes.

    python benchmarks/growth.py                       # some ten minutes; --only images,classes for a part
    python benchmarks/growth.py --figure growth.svg   # also draw it

Every point has a process of its own, so that its highest memory is its own. Time is the processor's, on one thread a
process. A slope is that of the logarithms, from the smallest amount of work to the largest: 1 is in proportion, and
only what is above 1 grows faster than the work. Time decides here and no accuracy, so images are noise.

- images: FGSM on so many CIFAR-shaped images by `uiat.evaluate`, as one tensor and as a stream of batches.
- classes: a step of UIAT with momentum a row a class, with so many classes; z is (K, 3, 32, 32), momentum (K, K).
- examples: the same with momentum a row an example, (N, 10), for so many training images.
- pixels: a step of UIAT on squares of so many pixels.
- processes: a step of UIAT on 64 images shared by so many processes.
"""

import argparse
import math
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist

import uiat
from uiat.system.environment import describe_environment

STEPS, STREAMED = 5, 250
Measured = tuple[float, float]  # seconds of the processor, highest memory in MiB


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def evaluated(n: int, *, streamed: bool = False) -> Measured:
    """Attack n images by FGSM, a network's own predictions being their labels, so that every one is attacked."""
    torch.manual_seed(0)
    model = uiat.models.build("small-cnn", num_classes=10, image_shape=(3, 32, 32), width=4).eval()
    pool = torch.rand(1_000, 3, 32, 32)
    labels = model(pool).argmax(dim=1)
    options = {"threat": "Linf:1/255", "attacks": ["fgsm"], "selfchecks": False}

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for first in range(0, n, STREAMED):
            at = torch.arange(first, min(first + STREAMED, n)) % len(pool)
            yield pool[at], labels[at]

    if streamed:
        begun = time.process_time()
        uiat.evaluate(model, batches(), **options)  # type: ignore[arg-type]
    else:
        at = torch.arange(n) % len(pool)
        x, y = pool[at], labels[at]
        begun = time.process_time()
        uiat.evaluate(model, x, y, **options)  # type: ignore[arg-type]
    return time.process_time() - begun, peak()


def stepped(
    *, classes: int = 10, side: int = 32, examples: int = 64, momentum: str = "class", batch: int = 64, width: int = 8
) -> Measured:
    """Take steps of UIAT; return the median of their processor time."""
    torch.manual_seed(0)
    model = uiat.models.build("small-cnn", num_classes=classes, image_shape=(3, side, side), width=width)
    model = model.to(memory_format=torch.channels_last)
    threat = uiat.Linf("8/255")
    objective = uiat.UIAT(attack=uiat.PGD(threat=threat, step_size="4/255", steps=2), momentum=momentum)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    shape = {"num_classes": classes, "image_shape": (3, side, side), "num_examples": examples}
    step = uiat.make_step(model, objective, optimizer, **shape)  # type: ignore[arg-type]
    x = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    given = uiat.Batch(x, torch.randint(classes, (batch,)), torch.randperm(examples)[:batch])
    seconds = []
    for _ in range(STEPS + 2):  # two to warm up
        begun = time.process_time()
        step(given)
        seconds.append(time.process_time() - begun)
    return statistics.median(seconds[2:]), peak()


def shared(processes: int) -> Measured:
    """Share a step among processes; return the processor time of all, and the highest memory of one."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        ranks = [pool.submit(one_rank, rank, processes, f"{folder}/meeting") for rank in range(processes)]
        seconds, memory = zip(*(rank.result() for rank in ranks), strict=True)
    return sum(seconds), max(memory)


def one_rank(rank: int, processes: int, meeting: str) -> Measured:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    measured = stepped(batch=64 // processes, width=32)
    dist.destroy_process_group()
    return measured


def alone(function: Callable[..., Measured], options: dict) -> Measured:
    torch.set_num_threads(1)
    return function(**options)


# What grows: amounts of work, and what is run for one of them.
GROWTHS: dict[str, tuple[tuple[int, ...], Callable[..., Measured], Callable[[int], dict]]] = {
    "images, as a tensor": ((1_000, 10_000, 100_000), evaluated, lambda n: {"n": n}),
    "images, streamed": ((1_000, 10_000, 100_000), evaluated, lambda n: {"n": n, "streamed": True}),
    "classes": ((10, 100, 1_000), stepped, lambda k: {"classes": k}),
    "examples": (
        (1_000, 10_000, 100_000, 1_000_000),
        stepped,
        lambda n: {"examples": n, "momentum": "example"},
    ),
    "pixels a side": ((32, 64, 128, 224), stepped, lambda side: {"side": side, "batch": 8}),
    "processes": ((1, 2, 4), shared, lambda processes: {"processes": processes}),
}


def slope(work: tuple[int, ...], values: list[float]) -> float:
    return math.log(values[-1] / values[0]) / math.log(work[-1] / work[0])


def measure(name: str, repeats: int) -> tuple[list[float], list[float]]:
    """Measure a growth and print its rows; return work and times, as multiples of the first ones."""
    amounts, function, options = GROWTHS[name]
    measured = []
    for amount in amounts:
        each = []
        for _ in range(repeats):
            if function is shared:
                each.append(shared(amount))
                continue
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                each.append(process.submit(alone, function, options(amount)).result())
        seconds, memory = (statistics.median(column) for column in zip(*each, strict=True))
        measured.append(seconds)
        print(f"| {name} | {amount:,} | {seconds:.3f} | {memory:,.0f} | |", flush=True)
    work = tuple(side**2 for side in amounts) if "side" in name else amounts
    print(f"| {name} | | | | {slope(work, measured):.2f} |", flush=True)
    return [amount / work[0] for amount in work], [seconds / measured[0] for seconds in measured]


def draw(growths: dict[str, tuple[list[float], list[float]]], path: Path) -> None:
    """Draw times by amounts of work, both as multiples of the first ones."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "uiat"}  # text as text
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4.4))
    for (name, (work, seconds)), marker in zip(growths.items(), "osD^v*", strict=False):
        axis.loglog(work, seconds, marker=marker, label=name)
    most = max(work[-1] for work, _ in growths.values())
    axis.loglog([1, most], [1, most], color="black", linewidth=0.6, linestyle=":", label="in proportion")
    axis.set(xlabel="work, times the least", ylabel="processor time, times that of the least", ylim=(0.5, None))
    axis.legend(fontsize=9)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="beginnings of what grows, comma-separated; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="processes a point, of which the medians are shown")
    parser.add_argument("--figure", type=Path, help="an SVG to draw")
    arguments = parser.parse_args()
    print("| what grows | amount | processor time, s | highest memory, MiB | slope of time |\n|---|---|---|---|---|")
    names = [name for name in GROWTHS if name.startswith(tuple(arguments.only.split(",")))]
    growths = {name: measure(name, arguments.repeats) for name in names}
    facts = describe_environment()
    print(f"\nmedians of {arguments.repeats}, {facts['processor']}, torch {facts['torch']}")
    if arguments.figure:
        draw(growths, arguments.figure)


if __name__ == "__main__":
    main()
