"""What a resolution and a storage type of universal perturbations cost, and what they do to the result.

    python benchmarks/training/z_resolution.py --memory                              # K = 1000 at 224 pixels
    python benchmarks/training/z_resolution.py --data imagefolder:data/cifar100 --seeds 0,1,2
    python benchmarks/training/z_resolution.py --table                               # what there is so far

Memory: `uiat cost` of a small CNN on batches of noise shaped like ImageNet's, each variant in a process of its own, so
that its highest memory is its own. Accuracy: UIAT with PGD-2 on a part of CIFAR-100, judged on test images by PGD-20.
Results: benchmarks/results/z_resolution/; what is there is not computed again.
"""

import argparse
import functools
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import torch

import uiat
from uiat import recipes
from uiat.config.yaml_io import override
from uiat.system.atomic_files import write_json
from uiat.system.environment import describe_environment
from uiat.training.cost import estimate_cost

RESULTS = Path(__file__).resolve().parents[1] / "results" / "z_resolution"
GRIDS = ("1", "1/2", "1/4")
TYPES = ("float32", "bfloat16")
VARIANTS = {
    "1 float32": {},
    "1/2 float32": {"resolution": "1/2"},
    "1 bfloat16": {"storage": "bfloat16"},
    "1/4 float32": {"resolution": "1/4"},
}
TEST = 1_000  # test images


def settings(method: str, inverse: dict[str, str], **more: str) -> uiat.Run:
    pairs = [(name.replace("__", "."), value) for name, value in more.items()]
    pairs += [(f"objective.inverse.{name}", value) for name, value in inverse.items()]
    return override(recipes.get(f"cifar10-small-{method}"), pairs)


def measure_memory(resolution: str, storage: str, momentum: str) -> None:
    """Write the cost of one variant; for a process of its own."""
    inverse = {"resolution": resolution, "storage": storage, "gradient_momentum": momentum}
    run = settings(
        *("uiat", inverse),
        data__name="imagenet", data__batch_size="16", data__augment="none", model__width="4",
        objective__attack__steps="1", compute__precision="fp32", compute__compile="false",
    )  # fmt: skip
    report = estimate_cost(run, steps=1)
    kept = {each.name: each.bytes for each in report.kept}
    assert report.universal_seconds is not None
    record = {"resolution": resolution, "storage": storage, "momentum": momentum, "kept": kept}
    record |= {"peak": report.peak_bytes, "ms": 1000 * report.universal_seconds}
    record |= {"step_ms": 1000 * report.costs[0].seconds, "environment": describe_environment()}
    name = f"memory-{resolution.replace('/', '_')}-{storage}-{momentum}.json"
    write_json(RESULTS / name, record)


def all_memory() -> None:
    variants = [(grid, kind, "0") for grid in GRIDS for kind in TYPES] + [("1/2", "bfloat16", "0.5")]
    for variant in variants:
        if not (RESULTS / f"memory-{variant[0].replace('/', '_')}-{variant[1]}-{variant[2]}.json").exists():
            process = multiprocessing.get_context("fork").Process(target=measure_memory, args=variant)
            process.start()
            process.join()


def stem(variant: str, images: int, epochs: int, width: int) -> str:
    return f"accuracy-{images}-{epochs}-{width}-{variant.replace('/', '_').replace(' ', '-')}"


def measure_accuracy(variant: str, seed: int, *, data: str, images: int, epochs: int, width: int) -> None:
    path = RESULTS / f"{stem(variant, images, epochs, width)}-seed{seed}.json"
    if path.exists():
        return
    run = settings(
        *("uiat", VARIANTS[variant]),
        data__name=data, data__subset=str(images), data__validation="500", seed=str(seed),
        model__name="small-cnn", model__width=str(width), validation__every=str(epochs),
        optimisation__epochs=str(epochs), objective__attack__steps="2", objective__attack__step_size="5/255",
        compute__precision="fp32", compute__compile="false",
    )  # fmt: skip
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trained = uiat.train(run, run_dir=Path(folder) / "run")
    seconds = time.perf_counter() - started
    x, y = test_images(data)
    result = uiat.evaluate(trained.model, x, y, threat=run.threat, attacks=["clean", "pgd-20"])
    record = {"variant": variant, "seed": seed, "seconds": seconds, "accuracy": dict(result.accuracy)}
    z = trained.inverse
    assert z is not None
    with torch.no_grad():
        own = (trained.model(z(x, y)).argmax(1) == y).double().mean().item()
    record |= {"own": own, "z_bytes": z.z.numel() * z.z.element_size()}
    write_json(
        path, record | {"images": images, "epochs": epochs, "width": width, "environment": describe_environment()}
    )


@functools.cache
def test_images(data: str) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = uiat.data.tensors(data, "test")
    chosen = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:TEST]
    return x[chosen], y[chosen]


def spread(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def table(images: int, epochs: int, width: int) -> str:
    lines = ["| z | seeds | clean | PGD-20 | accuracy at x + z_y | KB of z | s a run |\n" + "|---" * 7 + "|"]
    for variant in VARIANTS:
        paths = sorted(RESULTS.glob(f"{stem(variant, images, epochs, width)}-seed?.json"))
        if not (runs := [json.loads(path.read_text()) for path in paths]):
            continue
        clean, robust = (spread([run["accuracy"][name] for run in runs]) for name in ("clean", "pgd-20"))
        own, size = spread([run["own"] for run in runs]), f"{runs[0]['z_bytes'] / 1000:.0f}"
        seconds = f"{statistics.median(run['seconds'] for run in runs):.0f}"
        lines.append(f"| {variant} | {len(runs)} | {clean} | {robust} | {own} | {size} | {seconds} |")
    lines.append(
        "\n| resolution | type | z, MB | its momentum, MB | most memory of the process, MB | ms a step for z |"
    )
    lines[-1] += "\n" + "|---" * 6 + "|"
    records = [json.loads(path.read_text()) for path in RESULTS.glob("memory-*.json")]
    for r in sorted(records, key=lambda r: (float(r["momentum"]) > 0, -sum(r["kept"].values()), r["storage"])):
        g = f"{r['kept']['g'] / 1e6:.1f}" if "g" in r["kept"] else "-"
        row = (
            r["resolution"],
            r["storage"],
            f"{r['kept']['z'] / 1e6:.1f}",
            g,
            f"{r['peak'] / 1e6:.0f}",
            f"{r['ms']:.0f}",
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--memory", action="store_true")
    options.add_argument("--data", metavar="NAME")
    options.add_argument("--seeds", default="0")
    options.add_argument("--images", type=int, default=5_000)
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--table", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    RESULTS.mkdir(parents=True, exist_ok=True)
    if given.memory:
        all_memory()
    for seed in given.seeds.split(",") if given.data else ():
        for variant in VARIANTS:
            measure_accuracy(
                variant, int(seed), data=given.data, images=given.images, epochs=given.epochs, width=given.width
            )
    print(table(given.images, given.epochs, given.width))


if __name__ == "__main__":
    main()
