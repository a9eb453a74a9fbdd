"""Our training step beside the usual ways of writing it, in interleaved rounds: medians, and ratios of each round.

    python benchmarks/training/step_time.py --root DATA --rounds 7 --threads 2
    python benchmarks/training/step_time.py --root DATA --only small-cnn --threads 1
    python benchmarks/training/step_time.py --root DATA --levers

A case is a network and a batch of CIFAR-10; a round takes one step of every way. Each way has a process of its own,
because ours tells the allocator to keep memory. "Baseline" is the loop of much research code: single precision, NCHW,
attacks in training mode whose backward passes fill the gradients of the weights, and a DataLoader whose workers read
and augment image by image. "trades_loss" is the form of TRADES that its authors published: the natural logits are
computed anew in every step of the attack. "ART" is its trainer for TRADES, with an attack of as many steps.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

import uiat
from uiat.data import Loader, open_data
from uiat.objectives import Trades
from uiat.system.environment import describe_environment

EPSILON, STEP, STEPS = 8 / 255, 2 / 255, 10
# network: images a step
CASES = {"small-cnn": 256, "preact-resnet8": 64, "preact-resnet18": 32}
Step = Callable[[], object]


class OneByOne(Dataset):
    """Images as a DataLoader's worker serves them: cropped, mirrored and converted one by one."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        from torchvision import transforms

        self.images, self.labels = images.permute(0, 2, 3, 1).numpy(), labels
        steps = [transforms.ToPILImage(), transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        self.change = transforms.Compose([*steps, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int):
        return self.change(self.images[i]), self.labels[i]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return uiat.models.build(name, num_classes=10, image_shape=(3, 32, 32))


def baseline(name: str, root: str | None) -> Step:
    """PGD-AT as it is often written."""
    model = network(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches = one_by_one(name, root)

    return lambda: research_step(model, optimizer, *next(batches), epsilon=EPSILON, step=STEP, steps=STEPS)


def research_step(model, optimizer, x, y, *, epsilon: float, step: float, steps: int) -> None:
    """PGD in training mode, whose backward passes fill the gradients of the weights, and an update."""
    model.train()
    x_adv = (x + torch.empty_like(x).uniform_(-epsilon, epsilon)).clamp(0, 1)
    for _ in range(steps):
        x_adv.requires_grad_()
        F.cross_entropy(model(x_adv), y).backward()
        x_adv = x_adv.detach() + step * x_adv.grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - epsilon), x + epsilon).clamp(0, 1)
    optimizer.zero_grad()
    F.cross_entropy(model(x_adv), y).backward()
    optimizer.step()


def trades_loss(name: str, root: str | None) -> Step:
    """TRADES in the form of its authors' function."""
    model = network(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    batches, kl = one_by_one(name, root), nn.KLDivLoss(reduction="sum")

    def step() -> None:
        x, y = next(batches)
        model.eval()
        x_adv = x + 0.001 * torch.randn_like(x)
        for _ in range(STEPS):
            x_adv.requires_grad_()
            loss = kl(F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1))
            (gradient,) = torch.autograd.grad(loss, [x_adv])
            x_adv = x_adv.detach() + STEP * gradient.sign()
            x_adv = torch.min(torch.max(x_adv, x - EPSILON), x + EPSILON).clamp(0, 1)
        model.train()
        optimizer.zero_grad()
        natural = model(x)
        robust = kl(F.log_softmax(model(x_adv), dim=1), F.softmax(model(x), dim=1)) / len(x)
        (F.cross_entropy(natural, y) + 6 * robust).backward()
        optimizer.step()

    return step


def art(name: str, root: str | None) -> Step:
    """ART's trainer for TRADES, a batch at a time."""
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainerTRADESPyTorch
    from art.estimators.classification import PyTorchClassifier

    model = network(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    shape = {"input_shape": (3, 32, 32), "nb_classes": 10, "device_type": "cpu"}
    classifier = PyTorchClassifier(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, clip_values=(0, 1), **shape)
    options = {"eps": EPSILON, "eps_step": STEP, "max_iter": STEPS, "batch_size": CASES[name], "verbose": False}
    trainer = AdversarialTrainerTRADESPyTorch(classifier, ProjectedGradientDescent(classifier, **options), beta=6.0)
    batches = one_by_one(name, root)

    def step() -> None:
        x, y = next(batches)
        trainer.fit(x.numpy(), np.asarray(y), batch_size=CASES[name], nb_epochs=1)

    return step


def one_by_one(name: str, root: str | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of a DataLoader with two workers."""
    data = open_data("cifar10", "train", root=root)
    images = OneByOne(data.images, data.labels)
    return iter(cycle(DataLoader(images, CASES[name], shuffle=True, num_workers=2, drop_last=True)))


def ours(
    objective: str,
    *,
    compiled: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    last: bool = True,
    fold: bool = True,
) -> Callable[[str, str | None], Step]:
    """Our step, channels-last or not, folded or not, compiled or not, in either precision."""

    def make(name: str, root: str | None) -> Step:
        model = network(name).to(memory_format=torch.channels_last if last else torch.contiguous_format)
        data = open_data("cifar10", "train", root=root)
        batches = cycle(Loader(data, batch_size=CASES[name], augment="crop-flip", channels_last=last).epoch(0))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
        attack = uiat.PGD(threat=uiat.Linf(EPSILON), step_size=STEP, steps=STEPS)
        natural = uiat.PGD(threat=uiat.Linf(EPSILON), step_size=STEP, steps=STEPS, loss="kl", start="gaussian")
        objectives = {
            "pgd-at": uiat.PGDAT(attack=attack),
            "trades": Trades(attack=natural),
            "uiat": uiat.UIAT(attack=attack),
        }
        shape = {"num_classes": 10, "image_shape": (3, 32, 32), "num_examples": len(data)}
        options = {"compile": compiled, "precision": precision, "fold": fold}
        step = uiat.make_step(model, objectives[objective], optimizer, **options, **shape)
        return lambda: step(next(batches))

    return make


WAYS = {
    "baseline": baseline,
    "ours, PGD-AT": ours("pgd-at"),
    "ours, PGD-AT, compiled": ours("pgd-at", compiled=True),
    "ours, PGD-AT, bf16": ours("pgd-at", precision="bf16"),
    "ours, PGD-AT, bf16, compiled": ours("pgd-at", compiled=True, precision="bf16"),
    "ours, UIAT, bf16, compiled": ours("uiat", compiled=True, precision="bf16"),
    "trades_loss": trades_loss,
    "ART, TRADES": art,
    "ours, TRADES": ours("trades"),
    "ours, TRADES, bf16, compiled": ours("trades", compiled=True, precision="bf16"),
}
# Each lever of speed alone, and together.
LEVERS = {
    "baseline": baseline,
    "no gradients of weights while crafting, eval mode": ours("pgd-at", last=False, fold=False),
    "and channels-last": ours("pgd-at", fold=False),
    "and bf16": ours("pgd-at", last=False, precision="bf16", fold=False),
    "and compiled": ours("pgd-at", last=False, compiled=True, fold=False),
    "and channels-last, compiled": ours("pgd-at", compiled=True, fold=False),
    "and channels-last, bf16": ours("pgd-at", precision="bf16", fold=False),
    "and channels-last, folded": ours("pgd-at"),
    "and channels-last, bf16, folded": ours("pgd-at", precision="bf16"),
    "all but folded": ours("pgd-at", compiled=True, precision="bf16", fold=False),
    "all of them": ours("pgd-at", compiled=True, precision="bf16"),
}


def begin(way: str, name: str, root: str | None, threads: int) -> None:
    """In a process of its own: make its step."""
    global mine
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    mine = (WAYS | LEVERS)[way](name, root)


def go() -> tuple[float, float]:
    """In that process: seconds of a step, by the wall and of the processor."""
    start, spent = time.perf_counter(), time.process_time()
    mine()
    return time.perf_counter() - start, time.process_time() - spent


def case(name: str, root: str | None, *, rounds: int, threads: int, ways: list[str]) -> None:
    context = get_context("spawn")
    workers = {
        way: ProcessPoolExecutor(1, mp_context=context, initializer=begin, initargs=(way, name, root, threads))
        for way in ways
    }
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(rounds + 2):
        for way, worker in workers.items():
            seconds = worker.submit(go).result()
            if number > 1:  # the first rounds compile and warm up
                times[way].append(seconds)
    for worker in workers.values():
        worker.shutdown()
    print(f"\n{name}, batches of {CASES[name]}\n\n| step | ms | faster than the baseline | by processor time |")
    print("|---|---|---|---|")
    for way, mine_ in times.items():
        cells = [f"{1000 * statistics.median(wall for wall, _ in mine_):.0f}"]
        for clock in (0, 1):
            ratios = [b[clock] / m[clock] for b, m in zip(times[ways[0]], mine_, strict=True)]
            cells.append(f"{statistics.median(ratios):.2f}")
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--only", help="networks, comma-separated; all by default")
    parser.add_argument("--levers", action="store_true", help="each lever alone and together, in place of the ways")
    parser.add_argument("--ways", help="ways of writing a step, separated by semicolons; all by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each process")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    ways = arguments.ways.split(";") if arguments.ways else list(LEVERS if arguments.levers else WAYS)
    for name in arguments.only.split(",") if arguments.only else CASES:
        case(name, arguments.root, rounds=arguments.rounds, threads=arguments.threads, ways=ways)
    facts = {k: describe_environment()[k] for k in ("torch", "processor", "cores")}
    print(f"\n{arguments.rounds} rounds, {arguments.threads} threads, PGD-{STEPS}, {facts}")


if __name__ == "__main__":
    main()
