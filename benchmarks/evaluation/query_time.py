"""Time a query of the Square Attack with whole passes, and with passes of what its window reaches alone, in turn.

    python benchmarks/evaluation/query_time.py RUN --data.root DATA --threads 1
    python benchmarks/evaluation/query_time.py --networks        # random networks: how much work has to be saved

64 images that are classified correctly; processor time, medians. Iterations of the standard ensemble's 5,000 stand for
the sizes that its windows have.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

import uiat
from uiat.attacks import Square
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import begin
from uiat.attacks.square import SCHEDULE, window_side
from uiat.runs.settings import read_run
from uiat.speed import incremental
from uiat.speed.fast_copy import CountingModel, make_fast_copy
from uiat.system.environment import describe_environment

NETWORKS = (
    ("small-cnn", 1, 8),
    ("small-cnn", 1, 16),
    ("small-cnn", 1, 28),
    ("small-cnn", 3, 32),
    ("preact-resnet8", 3, 32),
)
IMAGES, ITERATIONS = 64, (30, 150, 300, 700, 1_500, 2_500, 3_500, 4_500)


class Whole(CountingModel):
    """The fast copy without its cached layers."""

    incremental = None


def median_of(attack, guide, start, first: int, rounds: int) -> tuple[float, dict]:
    """Return the milliseconds of an iteration, and the points after the last one."""
    points = attack.iterate(guide, dict(start), first)  # makes the maps
    times = []
    for i in range(first + 1, first + 1 + rounds):
        before = time.process_time()
        points = attack.iterate(guide, points, i)
        times.append(1e3 * (time.process_time() - before))
    return statistics.median(times), points


def compare_networks(rounds: int) -> None:
    """Print both times of a small window, and the operations a layer in use saves, for batches of all sizes."""
    print("| network | pixels | images | saved, MFLOP a layer | whole pass, ms | what it reaches, ms |")
    print("|---" * 6 + "|")
    incremental.LEAST_SAVED = 0  # so that small windows always use what is cached
    for name, channels, side in NETWORKS:
        model = uiat.models.build(name, num_classes=10, image_shape=(channels, side, side)).eval().requires_grad_(False)
        for images in (4, 16, 64):
            x = torch.rand(images, channels, side, side, generator=torch.Generator().manual_seed(0))
            guide = make_fast_copy(model, x[:4])
            whole, cached = Whole(guide.model), guide.incremental
            attack = Square(threat=uiat.Linf(1e-4), iterations=5_000, stretched=False)
            start = begin(attack, whole, x, model(x).argmax(dim=1), keys(0, torch.arange(images)))
            pixels = window_side(3_500, SCHEDULE, attack.p_init, (side, side), odd=False)
            layers = cached.count_usable(pixels, images) if cached else 0
            if cached is None or not layers:
                continue
            saved = images * cached.saved[pixels, layers] / layers / 1e6
            slow, fast = (median_of(attack, g, start, 3_500, rounds)[0] for g in (whole, guide))
            print(f"| {name} | {side} | {images} | {saved:.0f} | {slow:.2f} | {fast:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run folder")
    parser.add_argument("--networks", action="store_true", help="compare both on random networks of several sizes")
    parser.add_argument("--data.root", dest="root", help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    facts = describe_environment()
    machine = f"{facts['processor']}, {arguments.threads} of {facts['cores']} cores, torch {facts['torch']}"
    if arguments.networks:
        compare_networks(arguments.rounds)
        print(f"\n{machine}")
        return
    model, data = uiat.load(arguments.run), read_run(arguments.run).data
    x, y = uiat.data.tensors(data.name, "test", arguments.root)
    with torch.no_grad():
        correct = (model(x[:1_000]).argmax(dim=1) == y[:1_000]).nonzero().flatten()[:IMAGES]
    x, y = x[correct], y[correct]
    guide = make_fast_copy(model, x[:4])
    whole = Whole(guide.model)
    attack = Square(threat=model.threat, iterations=5_000, stretched=False)
    start = begin(attack, whole, x, y, keys(0, torch.arange(len(x))))
    print("| iteration | window | whole pass, ms | what it reaches, ms | times | same points |\n" + "|---" * 6 + "|")
    for first in ITERATIONS:
        (slow, one), (fast, other) = (median_of(attack, g, start, first, arguments.rounds) for g in (whole, guide))
        pixels = window_side(first, SCHEDULE, attack.p_init, (x.shape[2], x.shape[3]), odd=False)
        same = one["x_adv"].equal(other["x_adv"])
        print(f"| {first} | {pixels} | {slow:.1f} | {fast:.1f} | {slow / fast:.2f} | {same} |", flush=True)
    print(f"\n{machine}")


if __name__ == "__main__":
    main()
