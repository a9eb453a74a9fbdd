"""The same attacks of five libraries under one judge: robust accuracy, verdicts that differ, projections, seconds.

    python benchmarks/evaluation/libraries.py RUN [RUN ...] --data ROOT --n 200 --threads 1

Each model is attacked under its own threat model (Linf) on the same first n test images. An attack's verdict on an
image is the judge's: the example is projected where it left the ball or [0, 1], and classified by the model itself.
"Differ" counts the images on which a library's verdict is not that of this package's attack of the same kind; for
HopSkipJump, which this package does not have, that of foolbox. Libraries that are not installed are left out.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import torch

import uiat
from uiat.data import as_float
from uiat.evaluation import EvaluationResult, evaluate
from uiat.experiments.images import evaluated_images
from uiat.runs.settings import read_run

STEPS, QUERIES = 20, 1000


def attacks(epsilon: float) -> dict[str, list[str | tuple[str, object]]]:
    """Return the attacks of each kind, the one to compare with first; the budgets are the same within a kind."""
    step = 2.5 * epsilon / STEPS
    threat = uiat.Linf(epsilon)
    return {
        f"PGD-{STEPS}": [
            f"pgd-{STEPS}",
            f"torchattacks:PGD(steps={STEPS},alpha={step})",
            f"foolbox:LinfPGD(steps={STEPS},abs_stepsize={step})",
            f"art:ProjectedGradientDescent(max_iter={STEPS},eps_step={step},num_random_init=1,batch_size=256)",
            f"advlib:pgd_linf(steps={STEPS},relative_step_size={step / epsilon},random_init=True)",
        ],
        "APGD-CE, 50": [
            ("apgd-ce, 50 iterations", uiat.attacks.APGD(threat=threat, iterations=50)),
            "torchattacks:APGD(steps=50)",
            "art:AutoProjectedGradientDescent(max_iter=50,nb_random_init=1,batch_size=256)",
            "advlib:apgd(n_iter=50,n_restarts=1,loss_function='ce')",
        ],
        f"Square, {QUERIES}": [
            (f"square, {QUERIES} queries", uiat.attacks.Square(threat=threat, iterations=QUERIES)),
            f"torchattacks:Square(n_queries={QUERIES})",
            f"art:SquareAttack(max_iter={QUERIES},batch_size=256)",
        ],
        "HopSkipJump": [
            "foolbox:HopSkipJumpAttack(steps=5,max_gradient_eval_steps=200,constraint='linf')",
            "art:HopSkipJump(max_iter=5,max_eval=200,init_eval=50)",
        ],
    }


def is_installed(attack: object) -> bool:
    """True where the library that an attack's name names is installed, and for this package's own."""
    module = {"advlib": "adv_lib"}.get(str(attack).partition(":")[0], str(attack).partition(":")[0])
    return not isinstance(attack, str) or ":" not in attack or importlib.util.find_spec(module) is not None


def verdicts(result: EvaluationResult) -> torch.Tensor:
    """Return a mask of the images that are broken."""
    return torch.tensor([bool(stage) for stage in result.broken_by])


def compare(run: Path, *, root: str | None, n: int, kinds: tuple[str, ...]) -> None:
    """Print the table of a run's model."""
    settings, model = read_run(run), uiat.load(run)
    images = evaluated_images(settings, n=n, root=root)
    x, y, threat = as_float(images.images), images.labels, settings.threat
    assert threat is not None
    print(f"\n{run.name}: {len(x)} test images of {images.name}, {threat}")
    print("| kind | attack | robust, % | differ | projected | seconds |\n|---|---|---|---|---|---|")
    for kind, names in attacks(float(threat.epsilon)).items():
        if not kind.startswith(kinds):
            continue
        first = None
        for attack in filter(is_installed, names):
            start = time.perf_counter()
            try:
                result = evaluate(model, x, y, threat=threat, attacks=[attack], selfchecks=False)  # type: ignore[list-item]
            except uiat.UserError as error:
                print(f"| {kind} | {attack} | {error} | | | |", flush=True)
                continue
            seconds = time.perf_counter() - start
            broken = verdicts(result)
            first = broken if first is None else first
            name = attack if isinstance(attack, str) else attack[0]
            row = (kind, name, f"{100 * result.accuracy['worst']:.1f}", int((broken != first).sum()))
            projected = sum(result.projected.values()) if result.projected else "-"
            print("|", " | ".join(map(str, (*row, projected, f"{seconds:.1f}"))), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", help="folder of the data sets")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", default=[""], help="beginnings of the kinds to run, such as Square")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for run in given.runs:
        compare(run, root=given.data, n=given.n, kinds=tuple(given.kinds))


if __name__ == "__main__":
    main()
