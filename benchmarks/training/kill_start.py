"""Kill -9 starts at each of their calls to the system, begin them again, and compare with a run that was left alone.

Command: python benchmarks/training/kill_start.py [--commands train,sweep] [--every 1] [--workers 5] [--processes 8]

1. `train` and `sweep` are killed before and after every call that changes the disk (mkdir, open, fsync, rename, unlink
   and so on), from the first to the last. The same command, or --resume where there is a run by then, has to end with
   the same bits in every tensor, and to leave no half-written file.
2. A training with data workers is killed and resumed in the same moment: no lock may outlive it.
3. Trainings in two processes (torchrun) are killed inside an epoch and resumed in two: the logged means of the losses
   have to be the same to the last digit.

Exit code 1 if anything differs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from uiat.cli import main as uiat_main
from uiat.system.environment import describe_environment

FIELDS = ["data.subset=64", "model.width=4", "optimisation.epochs=1", "objective.attack.steps=1", "validation.steps=1"]
EVALUATION = ["evaluation.attacks=[fgsm]", "evaluation.n=20"]
CALLS = ("mkdir", "open", "fsync", "replace", "rename", "chmod", "unlink", "rmdir")
LONG = ["data.subset=640", "model.width=4", "optimisation.epochs=2", "compute.checkpoint_steps=1"]


class Moments:
    """Counts calls of `os` that change the disk, and kills the process before or after one of them."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.count = at, after, 0

    def watch(self) -> None:
        """Put the counting calls in place of those of `os`."""
        for name in CALLS:
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call):
        def counted(*args, **options):
            now, self.count = self.count, self.count + 1
            if now == self.at and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*args, **options)
            finally:
                if now == self.at:
                    os.kill(os.getpid(), signal.SIGKILL)

        return counted


def run_forked(words: list, moments: Moments | None = None) -> int:
    """Run a command in a forked process, which has everything imported; returns its exit code, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            with open(os.devnull, "w") as nowhere:
                sys.stdout = sys.stderr = nowhere
                if moments is not None:
                    moments.watch()
                code = uiat_main([str(word) for word in words])
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def find_differences(one: Path, two: Path) -> list[str]:
    """Return the tensors of two run folders that differ in a bit, and the files that only one of them has."""
    names = {path.name for path in one.iterdir()} ^ {
        path.name for path in two.iterdir() if "evaluation" not in path.name
    }
    # A sweep calls a run done once all its results are there; the checkpoint, written last, is for runs under way.
    finished = (two / "evaluation.json").exists()
    result = [name for name in names if "evaluation" not in name and not (finished and name.startswith("checkpoint"))]
    for name in ("last", "best", "inverse", "checkpoint"):
        if not (two / f"{name}.safetensors").exists():
            continue  # told already, if it has to be there
        a, b = (load_file(folder / f"{name}.safetensors") for folder in (one, two))
        result += [f"{name}:{key}" for key in sorted(a.keys() ^ b.keys())]
        result += [f"{name}:{k}" for k in a.keys() & b.keys() if a[k].numpy().tobytes() != b[k].numpy().tobytes()]
    return result


def kill_starts(folder: Path, command: str, whole: Path, *, every: int) -> tuple[int, int]:
    """Kill a command before and after each of its calls; returns (ended identical, kills)."""
    identical = kills = 0
    for after in (False, True):
        for at in range(0, 10**6, every):
            here = folder / f"{command}-{after}-{at}"
            here.mkdir()
            target = here / "it"
            words = {
                "train": ["train", "digits-uiat", *FIELDS, "--run-dir", target],
                "sweep": ["sweep", "digits-uiat", *FIELDS, *EVALUATION, "--out", target],
            }[command]
            if run_forked(words, Moments(at, after=after)) != -signal.SIGKILL:
                break  # it has come to its end
            kills += 1
            again = ["train", "--resume", target] if command == "train" and target.exists() else words
            code = run_forked(again)
            runs = [target] if command == "train" else [path for path in target.iterdir() if path.is_dir()]
            wrong = (
                [f"exit code {code}, {len(runs)} runs"] if code or len(runs) != 1 else find_differences(whole, *runs)
            )
            wrong += [str(path) for path in [*here.rglob(".*")]]
            identical += not wrong
            if wrong:
                print(
                    f"{command}, killed {'after' if after else 'before'} call {at}: {', '.join(wrong[:3])}", flush=True
                )
    return identical, kills


def kill_with_workers(folder: Path, count: int) -> tuple[int, int]:
    """Kill a training with data workers and resume it at once; returns (resumed, kills)."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(200):
                grey = (number * 7 + 90 * (name == "b")) % 256
                Image.new("RGB", (16, 16), (grey, grey, grey)).save(folder / "images" / split / name / f"{number}.png")
    data = [f"data.name=imagefolder:{folder / 'images'}", "data.image_size=16", "data.workers=2", "data.batch_size=32"]
    resumed = 0
    for number in range(count):
        run = folder / f"workers-{number}"
        words = ["train", "digits-standard", *data, "data.augment=none", "optimisation.epochs=300", "--run-dir", run]
        process = subprocess.Popen([sys.executable, "-m", "uiat", *map(str, words)], stdout=subprocess.DEVNULL)
        while not (run / "checkpoint.safetensors").exists():
            time.sleep(0.05)
            if process.poll() is not None:
                raise SystemExit("the training with workers did not start")
        process.kill()
        process.wait()
        began = time.monotonic()
        again = subprocess.Popen(
            [sys.executable, "-m", "uiat", "train", "--resume", str(run)], stdout=subprocess.PIPE, text=True
        )
        said = again.stdout.readline()
        resumed += "resumed in epoch" in said
        print(f"with workers: {said.strip() or 'refused'} ({time.monotonic() - began:.1f} s)", flush=True)
        again.kill()
        again.communicate()
    return resumed, count


def kill_processes(folder: Path, count: int) -> tuple[int, int]:
    """Kill trainings in two processes inside an epoch, and resume them in two; returns (identical, kills)."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "uiat"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    whole = folder / "two"
    words = ["train", "digits-uiat", *LONG, "data.batch_size=32", "--run-dir"]
    subprocess.run([*launcher, *words, whole], check=True, **quiet)
    moments, identical = random.Random(0), 0
    for number in range(count):
        run = folder / f"two-{number}"
        process = subprocess.Popen([*launcher, *words, run], start_new_session=True, **quiet)
        while not (run / "checkpoint.safetensors").exists():
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.6))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run([*launcher, "train", "--resume", run], check=True, **quiet)
        wrong = find_differences(whole, run)
        a, b = ([json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (whole, run))
        wrong += [k for one, two in zip(a, b, strict=True) for k in one if k.startswith("train_") and one[k] != two[k]]
        identical += not wrong
        print(f"two processes, kill {number + 1}: {', '.join(wrong[:3]) or 'identical'}", flush=True)
    return identical, count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", default="train,sweep", help="which commands are killed at each call")
    parser.add_argument("--every", type=int, default=1, help="kill at every Nth call")
    parser.add_argument("--workers", type=int, default=5, help="kills of a training with data workers")
    parser.add_argument("--processes", type=int, default=8, help="kills of a training in two processes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, results = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = folder / "whole"
        uiat_main(["train", "digits-uiat", *FIELDS, "--run-dir", str(whole)])
        uiat_main(["evaluate", str(whole), "--attacks", "fgsm", "--n", "20", "--out", str(folder / "evaluated")])
        for command in filter(None, options.commands.split(",")):
            results[f"{command}, killed at each call"] = kill_starts(folder, command, whole, every=options.every)
            print(f"{command}: {results[f'{command}, killed at each call']}", flush=True)
        results["killed with data workers, resumed at once"] = kill_with_workers(folder, options.workers)
        results["two processes, killed inside an epoch"] = kill_processes(folder, options.processes)
    for what, (good, kills) in results.items():
        print(f"{what}: {good} of {kills}")
    machine = describe_environment()
    print(f"{time.perf_counter() - began:.0f} s, torch {torch.__version__}, {machine['processor']}, one thread")
    return int(any(good != kills for good, kills in results.values()))


if __name__ == "__main__":
    sys.exit(main())
