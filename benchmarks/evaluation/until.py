"""How often does the interval at which `evaluate --until` stops hold the accuracy on all images?

    python benchmarks/evaluation/until.py --runs 2000

No model: of n images a known fraction is robust, and they are drawn in random order, part by part as evaluations do,
until the 95 % interval is as narrow as asked for. Looking after each part could make it too bold.
"""

import argparse

import numpy as np

from uiat.evaluation.bracket import FEWEST, PARTS, Bracket


def stop(rng: np.random.Generator, n: int, robust: int, width: float) -> Bracket:
    """Return the bracket at which an evaluation stops."""
    part, done, found = max(FEWEST, -(-n // PARTS)), 0, 0
    while True:
        take = min(part, n - done)
        left = robust - found
        found, done = found + int(rng.hypergeometric(left, n - done - left, take)), done + take
        bracket = Bracket(done, found, n)
        if done == n or bracket.is_within(width):
            return bracket


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    print("| images | width | robust, % | interval holds it, % | images done, mean |\n|---|---|---|---|---|")
    for n in (1_000, 10_000):
        for width in (0.1, 0.05, 0.03):
            for percent in (2, 30, 50, 80):
                robust = n * percent // 100
                ends = [stop(rng, n, robust, width) for _ in range(arguments.runs)]
                held = np.mean([low <= robust / n <= high for low, high in (end.interval for end in ends)])
                done = np.mean([end.done for end in ends])
                print(f"| {n:,} | {width} | {percent} | {100 * held:.1f} | {done:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
