"""What has become slower: the training step and the ensemble, beside what they are compared with, in two minutes.

    python benchmarks/guard.py             # compare with the record of this processor; code 1: something is slower
    python benchmarks/guard.py --record    # and make what is measured now the record

Every figure is a ratio of processor time on one thread, so that the machine's speed and other jobs count little: a step
beside a loop of much research code, and each stage of the ensemble beside the reference's (`pyautoattack`), on a
network that is trained here on digits. A ratio below 0.85 of the recorded one is slower. Nothing is downloaded.
Records: benchmarks/results/guard.json, one a processor and version of torch.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

import uiat
from uiat.config.yaml_io import override
from uiat.objectives import Objective, Trades
from uiat.system.atomic_files import write_json
from uiat.system.environment import describe_environment

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "training"), str(HERE / "evaluation")]
from attack_time import STANDARD, run_side  # noqa: E402
from step_time import network, research_step  # noqa: E402

RECORDS = HERE / "results" / "guard.json"
SLOWER = 0.85  # of the recorded ratio; runs of the same code differ by less
EPSILON, STEP, STEPS = 8 / 255, 2 / 255, 10
NETWORK, BATCH, CLASSES = "small-cnn", 64, 10


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels; their values decide no time, so they are noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, 3, 32, 32, generator=generator), torch.arange(BATCH) % CLASSES


def research() -> Callable[[], object]:
    """Return a step of PGD-AT as it is often written."""
    model, (x, y) = network(NETWORK), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return lambda: research_step(model, optimizer, x, y, epsilon=EPSILON, step=STEP, steps=STEPS)


def ours(objective: Objective) -> Callable[[], object]:
    """Return our step of an objective, in single precision and not compiled, which every machine can run."""
    model, (x, y) = network(NETWORK).to(memory_format=torch.channels_last), batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    shape = {"num_classes": CLASSES, "image_shape": (3, 32, 32), "num_examples": BATCH}
    step = uiat.make_step(model, objective, optimizer, **shape)
    each = uiat.Batch(x.contiguous(memory_format=torch.channels_last), y, torch.arange(BATCH))
    return lambda: step(each)


def steps(rounds: int) -> dict[str, float]:
    """Return how many times faster our steps are than the research loop's, medians of rounds in turn."""
    attack = uiat.PGD(threat=uiat.Linf(EPSILON), step_size=STEP, steps=STEPS)
    natural = uiat.PGD(threat=uiat.Linf(EPSILON), step_size=STEP, steps=STEPS, loss="kl", start="gaussian")
    objectives = {
        "PGD-AT": uiat.PGDAT(attack=attack),
        "UIAT": uiat.UIAT(attack=attack),
        "TRADES": Trades(attack=natural),
    }
    ways = {"research": research()} | {name: ours(objective) for name, objective in objectives.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            if number:  # the first warms up
                seconds[name].append(time.process_time() - start)
    usual = seconds.pop("research")
    return {
        f"step, {name}": statistics.median(theirs / mine for theirs, mine in zip(usual, own, strict=True))
        for name, own in seconds.items()
    }


def ensemble(n: int, seeds: int) -> dict[str, float]:
    """Return how many times faster our stages are than the reference's, on a network trained here for some seconds."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = [("optimisation.epochs", "6"), ("compute.precision", "fp32"), ("compute.compile", "false")]
        run = override(uiat.recipes.get("digits-pgd-at"), pairs)
        uiat.train(run, run_dir=Path(folder) / "run")
        # A process each, as ours tells the allocator to keep memory; each stage attacks every image.
        sides = {who: ProcessPoolExecutor(1, mp_context=get_context("spawn")) for who in ("ours", "reference")}
        ratios: dict[str, list[float]] = {f"ensemble, {stage}": [] for stage in STANDARD}
        for seed in range(seeds + 1):
            for stage, measured in zip(STANDARD, ratios.values(), strict=True):
                given = (Path(folder) / "run", None, [stage], n if seed else 8, seed, 1)
                ours, reference = (side.submit(run_side, who, *given).result() for who, side in sides.items())
                if seed:  # the first warms up
                    measured.append(reference["processor_seconds"] / ours["processor_seconds"])
        for side in sides.values():
            side.shutdown()
    return {name: statistics.median(measured) for name, measured in ratios.items()}


def judge(measured: dict[str, float], recorded: dict[str, float]) -> list[str]:
    """Print the table; return the names of what has become slower."""
    print("| what | times faster | recorded | now of it |\n|---|---|---|---|")
    for name, ratio in measured.items():
        last = recorded.get(name)
        cells = ("-", "-") if last is None else (f"{last:.2f}", f"{ratio / last:.2f}")
        print(f"| {name} | {ratio:.2f} | {cells[0]} | {cells[1]} |")
    return [name for name, ratio in measured.items() if name in recorded and ratio < SLOWER * recorded[name]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="make this the record of this processor")
    parser.add_argument("--rounds", type=int, default=7, help="of the steps")
    parser.add_argument("--n", type=int, default=40, help="images of the ensemble")
    parser.add_argument("--seeds", type=int, default=1, help="of the ensemble, whose median is taken")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facts = describe_environment()
    machine = f"{facts['processor']}, torch {facts['torch']}"
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    measured = steps(arguments.rounds) | ensemble(arguments.n, arguments.seeds)
    slower = judge(measured, records.get(machine, {}))
    if machine not in records:
        print(f"\nno record of {machine} to compare with; --record makes one")
    elif slower:
        print(f"\nslower than recorded: {'; '.join(slower)}")
    if arguments.record:
        write_json(RECORDS, records | {machine: {name: round(ratio, 3) for name, ratio in measured.items()}})
    return int(bool(slower))


if __name__ == "__main__":
    sys.exit(main())
