"""Train and evaluate every method of a study over several seeds, and print the table; it can be stopped and resumed.

    python benchmarks/training/accuracy.py digits --seeds 0,1,2
    python benchmarks/training/accuracy.py cifar10-small --root DATA --threads 1  # two of these share the work
    python benchmarks/training/accuracy.py cifar10-small --table  # what there is so far

A run that was killed is resumed; one that is finished is kept. Results: benchmarks/results/STUDY/METHOD-seedN.json.
"""

import argparse
import fcntl
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import uiat
from uiat.analyse import changes
from uiat.data import as_float
from uiat.experiments import sweep
from uiat.training.setup import load_datasets

RESULTS = Path(__file__).resolve().parents[1] / "results"
# Per study: name in the table -> (recipe, overrides).
Study = dict[str, tuple[str, list[str]]]


def _methods(family: str, methods: str, short: list[str] | None = None) -> Study:
    return {m: (f"{family}-{m}", short or []) for m in methods.split()}


def _ablation(base: str, short: list[str]) -> Study:
    """UIAT, with the gradient through the inverse branch, and it with one thing changed. Judged on held-out images."""
    recipe, settings = f"{base}-uiat", [*short, "objective.inverse_gradient=true"]
    rows = changes(uiat.override(uiat.recipes.get(recipe), _pairs(settings)))
    return {name: (recipe, [*settings, *(f"{path}={value}" for path, value in more)]) for name, more in rows.items()}


def _pairs(settings: list[str]) -> list[tuple[str, str]]:
    return [(path, value) for path, _, value in (setting.partition("=") for setting in settings)]


STUDIES: dict[str, Study] = {
    "digits": _methods(
        "digits",
        "standard pgd-at trades mart iat uiat uiat-one-off uiat-paper hat score dkl lbgat fat sat mlcat squeeze dhat "
        "ard rslad adr gairat",
    )
    | {"uiat-generator": ("digits-uiat", ["objective.inverse.kind=generator"])}
    # The KL averaged over the ten classes, as in the authors' programs.
    | {f"{name}-averaged": (f"digits-{name}", ["objective.weight=0.1"]) for name in ("ard", "rslad")},
    "mnist": _methods("mnist", "uiat pgd-at trades", ["compute.precision=fp32", "compute.compile=false"]),
    "cifar10-small": _methods(
        "cifar10-small", "pgd-at uiat trades uiat-one-off iat", ["compute.precision=fp32", "compute.compile=true"]
    ),
    "cifar10-small-bf16": _methods(
        "cifar10-small", "pgd-at uiat trades", ["compute.precision=bf16", "compute.compile=false"]
    ),
    "digits-ablation": _ablation("digits", []),
    "cifar10-ablation": _ablation(
        "cifar10-small", ["data.validation=2000", "compute.precision=bf16", "compute.compile=false"]
    ),
}


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """True if this process holds the run; the operating system lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def one_run(study: str, name: str, seed: int, *, root: str | None, runs: Path) -> None:
    recipe, overrides = STUDIES[study][name]
    slug = f"{name.replace(' ', '-').replace('/', '_')}-seed{seed}"
    result = RESULTS / study / f"{slug}.json"
    with claimed(runs / study / f"{slug}.lock") as mine:
        if not mine or result.exists():
            return
        print(f"{time.strftime('%H:%M:%S')} {study} {slug}", flush=True)
        rows = {name: _pairs(overrides)}
        (row,) = sweep(recipe, rows=rows, seeds=[seed], folder=runs / study, root=root, evaluated=False)
        if row.status == "failed":
            raise SystemExit(f"{row.folder}: {row.reason}")
        run, trained = row.run, uiat.resume(row.folder)  # nothing is left to train
        split, (x, y) = images(study, run)
        evaluated = uiat.evaluate(trained.model, x, y, threat=run.threat, attacks=run.evaluation.attacks)
        record = {
            "name": name,
            "recipe": recipe,
            "overrides": overrides,
            "seed": seed,
            "accuracy": evaluated.accuracy,
            "n": evaluated.n,
            "split": split,
            "threat": evaluated.threat,
            "epochs": len(trained.history),
            "best": trained.best,
            "train_seconds": sum(row["seconds"] for row in trained.history),
            "evaluation_seconds": evaluated.seconds,
            "environment": evaluated.environment,
        }
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(record, indent=2) + "\n")
        print(f"{time.strftime('%H:%M:%S')} {slug} {evaluated.accuracy}", flush=True)


def images(study: str, run: uiat.Run) -> tuple[str, tuple[torch.Tensor, torch.Tensor]]:
    """What a study is judged on: the test set, or, where settings are chosen by it, what training held out."""
    if not study.endswith("ablation"):
        return "test", uiat.data.tensors(run.data.name, "test", run.data.root)
    _, held_out = load_datasets(run.data, run.seed)
    return "held-out", (as_float(held_out.images), held_out.labels)


def spread(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.2f}"


def difference(mine: dict[int, dict], base: dict[int, dict], column: str) -> str:
    """Mean and standard deviation of the differences of the seeds that both have."""
    found = [mine[seed]["accuracy"][column] - base[seed]["accuracy"][column] for seed in mine.keys() & base.keys()]
    text = spread(found) if found else "-"
    return text if text.startswith("-") else f"+{text}"


def table(study: str) -> str:
    rows = [json.loads(path.read_text()) for path in sorted((RESULTS / study).glob("*.json"))]
    if not rows:
        return f"no results of {study} yet"
    columns, base = list(rows[0]["accuracy"]), next(iter(STUDIES[study]))
    # Seeds differ in the images that are held out, by more than methods do: those of one seed are set side by side.
    pairs = [f"{c} less {base}'s" for c in ("clean", "worst")] if study.endswith("ablation") else []
    header = [*columns, *pairs, "epochs", "training, s", "of an epoch"]
    lines = [f"| method | seeds | {' | '.join(header)} |", "|---" * (len(header) + 2) + "|"]
    by_name = {name: {row["seed"]: row for row in rows if row["name"] == name} for name in STUDIES[study]}
    for name, mine in by_name.items():
        if not mine:
            continue
        cells = [spread([row["accuracy"][c] for row in mine.values()]) for c in columns]
        cells += [difference(mine, by_name[base], c) for c in ("clean", "worst") if pairs]
        seconds = statistics.median(row["train_seconds"] for row in mine.values())
        epochs = next(iter(mine.values()))["epochs"]
        cells += [str(epochs), f"{seconds:.0f}", f"{seconds / epochs:.1f}"]
        lines.append(f"| {name} | {len(mine)} | {' | '.join(cells)} |")
    first = rows[0]
    versions = {k: first["environment"][k] for k in ("torch", "processor", "cores", "threads")}
    return "\n".join([*lines, "", f"n = {first['n']} {first['split']} images, {first['threat']}, {versions}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--only", help="comma-separated names of the study; all by default")
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders go")
    parser.add_argument("--threads", type=int, help="threads of this process")
    parser.add_argument("--table", action="store_true", help="print the table of what there is and stop")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if not arguments.table:
        for seed in (int(s) for s in arguments.seeds.split(",")):
            for name in arguments.only.split(",") if arguments.only else STUDIES[arguments.study]:
                one_run(arguments.study, name, seed, root=arguments.root, runs=arguments.runs)
    print(table(arguments.study))


if __name__ == "__main__":
    main()
