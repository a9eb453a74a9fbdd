"""Train the methods of `cifar10-medium` to convergence, attack them, and print their table; can be resumed.

    python benchmarks/training/convergence.py trades hat --seeds 0,1,2 --root DATA --runs RUNS   # hours
    python benchmarks/training/convergence.py                                                   # what there is so far
    python benchmarks/training/convergence.py trades --data cifar100 --root DATA --runs RUNS

Each run is `uiat train`, or `uiat train --resume`, then `uiat evaluate` of the best weights and, where they are those
of an earlier epoch, of the last ones. Results: benchmarks/results/DATA-medium/METHOD-seedN.json; what is there is not
computed again.
"""

import argparse
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy import spread

import uiat
from uiat.config.yaml_io import override
from uiat.runs.evaluations import find_evaluations
from uiat.system.atomic_files import write_json
from uiat.training.pass_count import step_cost

RESULTS = Path(__file__).resolve().parents[1] / "results"
# The last weights are attacked by what the table shows of them.
ATTACKS, TESTED = {"best": "clean,pgd-20,cw-20,autoattack-quick", "last": "clean,autoattack-quick"}, 2_000
DETACHED = {"objective.inverse_gradient": "false"}
BY_CLASS = {"objective.momentum": "class", "objective.momentum_start": "uniform"}
# What cifar10-resnet18-record adds, beside the size of AWP, which begins after a tenth of the run as there.
ADDED = {"optimisation.awp_from_epoch": "3", "optimisation.average": "ema", "optimisation.average_decay": "0.999"}
LAMBDA_1 = DETACHED | {"objective.weight": "1"}
# Forms of methods that are no recipe: name in the table -> (recipe, settings). Any other name is a recipe's.
FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "uiat-detached": ("uiat", DETACHED),
    "uiat-detached-momentum": ("uiat", DETACHED | BY_CLASS),
    "uiat-detached-regularised": ("uiat", DETACHED | {"objective.inverse.regulariser": "feature"}),
    "uiat-momentum": ("uiat", BY_CLASS),
    "trades-ce": ("trades", {"objective.attack.loss": "ce", "objective.attack.start": "uniform"}),
    "uiat-detached-weight-1": ("uiat", LAMBDA_1),
    "uiat-record": ("uiat", LAMBDA_1 | ADDED | {"optimisation.awp": "0.005"}),
    "pgd-at-awp-ema": ("pgd-at", ADDED | {"optimisation.awp": "0.01"}),  # the size for this loss, Wu et al. 2020
}
TWO = "worst of pgd-20 and cw-20"
SHOWN = (5, 10, 15, 20, 25, 28, 29, 30)  # epochs


def one_run(data: str, name: str, seed: int, root: str, runs: Path, teacher: Path | None) -> None:
    """Train and evaluate one method from one seed, and write its record."""
    path = RESULTS / f"{data}-medium" / f"{name}-seed{seed}.json"
    if path.exists():
        return
    recipe, settings = recipe_of(data, name)
    folder = runs / f"{data}-medium" / f"{name}-seed{seed}"
    if (folder / "config.yaml").exists():
        command("train", "--resume", folder)
    else:
        more = {"objective.teacher": teacher} if teacher else {}
        if (images := Path(root, f"{data}-folder")).is_dir():  # a folder of images for each class
            more |= {"data.name": f"imagefolder:{images}"}
        command("train", recipe, "--data.root", root, "--run-dir", folder, f"seed={seed}", *pairs(settings | more))
    record = (
        {
            "name": name,
            "recipe": " ".join([recipe, *pairs(settings)]),
            "seed": seed,
            "teacher": teacher and teacher.name,
        }
        | trained(folder)
        | {"best": attacked(folder, "best")}
    )
    if record["best_epoch"] != record["epochs"]:
        record["last"] = attacked(folder, "last")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def recipe_of(data: str, name: str) -> tuple[str, dict[str, str]]:
    """Return the recipe of a method or form, and the settings that the form changes."""
    method, settings = FORMS.get(name, (name, {}))
    return f"{data}-medium-{method}", settings


def pairs(settings: dict[str, Any]) -> list[str]:
    """Return settings as words of a command."""
    return [f"{key}={value}" for key, value in settings.items()]


def command(*words: object) -> None:
    """Run a command of uiat as a user would; an error ends the program."""
    subprocess.run(["uiat", *map(str, words)], check=True)


def trained(folder: Path) -> dict[str, Any]:
    """Return the epochs of a run; the best one counts from 1."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = (
        "epoch",
        "train_adv_ce",
        "train_ce",
        "train_kl",
        "train_correct",
        "train_inverse_kl",
        "alignment",
        "seconds",
        "clean",
        "robust",
    )
    validation = [{key: round(row[key], 4) for key in kept if key in row} for row in rows]
    best = max(range(len(rows)), key=lambda epoch: rows[epoch]["robust"]) + 1
    environment = json.loads((folder / "environment.json").read_text())
    return {"epochs": len(rows), "best_epoch": best, "validation": validation, "environment": environment}


def attacked(folder: Path, which: str) -> dict[str, Any]:
    """Evaluate weights of a run, unless that is done; an evaluation that was stopped is resumed."""
    found = evaluated(folder, which)
    if found is None:
        command("evaluate", folder, "--which", which, "--attacks", ATTACKS[which], "--n", TESTED, "--resume")
        found = evaluated(folder, which)
        assert found is not None
    accuracy, falls_to = found["accuracy"], found["broken_by"]
    if {"pgd-20", "cw-20"} <= set(accuracy):
        withstand = sum(attack not in ("clean", "pgd-20", "cw-20") for attack in falls_to)
        accuracy = accuracy | {TWO: withstand / len(falls_to)}
    kept = ("n", "threat", "intervals", "verdict", "stages", "per_class")
    return {"accuracy": accuracy} | {key: found[key] for key in kept if key in found}


def evaluated(folder: Path, which: str) -> Mapping[str, Any] | None:
    """Return the evaluation of weights of a run by these attacks on these images, if there is one."""
    for found in find_evaluations(folder):
        about = (found.stale, found.record["which"], found.record["n"])
        if about == ("", which, TESTED) and set(ATTACKS[which].split(",")) <= set(found.record["accuracy"]):
            return found.record
    return None


def records(data: str) -> dict[str, list[dict[str, Any]]]:
    """Return the records of whole runs by method, a list over seeds."""
    rows = [json.loads(path.read_text()) for path in sorted((RESULTS / f"{data}-medium").glob("*-seed?.json"))]
    return {name: [row for row in rows if row["name"] == name] for name in dict.fromkeys(row["name"] for row in rows)}


def over_seeds(values: Iterable[float | None]) -> str:
    """Return mean, standard deviation and, where some seeds lack a value, how many have it."""
    every = list(values)
    found = [value for value in every if value is not None]
    if not found:
        return "-"
    return spread(found) + (f" ({len(found)} of {len(every)})" if len(found) < len(every) else "")


def table(data: str) -> str:
    """Return accuracy, cost and epochs of each method; differences are seed by seed."""
    base = {row["seed"]: row["best"]["accuracy"] for row in records(data).get("pgd-at", [])}
    attacks = "clean | PGD-20 | CW-20 | worst of the two | less PGD-AT's | APGD-CE + APGD-T"
    lines = [f"| method | seeds | {attacks} | F a step | minutes | best epoch |", "|---" * 11 + "|"]
    for name, rows in records(data).items():
        accuracy = [row["best"]["accuracy"] for row in rows]
        columns = [over_seeds(a.get(key) for a in accuracy) for key in ("clean", "pgd-20", "cw-20", TWO)]
        both = [(row["best"]["accuracy"][TWO], base.get(row["seed"], {}).get(TWO)) for row in rows]
        less = over_seeds(mine - other for mine, other in both if other is not None and name != "pgd-at")
        quick = over_seeds(a.get("autoattack-quick") for a in accuracy)
        minutes = mean(sum(epoch["seconds"] for epoch in row["validation"]) for row in rows) / 60
        best = ", ".join(str(row["best_epoch"]) for row in rows)
        cells = [name, str(len(rows)), *columns, less, quick, f"{passes(data, name):.1f}", f"{minutes:.0f}", best]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def last_table(data: str) -> str:
    """Return accuracy of the best and of the last weights, where they differ."""
    lines = [
        "| method | seed | best epoch | best: clean | APGD-CE + APGD-T | last: clean | APGD-CE + APGD-T |",
        "|---" * 7 + "|",
    ]
    for name, rows in records(data).items():
        for row in (row for row in rows if "last" in row):
            cells = [
                over_seeds([row[w]["accuracy"][key]]) for w in ("best", "last") for key in ("clean", "autoattack-quick")
            ]
            lines.append(f"| {' | '.join([name, str(row['seed']), str(row['best_epoch']), *cells])} |")
    return "\n".join(lines)


def epochs_table(data: str) -> str:
    """Return accuracy on the held-out images by epoch, clean / PGD-10."""
    lines = [f"| run | {' | '.join(map(str, SHOWN))} |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, rows in records(data).items():
        for row in rows:
            shown = [row["validation"][epoch - 1] for epoch in SHOWN]
            cells = [f"{100 * at['clean']:.1f} / {100 * at['robust']:.1f}" for at in shown]
            lines.append(f"| {name}, seed {row['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def passes(data: str, name: str) -> float:
    """Return the passes of a training step, in forward passes of an image."""
    recipe, settings = recipe_of(data, name)
    run = override(uiat.recipes.get(recipe), settings.items())
    classes = {"cifar10": 10, "cifar100": 100}[data]
    model = uiat.models.build(run.model.name, num_classes=classes, image_shape=(3, 32, 32), width=run.model.width)
    return step_cost(run, model, image_shape=(3, 32, 32), classes=classes).units


def main() -> None:
    """Run what is named, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help=f"endings of recipes, or {', '.join(FORMS)}; none: print the tables")
    parser.add_argument("--data", choices=["cifar10", "cifar100"], default="cifar10")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--root", help="folder of the data sets; DATA-folder in it goes before torchvision's DATA")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders go")
    parser.add_argument("--teacher", type=Path, help="run folder of a teacher; each run trains its own by default")
    arguments = parser.parse_args()
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.methods:
            one_run(arguments.data, name, seed, arguments.root, arguments.runs, arguments.teacher)
    print("\n\n".join(make(arguments.data) for make in (table, last_table, epochs_table)))


if __name__ == "__main__":
    main()
