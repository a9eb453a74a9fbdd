"""Compare certified with attacked accuracy of small nets, and look for contradictions on random tiny nets.

    python benchmarks/evaluation/certified.py --images 100 --nets 1000
    python benchmarks/evaluation/certified.py --data mnist --methods pgd-at,uiat --steps 400 --nets 0
    python benchmarks/evaluation/certified.py --data cifar10 --methods pgd-at,uiat --steps 1500 --nets 0

Of digits it trains a small-cnn of width 4, of MNIST and CIFAR-10 a net of two strided convolutions and a linear layer
(certifying takes time that grows with the square of the number of units), adversarially by PGD-AT or UIAT. Prints a
row for each radius: clean, proved by IBP, proved by CROWN, left by APGD-CE and APGD-T, seconds of each. The random nets
have 4 pixels, three layers and random weights; each image that is proved robust is attacked by PGD.
"""

import argparse
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

import uiat
from uiat import Linf

# Radius of the training, and those at which the net is certified and attacked.
RADII: Mapping[str, tuple[float, tuple[float, ...]]] = {
    "digits": (0.05, (0.002, 0.005, 0.01, 0.02, 0.05)),
    "mnist": (0.1, (0.01, 0.02, 0.05, 0.1)),
    "cifar10": (4 / 255, (0.5 / 255, 1 / 255, 2 / 255, 4 / 255)),
}

# Learning rate of Adam: at 0.003 the net of CIFAR-10 ends by predicting one class.
RATES = {"digits": 0.003, "mnist": 0.003, "cifar10": 0.001}


def build(data: str, shape: tuple[int, int, int]) -> nn.Module:
    """Return a net that can be certified in a second an image."""
    if data == "digits":
        return uiat.models.build("small-cnn", num_classes=10, image_shape=shape, width=4)
    c, h, w = shape
    body = nn.Sequential(
        nn.Conv2d(c, 8, 5, stride=3), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten()
    )
    return nn.Sequential(*body, nn.Linear(body(torch.zeros(1, c, h, w)).shape[1], 10))


def train(data: str, method: str, x: Tensor, y: Tensor, *, steps: int) -> nn.Module:
    """Train a net by PGD-AT or UIAT, with attacks of five steps."""
    torch.manual_seed(0)
    radius, shape = RADII[data][0], tuple(x.shape[1:])
    attack = uiat.PGD(threat=Linf(radius), step_size=radius / 2, steps=5)
    inverse = uiat.UniversalInverse(radius=radius / 2, step_size=radius / 8)
    objective = uiat.PGDAT(attack=attack) if method == "pgd-at" else uiat.UIAT(attack=attack, inverse=inverse)
    model = build(data, shape)
    optimizer = torch.optim.Adam(model.parameters(), RATES[data])
    step = uiat.make_step(model, objective, optimizer, num_classes=10, image_shape=shape, num_examples=len(x))
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        step(uiat.Batch(x[rows], y[rows], rows), epoch=0)
    return model.eval()


def compare(model: nn.Module, x: Tensor, y: Tensor, name: str, radii: tuple[float, ...]) -> None:
    """Print certified and attacked accuracy at several radii; a contradiction raises an error."""
    for radius in radii:
        proofs = uiat.certify_bounds(model, x, y, threat=Linf(radius))
        start = time.perf_counter()
        attacked = uiat.evaluate(model, x, y, threat=Linf(radius), attacks=["autoattack-quick"], selfchecks=False)
        seconds = time.perf_counter() - start
        proofs.check_attacks(attacked.broken_by)
        shares = (attacked.accuracy["clean"], *proofs.to_json()["by_method"].values(), attacked.accuracy["worst"])
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        print(f"| {name} | {radius:.4g} | {cells} | {sum(proofs.seconds.values()):.1f} | {seconds:.1f} |", flush=True)


def contradict(nets: int) -> None:
    """Attack what is proved robust of random tiny nets; a contradiction raises an error."""
    proved = broken = 0
    for seed in range(nets):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5 + 2.0 * (seed % 3))
        x, threat = torch.rand(12, 1, 2, 2), Linf((0.01, 0.03, 0.1, 0.3)[seed % 4])
        y = model(x).argmax(1)
        proofs = uiat.certify_bounds(model, x, y, threat=threat)
        attack = uiat.PGD(threat=threat, step_size=float(threat.epsilon) / 4, steps=10, loss="margin", restarts=2)
        wrong = (model(attack(model, x, y)).argmax(1) != y).tolist()
        proofs.check_attacks(["pgd" if each else "" for each in wrong])
        proved, broken = proved + sum(map(bool, proofs.certified_by)), broken + sum(wrong)
    print(
        f"{nets} random nets, {12 * nets} images: {proved} proved robust, {broken} broken, 0 contradictions", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--nets", type=int, default=2000)
    parser.add_argument("--data", default="digits", help=f"separated by commas: {', '.join(RADII)}; none for none")
    parser.add_argument("--methods", default="pgd-at", help="separated by commas: pgd-at, uiat")
    parser.add_argument("--steps", type=int, default=120, help="of the training, on 64 images each")
    parser.add_argument("--data.root", dest="root")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.nets:
        contradict(arguments.nets)
    names = [name for name in arguments.data.split(",") if name != "none"]
    if names:
        print(
            "| net | radius | clean | IBP | CROWN | attacked | seconds IBP + CROWN | seconds attack |\n|" + "---|" * 8
        )
    for data in names:
        train_set, test_set = (uiat.data.load(data, split, root=arguments.root) for split in ("train", "test"))
        part = torch.randperm(len(train_set.labels), generator=torch.Generator().manual_seed(0))[:20_000]
        x, y = uiat.data.as_float(train_set.images[part]), train_set.labels[part]
        few = slice(arguments.images)
        test = uiat.data.as_float(test_set.images[few]), test_set.labels[few]
        for method in arguments.methods.split(","):
            model = train(data, method, x, y, steps=arguments.steps)
            compare(model, *test, f"{data}, {method}", RADII[data][1])


if __name__ == "__main__":
    main()
