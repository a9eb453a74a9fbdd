"""Run the self-checks on defences known to be broken, which they should flag, and on soundly trained models.

    python benchmarks/evaluation/selfcheck.py                        # digits: trains the sound models first, minutes
    python benchmarks/evaluation/selfcheck.py --seeds 0,1,2 --n 128
    python benchmarks/evaluation/selfcheck.py RUN... --n 64 --data.root DIR --only-runs

The defences are those of tests/support/broken_defences.py around the standard model of each seed, at half its recipe's
radius, where that model is not yet broken altogether. Each RUN is a folder of a soundly trained model. Each model goes
through `uiat.evaluate` with the command's default attacks and with autoattack-quick, as users have it: a broken defence
is flagged where the verdict says so each time, or where it is refused (probabilities), a sound model where any does.
The result goes to benchmarks/results/selfcheck/, one file for each seed, and runs by their names.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import uiat
from uiat import Linf, override, recipes
from uiat.data import as_float, tensors
from uiat.errors import UserError
from uiat.evaluation.selfcheck import Finding, examine
from uiat.experiments.images import evaluated_images
from uiat.runs.settings import read_run
from uiat.system.atomic_files import write_json
from uiat.system.environment import describe_environment
from uiat.threat import Threat

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "selfcheck"
SOUND = ("standard", "pgd-at", "trades", "mart", "iat", "uiat", "uiat-one-off")
RADIUS = 0.2  # of the digits recipes
WAYS = {"default": ("clean", "pgd-20", "cw-20"), "quick": ("autoattack-quick",)}

sys.path.insert(0, str(HERE.parents[1] / "tests"))
from support import broken_defences  # noqa: E402

Model = tuple[str, bool, nn.Module, Tensor, Tensor, Threat]


def train_sound(seed: int, methods: list[str], epochs: int) -> dict[str, nn.Module]:
    """Train a digits model with each method."""
    models = {}
    for method in methods:
        changes = [("seed", str(seed)), ("optimisation.epochs", str(epochs))]
        with tempfile.TemporaryDirectory() as folder:
            run = override(recipes.get(f"digits-{method}"), changes)
            models[method] = uiat.train(run, run_dir=Path(folder) / "run").model
    return models


def make_models(seed: int, methods: list[str], epochs: int) -> Iterator[Model]:
    """Yield the sound models at the radius of their training, the standard one at half of it, and the defences."""
    x, y = tensors("digits", "test")
    models = train_sound(seed, ["standard", *(m for m in methods if m != "standard")], epochs)
    for method, model in models.items():
        yield f"digits-{method}", True, model, x, y, Linf(RADIUS)
    yield "digits-standard, half the radius", True, models["standard"], x, y, Linf(RADIUS / 2)
    torch.manual_seed(seed)

    def fresh() -> nn.Module:
        return uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=16)

    defences = {name: wrap(models["standard"]) for name, wrap in broken_defences.WRAPPERS.items()}
    defences |= {name: make(fresh, *tensors("digits", "train")) for name, make in broken_defences.TRAINED.items()}
    for name, model in defences.items():
        yield name, False, model, x, y, Linf(RADIUS / 2)


def load_run(folder: Path, root: str | None) -> Model:
    """Load a run's best weights and its test images."""
    model, run = uiat.load(folder), read_run(folder)
    images = evaluated_images(run, n=2_000, root=root)
    return folder.name, True, model, as_float(images.images), images.labels, run.threat or run.evaluation.threat


def examine_model(case: Model, *, n: int, seed: int) -> dict:
    """Return the findings on one model; images are too few on purpose, so that this note does not count."""
    name, is_sound, model, x, y, threat = case
    start = time.process_time()
    findings = [f for f in examine(model, x, y, threat=threat, n=n, seed=seed) if f.check != "images"]
    seconds = time.process_time() - start
    verdicts = {way: evaluate_verdict(model, x[:n], y[:n], threat, attacks, seed) for way, attacks in WAYS.items()}
    doubts = [any(f.severity != "note" for f in findings), *(not v.startswith("nothing") for v in verdicts.values())]
    flagged = any(doubts) if is_sound else all(doubts)
    kind, each = "sound" if is_sound else "broken", " | ".join("flagged" if doubt else "-" for doubt in doubts[1:])
    print(f"| {name} | {kind} | {list_checks(findings) or '-'} | {each} | {seconds:.1f} |", flush=True)
    row = {"name": name, "honest": is_sound, "flagged": flagged, "verdicts": verdicts, "seed": seed}
    row["threat"] = str(threat)
    return row | {"n": n, "findings": [vars(f) for f in findings], "cpu": seconds}


def evaluate_verdict(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, attacks: tuple[str, ...], seed: int
) -> str:
    """Return the verdict of an evaluation, or why there is none."""
    try:
        return uiat.evaluate(model, x, y, threat=threat, attacks=attacks, seed=seed).verdict
    except UserError as error:
        return f"refused: {error}"


def list_checks(findings: list[Finding]) -> str:
    return ", ".join(f.check if f.severity != "note" else f"({f.check})" for f in findings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folders of soundly trained models")
    parser.add_argument("--only-runs", action="store_true", help="leave the digits table out")
    parser.add_argument("--data.root", dest="root", help="folder of the runs' data sets")
    parser.add_argument("--seeds", default="0", help="comma-separated")
    parser.add_argument("--methods", default=",".join(SOUND), help="sound recipes of digits, comma-separated")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of the sound digits models")
    parser.add_argument("--n", type=int, default=128, help="images to look at")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | what it is | found (notes in brackets) | default attacks | autoattack-quick | CPU seconds |")
    print("|---|---|---|---|---|---|")
    rows: list[dict] = []
    for seed in [] if arguments.only_runs else [int(s) for s in arguments.seeds.split(",")]:
        models = make_models(seed, arguments.methods.split(","), arguments.epochs)
        rows += keep(f"digits-seed{seed}", [examine_model(case, n=arguments.n, seed=seed) for case in models])
    for folder in arguments.runs:
        row = examine_model(load_run(folder, arguments.root), n=arguments.n, seed=0)
        rows += keep(f"{folder.parent.name}-{folder.name}", [row])
    for kind, of in (("broken defences", False), ("sound models", True)):
        those = [row for row in rows if row["honest"] is of]
        print(f"\n{sum(row['flagged'] for row in those)} of {len(those)} {kind} flagged")


def keep(name: str, rows: list[dict]) -> list[dict]:
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{name}.json", {"environment": describe_environment(), "rows": rows})
    return rows


if __name__ == "__main__":
    main()
