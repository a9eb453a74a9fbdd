"""Verdicts, seconds and passes of our attacks beside those of `pyautoattack` (the reference), seed by seed, in turn.

    python benchmarks/evaluation/attack_time.py RUN --n 100 --seeds 0,1 --threads 1
    python benchmarks/evaluation/attack_time.py RUN --attacks square --threat linf:2/255 --n 200
    python benchmarks/evaluation/attack_time.py RUN --threads 2 --processes 2  # ours as under torchrun, one thread each

Each side has a process of its own, since ours tells the allocator to keep memory, by which the reference would gain
too. Ours is without the self-checks, which the reference does not have. A result is written after each pair to
benchmarks/results/attack-time/, and what is there is not computed again.
"""

import argparse
import json
import statistics
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from pyautoattack import AutoAttack

import uiat
from uiat.data import as_float
from uiat.experiments.images import evaluated_images
from uiat.runs.settings import read_run
from uiat.speed.fast_copy import CountingModel
from uiat.system.atomic_files import write_json
from uiat.system.environment import describe_environment
from uiat.threat import parse as parse_threat

RESULTS = Path(__file__).resolve().parents[1] / "results" / "attack-time"
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")


def ours(model, x, y, threat, attacks, seed):
    """Attack by ours; return which images are robust, and seconds and passes of each stage."""
    result = uiat.evaluate(model, x, y, threat=threat, attacks=attacks, seed=seed, selfchecks=False)
    return [by == "" for by in result.broken_by], result.stage_seconds, result.passes


def theirs(model, x, y, threat, attacks, seed):
    """Attack by the reference, in its usual use; return the same."""
    names = list(STANDARD if attacks == ["autoattack"] else attacks)
    counted = Passes(model)
    options = {"norm": threat.norm, "eps": float(threat.epsilon), "seed": seed, "device": "cpu"}
    # Asked for a custom version, it would take five restarts of APGD and FAB: not the standard's budgets.
    attack = AutoAttack(counted, version="standard", **options)
    attack.attacks_to_run = names
    seconds, passes = {}, {}
    # Its stages in the order in which it runs them; those that share an object are told apart by what is asked for.
    parts = {"apgd-ce": "apgd", "apgd-dlr": "apgd", "apgd-t": "apgd_targeted", "fab-t": "fab", "square": "square"}
    for part in {parts[name] for name in names}:
        stages = [name for name in names if parts[name] == part]
        search = getattr(attack, part)
        search.perturb = time_stage(search, stages, counted, seconds, passes)
    x_adv = attack.run_standard_evaluation(x, y, batch_size=250)
    x_adv = x_adv if isinstance(x_adv, torch.Tensor) else x_adv[0]
    with torch.no_grad():
        robust = model(x_adv).argmax(dim=1) == y
    return robust.tolist(), seconds, passes


class Passes(torch.nn.Module):
    """A model for the reference that counts the images of its forward and backward passes."""

    def __init__(self, model):
        super().__init__()
        self.counted = CountingModel(model)
        self.model = model

    def forward(self, x):
        """Return the logits."""
        return self.counted(x)


def time_stage(search, stages, model, seconds, passes):
    """Return `search.perturb`, with its seconds and passes added up under the stage's name."""
    perturb = search.perturb

    def call(*arguments, **options):
        name = next((s for s in stages if s.removeprefix("apgd-") == getattr(search, "loss", None)), stages[0])
        start, before = time.perf_counter(), (model.counted.forward, model.counted.backward)
        x_adv = perturb(*arguments, **options)
        seconds[name] = seconds.get(name, 0) + time.perf_counter() - start
        now = passes.setdefault(name, {"forward": 0, "backward": 0})
        now["forward"] += model.counted.forward - before[0]
        now["backward"] += model.counted.backward - before[1]
        return x_adv

    return call


def run_side(
    who: str, run: Path, threat: str | None, attacks: list[str], n: int, seed: int, threads: int | None
) -> dict:
    """Run one side in this process; return its verdicts and costs."""
    if threads:
        torch.set_num_threads(threads)
    model, images = uiat.load(run), evaluated_images(read_run(run), n=n)
    x, y = as_float(images.images), images.labels
    start, spent = time.perf_counter(), time.process_time()
    attack = ours if who == "ours" else theirs
    robust, stages, passes = attack(model, x, y, parse_threat(threat) if threat else model.threat, attacks, seed)
    return {
        "robust": sum(robust) / len(robust),
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - spent,
        "stage_seconds": stages,
        "passes": passes,
        "stands": robust,
        "environment": describe_environment(),
    }


def run_rank(rank: int, processes: int, meeting: str, *given) -> dict:
    """Run ours in one of several processes that share the images, as under torchrun."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    *rest, threads = given
    result = run_side("ours", *rest, (threads or torch.get_num_threads()) // processes)
    dist.destroy_process_group()
    return result


def run_apart(who: str, processes: int, *given) -> dict:
    """Run a side in processes of its own; seconds are those of the slowest, processor time is that of all together."""
    count = processes if who == "ours" else 1
    with TemporaryDirectory() as folder, ProcessPoolExecutor(count, mp_context=get_context("spawn")) as alone:
        if count == 1:
            return alone.submit(run_side, who, *given).result()
        meeting = str(Path(folder) / "meeting")
        ranks = [f.result() for f in [alone.submit(run_rank, i, count, meeting, *given) for i in range(count)]]
    whole = {clock: fold(r[clock] for r in ranks) for clock, fold in (("seconds", max), ("processor_seconds", sum))}
    return ranks[0] | whole


def result_path(run: Path, threat: str | None, attacks: list[str], n: int, seed: int, processes: int = 1) -> Path:
    """Return the file of a pair's result; another run of the same name is another model."""
    weights = f"{zlib.crc32((run / 'best.safetensors').read_bytes()):08x}"
    radius = "" if threat is None else "-" + threat.replace(":", "-").replace("/", "_")
    parts = f"-processes{processes}" if processes > 1 else ""
    return RESULTS / f"{read_run(run).name}-{weights}{radius}-{'+'.join(attacks)}-n{n}-seed{seed}{parts}.json"


def pair(
    run: Path, threat: str | None, attacks: list[str], n: int, seed: int, threads: int | None, processes: int = 1
) -> dict:
    path = result_path(run, threat, attacks, n, seed, processes)
    if path.exists():
        return json.loads(path.read_text())
    # In turn, so that neither always has the warmer or the busier machine.
    turns = ["ours", "reference"][:: 1 if seed % 2 == 0 else -1]
    record = {"name": read_run(run).name, "threat": threat, "attacks": attacks, "n": n, "seed": seed}
    for who in turns:
        record[who] = run_apart(who, processes, run, threat, attacks, n, seed, threads)
    record["environment"] = record["ours"]["environment"]
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--attacks", default="autoattack", help="autoattack, or names of its attacks")
    parser.add_argument("--n", type=int, default=100, help="images")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--threads", type=int, help="threads of each side")
    parser.add_argument("--processes", type=int, default=1, help="of ours, among which the threads are shared")
    parser.add_argument("--threat", help="such as linf:2/255 or l2:0.5; by default the run's own")
    arguments = parser.parse_args()
    print(
        "| seed | ours, % | reference, % | agreement, % | ours, s | reference, s | times faster | by processor time |"
    )
    print("|---" * 8 + "|")
    records = []
    for seed in (int(s) for s in arguments.seeds.split(",")):
        records.append(
            pair(
                arguments.run,
                arguments.threat,
                arguments.attacks.split(","),
                arguments.n,
                seed,
                arguments.threads,
                arguments.processes,
            )
        )
        one, other = records[-1]["ours"], records[-1]["reference"]
        same = statistics.mean(a == b for a, b in zip(one["stands"], other["stands"], strict=True))
        rates = f"{100 * one['robust']:.2f} | {100 * other['robust']:.2f} | {100 * same:.1f}"
        times = f"{one['seconds']:.1f} | {other['seconds']:.1f} | {factor(records[-1:]):.2f}"
        print(f"| {seed} | {rates} | {times} | {factor(records[-1:], 'processor_seconds'):.2f} |", flush=True)
    print(f"\nmedian factor {factor(records):.2f}, n = {records[0]['n']}, {describe(records[0]['environment'])}")
    print("\n" + stages_table(records))


def factor(records, clock="seconds"):
    """Return how many times faster ours is, the median over the pairs."""
    return statistics.median(r["reference"].get(clock, 0) / r["ours"].get(clock, float("inf")) for r in records)


def describe(facts):
    return f"{facts['processor']}, {facts['threads']} of {facts['cores']} cores, torch {facts['torch']}"


def stages_table(records):
    """Return a table of seconds and passes of each stage, over all seeds; the first two are "autoattack-quick"."""
    rows = ["| stage | ours, s | reference, s | times | ours, passes | reference, passes |\n" + "|---" * 6 + "|"]
    records = [r for r in records if "stage_seconds" in r["ours"]]
    total = {who: sum(r[who]["seconds"] for r in records) for who in ("ours", "reference")}
    for stage in dict.fromkeys(name for r in records for name in r["ours"]["stage_seconds"]):
        cells = []
        for who in ("ours", "reference"):
            seconds = sum(r[who]["stage_seconds"].get(stage, 0) for r in records)
            passes = [r[who]["passes"].get(stage, {}) for r in records]
            both = " + ".join(str(sum(p.get(way, 0) for p in passes)) for way in ("forward", "backward"))
            cells.append((seconds, both))
        (one, here), (other, there) = cells
        rows.append(f"| {stage} | {one:.1f} | {other:.1f} | {other / max(one, 1e-9):.2f} | {here} | {there} |")
    quick = sum(
        s for r in records for name, s in r["ours"]["stage_seconds"].items() if name in ("clean", *STANDARD[:2])
    )
    if records and set(STANDARD) <= set(records[0]["ours"]["stage_seconds"]):
        rows.append(f"\nautoattack-quick is {total['reference'] / quick:.2f} times faster than the whole reference")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
