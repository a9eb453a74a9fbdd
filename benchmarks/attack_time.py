"""Verdicts and seconds of our attacks beside those of `pyautoattack` (the reference), seed by seed and in turn.

    python benchmarks/attack_time.py RUN --n 100 --seeds 0,1 --threads 1
    python benchmarks/attack_time.py RUN --attacks apgd-ce,apgd-t --n 500

A result is written after each pair to benchmarks/results/attack-time/, and what is there is not computed again.
"""

import argparse
import json
import statistics
import time
import zlib
from pathlib import Path

import torch
from pyautoattack import AutoAttack

import uiat
from uiat.cli.evaluate import judged_images
from uiat.data import as_float
from uiat.environment import environment
from uiat.files import write_json
from uiat.runs import read_run

RESULTS = Path(__file__).resolve().parent / "results" / "attack-time"
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


def ours(model, x, y, threat, attacks, seed):
    """Which images stand, and the seconds it took."""
    start = time.perf_counter()
    result = uiat.evaluate(model, x, y, threat=threat, attacks=attacks, seed=seed)
    return [by == "" for by in result.broken_by], time.perf_counter() - start


def theirs(model, x, y, threat, attacks, seed):
    """The same by the reference, in its usual use."""
    names = list(STANDARD if attacks == ["autoattack"] else attacks)
    start = time.perf_counter()
    options = {"norm": threat.norm, "eps": float(threat.epsilon), "seed": seed, "device": "cpu"}
    attack = AutoAttack(model, attacks=names, version="custom", **options)
    x_adv = attack.run_standard_evaluation(x, y, batch_size=250)
    x_adv = x_adv if isinstance(x_adv, torch.Tensor) else x_adv[0]
    with torch.no_grad():
        stands = model(x_adv).argmax(dim=1) == y
    return stands.tolist(), time.perf_counter() - start


def pair(run: Path, attacks: list[str], n: int, seed: int) -> dict:
    weights = (
        f"{zlib.crc32((run / 'best.safetensors').read_bytes()):08x}"  # another run of the same name is another model
    )
    name = f"{read_run(run).name}-{weights}-{'+'.join(attacks)}-n{n}-seed{seed}.json"
    if (RESULTS / name).exists():
        return json.loads((RESULTS / name).read_text())
    model, images = uiat.load(run), judged_images(read_run(run), n=n)
    x, y = as_float(images.images), images.labels
    record = {"attacks": attacks, "n": len(y), "seed": seed, "environment": environment()}
    for who, judge in (("ours", ours), ("reference", theirs)):
        stands, seconds = judge(model, x, y, model.threat, attacks, seed)
        record[who] = {"robust": sum(stands) / len(stands), "seconds": seconds, "stands": stands}
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / name, record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--attacks", default="autoattack", help="autoattack, or names of its attacks")
    parser.add_argument("--n", type=int, default=100, help="images")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--threads", type=int, help="threads of this process")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(
        "| seed | ours, % | reference, % | agreement, % | ours, s | reference, s | times faster |\n" + "|---" * 7 + "|"
    )
    factors = []
    for seed in (int(s) for s in arguments.seeds.split(",")):
        record = pair(arguments.run, arguments.attacks.split(","), arguments.n, seed)
        one, other = record["ours"], record["reference"]
        same = statistics.mean(a == b for a, b in zip(one["stands"], other["stands"], strict=True))
        factors.append(other["seconds"] / one["seconds"])
        rates = f"{100 * one['robust']:.2f} | {100 * other['robust']:.2f} | {100 * same:.1f}"
        print(f"| {seed} | {rates} | {one['seconds']:.1f} | {other['seconds']:.1f} | {factors[-1]:.2f} |", flush=True)
    print(f"\nmedian factor {statistics.median(factors):.2f}, n = {record['n']}, {record['environment']['torch']}")


if __name__ == "__main__":
    main()
