"""Kill -9 an evaluation at random moments, resume it, and compare each image's verdict with one that was left alone.

    python benchmarks/evaluation/resume_evaluation.py RUN [--kills 10] [--n 20] [--attacks pgd-10-2,autoattack]

Each trial evaluates a run's model in a process of its own, with a state file that is written every second, and is
killed at a random moment between its start and its end; a second process resumes it, and is killed in its turn in every
other trial. The last one runs to the end. Verdicts, the stage that broke each image, the accuracies after all stages
and the adversarial examples must be those of the uninterrupted evaluation. Exit code 1 if any is not.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import uiat
from uiat.data import as_float
from uiat.experiments.images import evaluated_images
from uiat.runs.settings import read_run
from uiat.system.atomic_files import write_text
from uiat.system.environment import describe_environment
from uiat.system.tensor_files import read_tensors

# The trial's process: prepares, says so, waits for its turn, then evaluates and says so again.
DRIVER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from resume_evaluation import evaluate_run, write
run, state, out, n, attacks = (Path(word) for word in sys.argv[2:7])
print("ready", flush=True)
sys.stdin.readline()
write(out, evaluate_run(run, n=int(str(n)), attacks=str(attacks).split(","), state=state, resume=True))
print("done", flush=True)
"""
COMPARED = ("accuracy", "stages", "broken_by", "intervals", "per_class", "calibration")


def evaluate_run(
    run: Path, *, n: int, attacks: list[str], state: Path | None = None, resume: bool = False
) -> uiat.EvaluationResult:
    model, images = uiat.load(run), evaluated_images(read_run(run), n=n)
    options = {"threat": model.threat, "attacks": attacks, "batch_size": 25, "keep_examples": True}
    files = {"state": state, "resume": resume, "save_minutes": 1 / 60}
    return uiat.evaluate(model, as_float(images.images), images.labels, **options, **files, selfchecks=False)


def write(path: Path, result: uiat.EvaluationResult) -> None:
    """Write what is compared as JSON, from which a float32 comes back as it was."""
    record = {name: getattr(result, name) for name in COMPARED}
    write_text(path, json.dumps(record | {"examples": result.examples.tolist()}))


def start(folder: Path, arguments: argparse.Namespace) -> subprocess.Popen:
    here = Path(__file__).resolve().parent
    words = [here, arguments.run, folder / "state", folder / "result.json", arguments.n, arguments.attacks]
    command = [sys.executable, "-c", DRIVER, *map(str, words)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"the trial in {folder} did not start")
    process.stdin.write("go\n")
    process.stdin.flush()
    return process


def describe_progress(path: Path) -> str:
    """Say how far the evaluation of a state file has come."""
    if not path.exists():
        return "before the first write"
    meta = read_tensors(path)[1]
    done = [stage for stages in meta["tally"]["after"].values() for stage in stages]
    where = f"after {done[-1]}" if done else "at the start"
    inside = meta["inside"]
    return where if inside is None else f"{where}, inside: {', '.join(f'{k} {v}' for k, v in inside.items())}"


def run_trial(folder: Path, arguments: argparse.Namespace, moments: list[float]) -> list[str]:
    """Kill an evaluation after each of these seconds, then leave it to its end; return how far it was at each kill."""
    folder.mkdir()
    places = []
    for after in moments:
        process = start(folder, arguments)
        time.sleep(after)
        process.kill()
        process.communicate()
        if (folder / "result.json").exists():  # it had ended before
            return places
        places.append(describe_progress(folder / "state"))
    start(folder, arguments).wait()
    return places


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--kills", type=int, default=10, help="trials; every other one is killed twice")
    parser.add_argument("--n", type=int, default=20, help="images")
    parser.add_argument("--attacks", default="pgd-10-2,autoattack", help="separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draws, began, identical = random.Random(arguments.seed), time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = time.perf_counter()
        whole = evaluate_run(arguments.run, n=arguments.n, attacks=arguments.attacks.split(","))
        seconds = time.perf_counter() - before
        write(folder / "whole.json", whole)
        expected = json.loads((folder / "whole.json").read_text())
        print(f"left alone: {seconds:.1f} s, {expected['accuracy']}", flush=True)
        print("| trial | killed | result |\n|---|---|---|")
        for number in range(1, arguments.kills + 1):
            places: list[str] = []
            while not places:  # a moment after the end is drawn again
                here = folder / f"{number}-{draws.random()}"
                moments = [draws.uniform(0, seconds) for _ in range(1 + number % 2)]
                places = run_trial(here, arguments, moments)
                seconds = seconds if places else moments[0]  # it ends before that
            result = json.loads((here / "result.json").read_text())
            differ = [key for key in expected if result[key] != expected[key]]
            identical += not differ
            verdict = "identical" if not differ else f"differs: {', '.join(differ)}"
            print(f"| {number} | {'; then '.join(places)} | {verdict} |", flush=True)
    print(f"{identical} of {arguments.kills} identical")
    print(f"{time.perf_counter() - began:.0f} s, torch {torch.__version__}, {describe_environment()['processor']}")
    return int(identical != arguments.kills)


if __name__ == "__main__":
    sys.exit(main())
