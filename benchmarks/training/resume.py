"""Kill -9 a training run at random moments, resume it, and compare it bit for bit with one that was left alone.

Commands: python benchmarks/training/resume.py [--kills 20] [--epochs 3] [--seed 0]
          python benchmarks/training/resume.py --extra [--kills 20]

Each trial trains in a process of its own, which is killed at a random moment between its first step and its end; this
process then resumes it to the end. The trials go through checkpoints every 1, 2 and 3 steps, and through optimisers,
schedules and averages. Weights (last, best, averaged), universal perturbations, the whole training state and the
metrics must be those of the uninterrupted run, bit for bit. Exit code 1 if any is not.

With --extra, half of each batch are extra images, labelled by a teacher that is trained first (kills come there too),
and a generator makes the inverse examples.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import uiat
from uiat.system.environment import describe_environment
from uiat.system.tensor_files import read_tensors
from uiat.training.open_run import start_run

TIMING = {"seconds", "images_per_second", "validation_seconds"}
SETTINGS = [
    {"schedule": "onecycle", "average": "ema", "average_decay": 0.9, "awp": 0.005},
    {"optimizer": "adamw", "learning_rate": 0.01, "schedule": "cosine", "warmup_epochs": 0.5},
    {"schedule": "piecewise", "milestones": (1, 2)},
    {"schedule": "cyclic", "average": "swa", "average_from_epoch": 1},
]
# The trial's process: prepares, says so, waits for its turn, then trains and says so again.
DRIVER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import uiat
from uiat.training.open_run import start_run
folder, config = map(Path, sys.argv[1:])
with start_run(uiat.load_config(config.read_text()), run_dir=folder) as training:
    print("ready", flush=True)
    sys.stdin.readline()
    training.fit()
    print("done", flush=True)
"""


def run_for(index: int, *, epochs: int, seed: int) -> uiat.Run:
    """digits-uiat, small and short, with per-example momentum and crops, its optimisation and checkpoints varied."""
    run = uiat.recipes.get("digits-uiat")
    return replace(
        run,
        seed=seed,
        data=replace(run.data, subset=640, augment="crop"),
        model=replace(run.model, width=8),
        objective=replace(run.objective, attack=replace(run.objective.attack, steps=3), momentum="example"),
        optimisation=replace(run.optimisation, epochs=epochs, **SETTINGS[index % len(SETTINGS)]),
        validation=replace(run.validation, steps=5),
        compute=replace(run.compute, device="cpu", checkpoint_steps=index % 3 + 1),
    )


def with_extra(run: uiat.Run, file: Path) -> uiat.Run:
    """The same with extra images, a teacher that labels them, and a generator."""
    data = replace(run.data, extra=str(file), extra_share=0.5, extra_labels="teacher")
    return replace(run, data=data, objective=replace(run.objective, inverse=uiat.GeneratorInverse(radius=0.1)))


def write_extra(file: Path) -> None:
    """Write 1,000 noisy copies of digits, without labels."""
    random, (x, _) = np.random.default_rng(0), uiat.data.tensors("digits", "train")
    images = 255 * x[:1_000, 0].numpy() + random.normal(0, 20, (1_000, 8, 8))
    np.savez(file, image=images.clip(0, 255).astype(np.uint8))


def train_and_kill(folder: Path, run: uiat.Run, *, after: float) -> str | None:
    """Train in a process of its own, killed after some seconds; returns where that left the run, None at its end."""
    config = folder.with_suffix(".yaml")
    config.write_text(uiat.dump(run))
    command = [sys.executable, "-c", DRIVER, str(folder), str(config)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"the trial in {folder} did not start")
    process.stdin.write("go\n")
    process.stdin.flush()
    time.sleep(after)
    process.kill()
    ended = "done" in process.communicate()[0]
    path = folder / "checkpoint.safetensors"
    if ended:
        return None
    torn = "".join(f", writing {file.name[1:].partition('.')[0]}" for file in folder.glob(".*.partial"))
    if not path.exists():
        where = ", its teacher begun" if (folder / "extra-teacher").exists() else ""
        return f"before any checkpoint{where}{torn}"
    meta = read_tensors(path)[1]["meta"]
    return f"epoch {meta['epoch'] + 1}, step {meta['position']}{torn}"


def train_whole(folder: Path, run: uiat.Run) -> tuple[Path, float]:
    """Train the run that is left alone; returns its folder and the seconds that its training took."""
    with start_run(run, run_dir=folder) as training:
        began = time.perf_counter()
        training.fit()
        return folder, time.perf_counter() - began


def differences(one: Path, two: Path) -> list[str]:
    """Every tensor of two run folders that differs in a bit, and the metrics if they do."""
    names, others = (sorted(str(p.relative_to(f)) for p in f.rglob("*.safetensors")) for f in (one, two))
    result = [] if names == others else [f"files {set(names) ^ set(others)}"]
    for name in set(names) & set(others):
        a, b = (load_file(folder / name) for folder in (one, two))
        result += [f"{name}:{key}" for key in sorted(a.keys() ^ b.keys())]
        result += [f"{name}:{k}" for k in a.keys() & b.keys() if a[k].numpy().tobytes() != b[k].numpy().tobytes()]
    rows = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (one, two)]
    a, b = ([{k: v for k, v in row.items() if k not in TIMING} for row in table] for table in rows)
    return result + (["metrics.jsonl"] if a != b else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the runs and of the moments")
    parser.add_argument("--extra", action="store_true", help="extra images, a teacher and a generator")
    options = parser.parse_args()
    torch.set_num_threads(1)
    moments = random.Random(options.seed)
    identical, began = 0, time.perf_counter()
    print(f"{'trial':>5}  {'optimiser':9}  {'schedule':9}  {'average':7}  {'every':>5}  {'left at':36}  result")
    with tempfile.TemporaryDirectory() as name:
        folder, whole = Path(name), {}
        write_extra(folder / "extra.npz")
        for trial in range(1, options.kills + 1):
            run, kind = run_for(trial, epochs=options.epochs, seed=options.seed), trial % len(SETTINGS)
            run = with_extra(run, folder / "extra.npz") if options.extra else run
            if kind not in whole:
                whole[kind] = train_whole(folder / f"whole-{kind}", run)
            reference, seconds = whole[kind]
            left = None
            while left is None:  # a moment after the end is drawn again
                here = folder / f"trial-{trial}-{moments.random()}"
                left = train_and_kill(here, run, after=moments.uniform(0, seconds))
            uiat.resume(here)
            wrong = differences(reference, here)
            identical += not wrong
            settings = run.optimisation
            verdict = "identical" if not wrong else f"{len(wrong)} differ: {', '.join(wrong[:3])}"
            row = f"{trial:5}  {settings.optimizer:9}  {settings.schedule:9}  {settings.average:7}"
            print(f"{row}  {run.compute.checkpoint_steps:5}  {left:36}  {verdict}", flush=True)
    print(f"{identical} of {options.kills} identical")
    machine = describe_environment()
    print(f"{time.perf_counter() - began:.0f} s, torch {torch.__version__}, {machine['processor']}, one thread")
    return int(identical != options.kills)


if __name__ == "__main__":
    sys.exit(main())
