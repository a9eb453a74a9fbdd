"""The whole way of an objective that is not the package's: CONTRIBUTING's LogitPairing, from a file outside it.

    python benchmarks/own_objective.py

By the command alone: train, kill -9 and resume (the same bits), sweep over its field, an ablation of its settings,
evaluate, report, export. Digits, a small network, one thread. In the end no file of the package has changed.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uiat

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.objectives import write_objective

PACKAGE = Path(uiat.__file__).parent
RECIPE = ["digits-pgd-at", "objective.name=mine.py:LogitPairing"]
# An attack of one's own beside it.
NOISE = """
def noise(model, x, y):
    return x + 0.2 * (x.roll(1, 0) - x).sign()
"""
SMALL = ["optimisation.epochs=3", "model.width=8", "evaluation.attacks=[pgd-10]"]


def package_hash() -> str:
    """Hash every source file of the package."""
    files = sorted(PACKAGE.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def uiat_command(*words: str) -> str:
    """Run the command in the working folder; return what it prints."""
    done = subprocess.run([sys.executable, "-m", "uiat", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"uiat {' '.join(words)}: {done.stderr[-500:]}")
    return done.stdout


def train_killed(folder: str) -> int:
    """Train, kill after the first checkpoint, and resume; return the epochs that had been done."""
    words = [sys.executable, "-m", "uiat", "train", *RECIPE, *SMALL, "objective.weight=0.25", "--run-dir", folder]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = Path(folder) / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(metrics.read_text().splitlines())
    uiat_command("train", "--resume", folder, "--own-code")
    return done


def bits(folder: str) -> str:
    names = ("best.safetensors", "last.safetensors")
    return hashlib.sha256(b"".join((Path(folder) / name).read_bytes() for name in names)).hexdigest()


def main() -> None:
    before, begun = package_hash(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_objective(Path("mine.py"), more=NOISE)
        uiat_command("train", *RECIPE, *SMALL, "objective.weight=0.25", "--run-dir", "whole")
        done = train_killed("killed")
        print(f"killed after {done} of 3 epochs and resumed: same bits: {bits('whole') == bits('killed')}", flush=True)
        uiat_command("sweep", *RECIPE, *SMALL, "objective.weight=0.1,1", "--seeds", "0,1", "--out", "sweep")
        runs = json.loads(Path("sweep/sweep.json").read_text())["runs"]
        print(f"sweep over objective.weight and two seeds: {len(runs)} runs evaluated", flush=True)
        uiat_command("analyse", "ablation", "--train", *RECIPE, *SMALL, "--out", "ablation")
        print(f"ablation: {sorted(path.name for path in Path('ablation').glob('ablation.*'))}", flush=True)
        uiat_command("evaluate", "whole", "--own-code", "--attacks", "clean,pgd-10,mine.py:noise")
        accuracy = json.loads(Path("whole/evaluation.json").read_text())["accuracy"]
        print(f"evaluated: {accuracy}", flush=True)
        uiat_command("report", "whole", "killed", "--out", "report/report.html")
        print(f"report: {sorted(path.name for path in Path('report').iterdir())}", flush=True)
        uiat_command("export", "whole", "--to", "pytorch")
        print("exported")
    print(f"the package is untouched: {package_hash() == before}; {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
