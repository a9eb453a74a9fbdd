"""Minutes to the robust accuracy of PGD-10 training, with fewer passes: warm starts, fewer early steps, and without.

    python benchmarks/training/warm_start.py --root DATA --seeds 0,1,2 --threads 1
    python benchmarks/training/warm_start.py --table                  # what there is so far

Real CIFAR-10 by the `cifar10-small` recipes of PGD-AT and UIAT, of 10,000 images and six epochs, or
as many as take equal time in the forms whose name ends in "longer". Judged by APGD-CE and
APGD-T (`autoattack-quick`) on the same test images; minutes are those of the processor, since other jobs may run beside
it. Results: benchmarks/results/warm-start/METHOD-FORM-seedN.json; what is there is not computed again.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

import uiat
from uiat.config.yaml_io import override
from uiat.data import as_float, open_data, stratified_subset
from uiat.system.atomic_files import write_json
from uiat.system.environment import describe_environment
from uiat.training.pass_count import step_cost
from uiat.training.setup import load_datasets, model_spec

RESULTS = Path(__file__).resolve().parents[1] / "results" / "warm-start"
EPOCHS, IMAGES, TESTED = 6, 10_000, 1_000
# Each form covers more than the diameter of the ball with all of its steps.
FORMS = {
    "10-steps": {"objective.attack.steps": "10", "objective.attack.step_size": "2/255"},
    "2-steps-memory": {
        "objective.attack.steps": "2",
        "objective.attack.step_size": "4/255",
        "objective.attack.start": "memory",
    },
    "2-steps": {"objective.attack.steps": "2", "objective.attack.step_size": "6/255"},
    "10-steps-grown": {
        "objective.attack.steps": "10",
        "objective.attack.step_size": "2/255",
        "optimisation.steps_warmup_epochs": str(EPOCHS - 1),
    },
}


def longer(form: str, epochs: int, more: dict[str, str] | None = None) -> dict[str, str]:
    """Return a form with as many epochs as take the time of six with ten steps, by its passes."""
    lengths = {"optimisation.epochs": str(epochs), "validation.every": str(epochs)}
    return FORMS[form] | lengths | (more or {})


# Each lever alone and two together, at equal time.
FORMS |= {
    "2-steps-memory-longer": longer("2-steps-memory", 20),
    "2-steps-longer": longer("2-steps", 20),
    "10-steps-grown-longer": longer("10-steps-grown", 9, {"optimisation.steps_warmup_epochs": "8"}),
    "3-steps-memory-grown-longer": longer(
        "2-steps-memory", 20, {"objective.attack.steps": "3", "optimisation.steps_warmup_epochs": "19"}
    ),
}


def one_run(method: str, form: str, seed: int, root: str) -> None:
    """Train and evaluate one form of a method, and write its record."""
    path = RESULTS / f"{method}-{form}-seed{seed}.json"
    if path.exists():
        return
    settings = {"data.root": root, "data.subset": IMAGES, "optimisation.epochs": EPOCHS, "seed": seed}
    settings |= {"compute.precision": "bf16", "compute.compile": "true", "validation.every": EPOCHS} | FORMS[form]
    run = override(
        uiat.recipes.get(f"cifar10-small-{method}"), [(name, str(value)) for name, value in settings.items()]
    )
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        trained = uiat.train(run, run_dir=Path(folder) / "run")
        minutes = (time.process_time() - begun) / 60
    training_set, _ = load_datasets(run.data, run.seed)
    model = uiat.models.build(**model_spec(run, training_set))
    passes = step_cost(run, model, image_shape=(3, 32, 32), classes=10).units
    test = stratified_subset(open_data("cifar10", "test", root=root), TESTED, seed=0)
    result = uiat.evaluate(
        trained.model.float(),
        as_float(test.images),
        test.labels,
        threat=uiat.Linf("8/255"),
        attacks=["autoattack-quick"],
        selfchecks=False,
    )
    accuracy = {"clean": result.accuracy["clean"], "robust": min(result.accuracy.values())}
    record = {"method": method, "form": form, "seed": seed, "passes": passes, "minutes": minutes, "n": result.n}
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(path, record | {"accuracy": accuracy, "environment": describe_environment()})
    print(path.stem, accuracy, f"{minutes:.1f} minutes", flush=True)


def spread(values: list[float]) -> str:
    """Return mean and standard deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.2f}"


def table() -> str:
    """Return the table of what there is so far; differences are seed by seed."""
    rows = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*-seed*.json"))]
    whole = {(row["method"], row["seed"]): row for row in rows if row["form"] == "10-steps"}
    lines = [
        "| method | attack of training | seeds | clean | robust | less 10 steps | F a step | minutes | times less |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, form in dict.fromkeys((row["method"], row["form"]) for row in rows):
        mine = [row for row in rows if (row["method"], row["form"]) == (method, form)]
        clean, robust = (spread([100 * row["accuracy"][key] for row in mine]) for key in ("clean", "robust"))
        paired = [(row, whole[method, row["seed"]]) for row in mine if (method, row["seed"]) in whole]
        less = spread([100 * (row["accuracy"]["robust"] - base["accuracy"]["robust"]) for row, base in paired])
        faster = statistics.mean(base["minutes"] / row["minutes"] for row, base in paired)
        minutes, passes = spread([row["minutes"] for row in mine]), mine[0]["passes"]
        cells = (method, form, len(mine), clean, robust, less, f"{passes:.1f}", minutes, f"{faster:.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--forms", default="10-steps,2-steps-memory", help=f"of {', '.join(FORMS)}")
    parser.add_argument("--methods", default="pgd-at,uiat")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--table", action="store_true", help="print what there is so far")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.table:
        for seed in map(int, arguments.seeds.split(",")):
            for method in arguments.methods.split(","):
                for form in arguments.forms.split(","):
                    one_run(method, form, seed, arguments.root)
    print(table())


if __name__ == "__main__":
    main()
