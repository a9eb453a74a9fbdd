"""Catastrophic overfitting brought about on purpose: single-step training at twice the usual radius, on digits.

    python benchmarks/training/overfitting.py --seeds 0,1,2 --threads 1
    python benchmarks/training/overfitting.py --table                  # what there is so far

Accuracy on training batches (under the method's own attack) and under PGD-10 on held-out images, by epoch. Results:
benchmarks/results/overfitting/METHOD-seedN.json; what is there is not computed again.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch

import uiat
from uiat import recipes
from uiat.config.yaml_io import override
from uiat.system.atomic_files import write_json
from uiat.system.environment import describe_environment

RESULTS = Path(__file__).resolve().parents[1] / "results" / "overfitting"
EPSILON = 0.4
METHODS = (
    *("fgsm", "fgsm-uiat", "fgsm-uiat-one-off", "fgsm-rs", "fgsm-rs-uiat"),
    *("n-fgsm", "grad-align", "free", "pgd-at"),
)


def one_run(method: str, seed: int) -> None:
    path = RESULTS / f"{method}-seed{seed}.json"
    if path.exists():
        return
    step = {"pgd-at": EPSILON / 4, "fgsm-rs": 1.25 * EPSILON, "fgsm-rs-uiat": 1.25 * EPSILON}.get(method, EPSILON)
    settings = {
        "objective.attack.threat.epsilon": EPSILON,
        "objective.attack.step_size": step,
        "evaluation.threat.epsilon": EPSILON,
        "model.width": 32,
        "seed": seed,
    }
    if "uiat" in method:
        settings |= {"objective.inverse.radius": EPSILON / 2, "objective.inverse.step_size": EPSILON / 8}
    run = override(recipes.get(f"digits-{method}"), [(name, str(value)) for name, value in settings.items()])
    with tempfile.TemporaryDirectory() as folder:
        history = uiat.train(run, run_dir=Path(folder) / "run").history
    names = ("robust", "clean", "train_correct", "alarms")
    record = {"method": method, "seed": seed, "epsilon": EPSILON, "environment": describe_environment()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(path, record | {"history": [{name: row[name] for name in names} for row in history]})


def spread(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def table() -> str:
    columns = "method | seeds | trained on, last epoch | PGD-10, last epoch | PGD-10, best epoch | caught in epoch"
    lines = [f"| {columns} |\n" + "|---" * 6 + "|"]
    for method in METHODS:
        runs = [json.loads(path.read_text())["history"] for path in sorted(RESULTS.glob(f"{method}-seed?.json"))]
        if not runs:
            continue
        caught = [next((i + 1 for i, row in enumerate(run) if row["alarms"]), None) for run in runs]
        cells = [
            spread([run[-1]["train_correct"] for run in runs]),
            spread([run[-1]["robust"] for run in runs]),
            spread([max(row["robust"] for row in run) for run in runs]),
            ", ".join("-" if at is None else str(at) for at in caught),
        ]
        lines.append(f"| {method} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--table", action="store_true", help="print the table of what there is and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.table:
        for seed in (int(s) for s in arguments.seeds.split(",")):
            for method in METHODS:
                one_run(method, seed)
    print(table())


if __name__ == "__main__":
    main()
