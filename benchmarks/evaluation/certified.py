"""Compare certified with attacked accuracy of a small CNN on digits, and look for contradictions on random tiny nets.

    python benchmarks/evaluation/certified.py --images 100 --nets 2000

Prints a row for each radius: clean, proved by IBP, proved by CROWN, left by APGD-CE and APGD-T, seconds of each. The
tiny nets have 4 pixels, three layers and random weights; each image that is proved robust is attacked by PGD.
"""

import argparse
import time

import torch
from torch import nn

import uiat
from uiat import Linf


def train(epochs: int, radius: float) -> nn.Module:
    """Train a small CNN adversarially (PGD, 5 steps) on digits."""
    torch.manual_seed(0)
    x, y = uiat.data.tensors("digits", "train")
    model = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
    attack = uiat.PGD(threat=Linf(radius), step_size=radius / 2, steps=5)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            x_adv = attack(model.eval(), x[rows], y[rows])
            loss = nn.functional.cross_entropy(model.train()(x_adv), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def compare(model: nn.Module, images: int) -> None:
    """Print certified and attacked accuracy at several radii; a contradiction raises an error."""
    x, y = (each[:images] for each in uiat.data.tensors("digits", "test"))
    print("| radius | clean | IBP | CROWN | attacked | seconds IBP + CROWN | seconds attack |\n|" + "---|" * 7)
    for radius in (0.002, 0.005, 0.01, 0.02, 0.05):
        proofs = uiat.certify_bounds(model, x, y, threat=Linf(radius))
        start = time.perf_counter()
        attacked = uiat.evaluate(model, x, y, threat=Linf(radius), attacks=["autoattack-quick"], selfchecks=False)
        seconds = time.perf_counter() - start
        proofs.check_attacks(attacked.broken_by)
        shares = (attacked.accuracy["clean"], *proofs.to_json()["by_method"].values(), attacked.accuracy["worst"])
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        print(f"| {radius} | {cells} | {sum(proofs.seconds.values()):.1f} | {seconds:.1f} |", flush=True)


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
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    contradict(arguments.nets)
    compare(train(arguments.epochs, 0.05), arguments.images)


if __name__ == "__main__":
    main()
