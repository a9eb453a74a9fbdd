"""How mutated calls of the public API and mutated command lines end: counts, and each that ends badly.

    python benchmarks/fuzz.py --minutes 60 [--seed 0] [--only calls|lines]

The mutations are those of tests/support/mutations.py. "refused" is a UserError, or exit 2, in one line that names the
culprit; "unnamed" one that does not; "nonsense" a result that is accepted and is none. Trainings of command lines stop
before their first step. Exits with 1 if anything ended in a traceback, a hang, nonsense or without a name.
"""

import argparse
import logging
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import mutations

KINDS = ("accepted", "refused", "unnamed", "traceback", "hang", "nonsense")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("calls", "lines"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    rng = random.Random(options.seed)
    end, counts, seen = time.monotonic() + 60 * options.minutes, {"calls": Counter(), "lines": Counter()}, set()
    while time.monotonic() < end:
        what = options.only or ("lines" if rng.random() < 0.3 else "calls")
        if what == "calls":
            outcome = mutations.run_call(*mutations.mutated_call(rng.choice))
        else:
            outcome = mutations.run_line(mutations.mutated_line(rng.choice))
        counts[what][outcome.kind] += 1
        if outcome.kind not in KINDS[:2] and (key := (outcome.what, outcome.message)) not in seen:
            seen.add(key)
            print(f"{outcome.kind}: {outcome.what}: {outcome.message}", flush=True)
    print(f"\n| what | tried | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}")
    for what, count in counts.items():
        print(f"| {what} | {sum(count.values())} | {' | '.join(str(count[kind]) for kind in KINDS)} |")
    return int(any(count[kind] for count in counts.values() for kind in KINDS[2:]))


if __name__ == "__main__":
    raise SystemExit(main())
