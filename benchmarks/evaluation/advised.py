"""Follow the advice of the self-checks on defences known to be broken: how far does the accuracy fall?

    python benchmarks/evaluation/advised.py --n 24

The defences are those of tests/support/broken_defences.py around a standard digits model, at half the radius of its
recipe. Each is evaluated with the command's default attacks, and then as the `next` of its gravest finding says:
averaging attacks and several calls for random answers, attacks that the scale of the logits does not stop for saturated
ones, `uiat.BPDA` around the step without a gradient (with ReLU as the stand-in of k winners) and the standard ensemble
for hidden gradients, batches of one, logits, images in the scale that the model expects. The accuracy of a model that
answers at random is the mean over calls. The result goes to benchmarks/results/selfcheck/advised-seedN.json.
"""

import argparse
import copy
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import uiat
from uiat import BPDA, Linf, override, recipes
from uiat.data import tensors
from uiat.evaluation.selfcheck import examine
from uiat.system.atomic_files import write_json
from uiat.system.environment import describe_environment

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "selfcheck"
RADIUS = 0.1
DEFAULT = ("clean", "pgd-20", "cw-20")

sys.path.insert(0, str(HERE.parents[1] / "tests"))
from support import broken_defences  # noqa: E402


def train_standard(seed: int, epochs: int) -> nn.Module:
    """Train the model that is defended."""
    run = override(recipes.get("digits-standard"), [("seed", str(seed)), ("optimisation.epochs", str(epochs))])
    with tempfile.TemporaryDirectory() as folder:
        return uiat.train(run, run_dir=Path(folder) / "run").model


def make_defences(model: nn.Module, names: list[str]) -> dict[str, nn.Module]:
    """Return the defences by name, those that are trained too."""

    def fresh() -> nn.Module:
        return uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=16)

    made = {name: wrap(model) for name, wrap in broken_defences.WRAPPERS.items() if name in names or not names}
    trained = {name: make for name, make in broken_defences.TRAINED.items() if name in names or not names}
    return made | {name: make(fresh, *tensors("digits", "train")) for name, make in trained.items()}


def follow(advice: str, defence: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model and the options of the evaluation that an advice describes."""
    options: dict[str, Any] = {"attacks": ["autoattack"]}
    if match := re.search(r"--attacks ([\w,-]+)", advice):
        options["attacks"] = match[1].split(",")
    if match := re.search(r"--calls (\d+)", advice):
        options["calls"] = int(match[1])
    if match := re.search(r"--batch-size (\d+)", advice):
        options["batch_size"] = int(match[1])
    if "uiat.BPDA" in advice:
        return with_stand_ins(defence), options
    if "return logits" in advice:
        return broken_defences.Wrapped(defence.inner), options
    if "normalise" in advice:
        return nn.Sequential(
            broken_defences.Wrapped(nn.Identity(), before=lambda x: (x - 0.31) / 0.38), defence
        ), options
    return defence, options


def with_stand_ins(defence: nn.Module) -> nn.Module:
    """Put the step that hides the gradient into BPDA."""
    if isinstance(defence, broken_defences.Wrapped):
        return nn.Sequential(BPDA(defence.before), defence.inner)
    changed = copy.deepcopy(defence)
    for parent in list(changed.modules()):
        for name, child in parent.named_children():
            if isinstance(child, broken_defences.KWinners):
                setattr(parent, name, BPDA(child, nn.ReLU()))
    return changed


def advice_of(defence: nn.Module, x: Tensor, y: Tensor, seed: int) -> tuple[str, str]:
    """Return the gravest finding that says what to do next, and what that is."""
    findings = [f for f in examine(defence, x, y, threat=Linf(RADIUS), n=len(x), seed=seed) if f.severity != "note"]
    for finding in findings:
        if finding.check == "normalisation":
            return finding.check, "normalise in its first layer, and run --attacks autoattack"
        if finding.next_step:
            return finding.check, finding.next_step
    return "nothing", ""


def measure(name: str, defence: nn.Module, x: Tensor, y: Tensor, seed: int) -> dict[str, Any]:
    """Return the accuracy under the default attacks, the advice, and the accuracy when it is followed."""
    options = {"threat": Linf(RADIUS), "seed": seed}
    check, advice = advice_of(defence, x, y, seed)
    try:
        before: float | None = uiat.evaluate(defence, x, y, attacks=DEFAULT, selfchecks=False, **options).accuracy[
            "worst"
        ]
    except uiat.UserError:  # probabilities
        before = None
    model, changes = follow(advice, defence)
    result = uiat.evaluate(model, x, y, **options, **changes)
    after = result.calls["accuracy"]["worst"] if result.calls else result.accuracy["worst"]
    row = {"name": name, "found": check, "advice": advice, "clean": result.accuracy["clean"], "before": before}
    row |= {"after": after, "verdict": result.verdict, "n": len(x), "seed": seed}
    shown = "refused" if before is None else f"{100 * before:.1f}"
    print(f"| {name} | {check} | {100 * row['clean']:.1f} | {shown} | {100 * after:.1f} |", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=64, help="images")
    parser.add_argument("--epochs", type=int, default=12, help="of the standard model")
    parser.add_argument("--only", default="", help="names of defences, separated by semicolons")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x, y = tensors("digits", "test")
    x, y = x[: arguments.n], y[: arguments.n]
    model = train_standard(arguments.seed, arguments.epochs)
    plain = uiat.evaluate(model, x, y, threat=Linf(RADIUS), attacks=["autoattack"], seed=arguments.seed)
    print("| defence | found | clean | default attacks | as advised |\n|---|---|---|---|---|")
    print(
        f"| none (autoattack) | - | {plain.accuracy['clean']:.1%} | - | {100 * plain.accuracy['worst']:.1f} |",
        flush=True,
    )
    torch.manual_seed(arguments.seed)
    only = [name for name in arguments.only.split(";") if name]
    defences = make_defences(model, only).items()
    RESULTS.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"environment": describe_environment(), "undefended": plain.accuracy, "rows": []}
    for name, defence in defences:
        facts["rows"].append(measure(name, defence, x, y, arguments.seed))
        write_json(RESULTS / f"advised-seed{arguments.seed}.json", facts)


if __name__ == "__main__":
    main()
