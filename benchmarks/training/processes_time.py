"""One process with two threads, and two gloo processes with one thread each: images a second, in turn.

    python benchmarks/training/processes_time.py --root DATA --rounds 5

Each trains `cifar10-small-pgd-at` and `-uiat` for two short epochs with the same batches of 64 images, of which the
second is counted: the first warms up. Beside them, two processes that know nothing of one another, with batches of 32:
what two would do that had nothing to exchange.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from uiat.system.environment import describe_environment

IMAGES = 3_200
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


def start(method: str, folder: Path, root: str, *, processes: int, threads: int, batch: int) -> subprocess.Popen:
    settings = [f"data.batch_size={batch}", f"data.subset={IMAGES * batch // 64}", "data.validation=100"]
    settings += ["optimisation.epochs=2", "validation.every=2", f"data.root={root}"]
    launcher = TORCHRUN if processes == 2 else [sys.executable]
    command = [*launcher, "-m", "uiat", "train", f"cifar10-small-{method}", "--run-dir", str(folder), *settings]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def rate(folder: Path) -> float:
    """Images a second in the last epoch."""
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["images_per_second"]


def one_round(method: str, root: str) -> dict[str, float]:
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = {"one process, two threads": (1, 2), "two processes": (2, 1)}
        for name, (processes, threads) in ways.items():
            here = Path(folder) / name.replace(" ", "-")
            start(method, here, root, processes=processes, threads=threads, batch=64).wait()
            rates[name] = rate(here)
        apart = [Path(folder) / str(i) for i in range(2)]
        for process in [start(method, here, root, processes=1, threads=1, batch=32) for here in apart]:
            process.wait()
        rates["two that know nothing of one another"] = sum(rate(here) for here in apart)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of the data sets")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("| method | way | images a second, median | of one process, median of rounds |\n|---|---|---|---|")
    for method in ("pgd-at", "uiat"):
        rounds = [one_round(method, arguments.root) for _ in range(arguments.rounds)]
        for name in rounds[0]:
            median = statistics.median(r[name] for r in rounds)
            ratio = statistics.median(r[name] / r["one process, two threads"] for r in rounds)
            print(f"| {method} | {name} | {median:.0f} | {ratio:.2f} |", flush=True)
    facts = {k: describe_environment()[k] for k in ("torch", "processor", "cores")}
    print(f"\n{arguments.rounds} rounds, {facts}")


if __name__ == "__main__":
    main()
