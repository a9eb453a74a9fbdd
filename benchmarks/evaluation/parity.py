"""Our ensemble and its parts beside the reference on several models: robust accuracy, agreement, seconds. Resumable.

    python benchmarks/evaluation/parity.py --cifar RUNS/cifar10-small --mnist RUNS/mnist --threads 1  # what is missing
    python benchmarks/evaluation/parity.py --cifar RUNS/cifar10-small --mnist RUNS/mnist --table  # what there is

The folders are those of `benchmarks/training/accuracy.py --runs RUNS`. Several processes of this side by side share the
work. Agreement is the fraction of images with the same verdict: with the reference of the same seed, and of the
reference with itself between seeds.
"""

import argparse
import itertools
import statistics
import sys
from pathlib import Path

from attack_time import RESULTS, factor, pair, result_path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from accuracy import claimed

ALONE = ("apgd-ce", "apgd-t", "fab-t", "square")
# (run folder under which of the two, threat or the run's own, attacks, images, seeds)
Row = tuple[str, str, str | None, tuple[str, ...], int, int]
ROWS: list[Row] = [
    ("cifar", "pgd-at-seed0", None, ("autoattack",), 500, 2),
    ("cifar", "trades-seed0", None, ("autoattack",), 200, 1),
    ("cifar", "uiat-seed0", None, ("autoattack",), 200, 1),
    ("cifar", "pgd-at-seed0", "l2:0.25", ("autoattack",), 200, 1),
    ("cifar", "uiat-seed0", "l2:0.25", ("autoattack",), 200, 1),
    ("cifar", "standard-seed0", "linf:1/255", ("autoattack",), 200, 1),
    *(("cifar", "pgd-at-seed0", None, (name,), 200, 2) for name in ALONE),
    ("mnist", "uiat-seed0", None, ("autoattack",), 1_000, 3),
]


def summarise(records: list[dict]) -> str:
    """Return a line of the table."""
    mine, other = (100 * statistics.mean(r[who]["robust"] for r in records) for who in ("ours", "reference"))
    same = statistics.mean(agreement(r["ours"], r["reference"]) for r in records)
    pairs = list(itertools.combinations([r["reference"] for r in records], 2))
    itself = f"{statistics.mean(agreement(a, b) for a, b in pairs):.1f}" if pairs else "-"
    first = records[0]
    what = f"{first['name']} | {first['threat'] or 'its own'} | {', '.join(first['attacks'])} | {first['n']}"
    times = f"{factor(records):.2f} | {factor(records, 'processor_seconds'):.2f}"
    rates = f"{mine:.2f} | {other:.2f} | {mine - other:+.2f}"
    return f"| {what} | {len(records)} | {rates} | {same:.1f} | {itself} | {times} |"


def agreement(one: dict, other: dict) -> float:
    """Compute the percentage of images with the same verdict."""
    return 100 * statistics.mean(a == b for a, b in zip(one["stands"], other["stands"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="folder of the cifar10-small runs")
    parser.add_argument("--mnist", type=Path, required=True, help="folder of the mnist runs")
    parser.add_argument("--threads", type=int, help="threads of each side")
    parser.add_argument("--table", action="store_true", help="print the table of what there is and stop")
    arguments = parser.parse_args()
    columns = "model | threat | attacks | n | seeds | ours, % | reference, % | difference | agreement, %"
    print(f"| {columns} | of the reference with itself | times faster | by processor time |\n" + "|---" * 12 + "|")
    for where, folder, threat, attacks, n, seeds in ROWS:
        run, records = getattr(arguments, where) / folder, []
        for seed in range(seeds):
            path = result_path(run, threat, list(attacks), n, seed) if run.exists() else None
            if path is None or (arguments.table and not path.exists()):
                continue
            RESULTS.mkdir(parents=True, exist_ok=True)
            with claimed(path.with_suffix(".lock")) as free:
                if free or path.exists():
                    records.append(pair(run, threat, list(attacks), n, seed, arguments.threads))
        if records:
            print(summarise(records), flush=True)


if __name__ == "__main__":
    main()
