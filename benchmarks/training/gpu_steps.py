"""Cost of a training step on a GPU, setting by setting and method by method, in one table; for gpu.sh.

    python benchmarks/training/gpu_steps.py --steps 20

Needs no data and no network: images are noise. The percentage is that of the rate in a matrix product, in the row's own
precision; memory is the most that tensors held.
"""

import argparse

import uiat
from uiat import recipes
from uiat.training.cost import estimate_cost

BF16 = [("compute.precision", "bf16")]
COMPILED, EAGER = ([*BF16, ("compute.compile", word)] for word in ("true", "false"))
LEVERS = {
    "plain": [("compute.plain", "true")],
    "bf16, channels-last": [*EAGER, ("compute.cuda_graphs", "false")],
    "the same, recorded": EAGER,
    "recorded and compiled, no copy": [*COMPILED, ("compute.fold", "false")],
    "recorded and compiled": COMPILED,
}
OTHERS = ("cifar10-resnet18-trades", "cifar10-resnet18-uiat", "cifar10-resnet18-uiat-one-off", "cifar10-speedrun")


def rows(recipe: str, name: str, settings: list[tuple[str, str]], *, device: str, steps: int) -> list[str]:
    """Return lines of the table, one for the epochs of each cost."""
    report = estimate_cost(uiat.override(recipes.get(recipe), [("compute.device", device), *settings]), steps=steps)
    lines = []
    for cost in report.costs:
        fraction = cost.flops / cost.seconds / report.rates[report.precision]["matrix"]
        times = f"{1e3 * cost.seconds:.1f} | {report.steps * cost.seconds:.1f}"
        lines.append(
            f"| {recipe} | {name} | {cost.passes.units:g} | {times} | {fraction:.0%} | {report.peak_bytes >> 20} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="to measure in each row")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    ways = [("cifar10-resnet18-pgd-at", *lever) for lever in LEVERS.items()]
    print("| recipe | levers | F | ms a step | s an epoch | of the matrix rate | MiB |\n" + "|---" * 7 + "|")
    for recipe, name, settings in [*ways, *((other, "recorded and compiled", COMPILED) for other in OTHERS)]:
        print("\n".join(rows(recipe, name, settings, device=arguments.device, steps=arguments.steps)), flush=True)


if __name__ == "__main__":
    main()
