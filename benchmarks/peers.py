"""Beside other libraries, in turn: an attack by PGD-20, a step of TRADES, the standard AutoAttack.

    pip install --no-deps torchattacks foolbox eagerpy adversarial-robustness-toolbox secml-torch    # for this alone
    python benchmarks/peers.py RUN --root DATA --threads 1 --figure peers.svg
    python benchmarks/peers.py RUN --jobs pgd --rounds 7

RUN's network is attacked on its own test images; a step of TRADES is one of `step_time.py`, on CIFAR-10 in DATA. Every
library is taken as its documentation takes it, with the same steps, radius and budget. Each has a process of its own,
since ours tells the allocator to keep memory; a round takes each of them once, and ratios are those of a round. Time is
the processor's where there is one thread, so that a busy machine does not count; the wall's otherwise. torchattacks'
AutoAttack takes 10 iterations of APGD and FAB where the standard takes 100. ART's is another ensemble (no targeted
attacks, DeepFool, five restarts of Square; ten times our time) and is left out, as is what is not installed. MAIR is
not on PyPI.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import uiat
from uiat.data import as_float
from uiat.evaluation import correct_under
from uiat.experiments.images import evaluated_images
from uiat.runs.settings import read_run
from uiat.system.environment import describe_environment

sys.path.insert(0, str(Path(__file__).resolve().parent / "training"))
import step_time

STEPS = 20
# One call of a library's; returns which images are classified correctly, or nothing.
Call = Callable[[], object]
Attacked = tuple[nn.Module, Tensor, Tensor, float]  # model, images, labels, epsilon


def is_correct(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(dim=1) == y


def our_pgd(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    """Attack as a run validates itself: an image that is wrong already is not attacked."""
    attack = uiat.PGD(threat=uiat.Linf(epsilon), step_size=epsilon / 4, steps=STEPS)
    return lambda: correct_under(model, x, y, attack, mask=correct_under(model, x, y, None))


def our_pgd_on_every_image(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    attack = uiat.PGD(threat=uiat.Linf(epsilon), step_size=epsilon / 4, steps=STEPS)
    return lambda: correct_under(model, x, y, attack)


def our_pgd_on_one_batch(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    attack = uiat.PGD(threat=uiat.Linf(epsilon), step_size=epsilon / 4, steps=STEPS)
    return lambda: is_correct(model, attack(model, x, y), y)


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    import torchattacks

    attack = torchattacks.PGD(model, eps=epsilon, alpha=epsilon / 4, steps=STEPS)
    return lambda: is_correct(model, attack(x, y), y)


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=epsilon / 4, steps=STEPS)
    return lambda: ~attack(wrapped, x, y, epsilons=epsilon)[2]


def art_pgd(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    from art.attacks.evasion import ProjectedGradientDescent

    options = {"eps": epsilon, "eps_step": epsilon / 4, "max_iter": STEPS, "num_random_init": 1, "verbose": False}
    attack = ProjectedGradientDescent(art_classifier(model, x), batch_size=len(x), **options)
    return lambda: is_correct(model, torch.from_numpy(attack.generate(x.numpy(), y.numpy())), y)


def art_classifier(model: nn.Module, x: Tensor) -> Any:
    from art.estimators.classification import PyTorchClassifier

    shape, classes = tuple(x.shape[1:]), model(x[:1]).shape[1]
    return PyTorchClassifier(model, nn.CrossEntropyLoss(), shape, classes, clip_values=(0, 1), device_type="cpu")


def secml_pgd(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    from secmlt.adv.evasion.pgd import PGDNative
    from secmlt.models.pytorch.base_pytorch_nn import BasePyTorchClassifier
    from torch.utils.data import DataLoader, TensorDataset

    attack = PGDNative("linf", epsilon=epsilon, num_steps=STEPS, step_size=epsilon / 4, random_start=True)
    loader, wrapped = DataLoader(TensorDataset(x, y), batch_size=len(x)), BasePyTorchClassifier(model)
    return lambda: is_correct(model, torch.cat([x_adv for x_adv, _ in attack(wrapped, loader)]), y)


def our_autoattack(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    def call() -> Tensor:
        result = uiat.evaluate(model, x, y, threat=uiat.Linf(epsilon), attacks=["autoattack"], selfchecks=False)
        return torch.tensor([by == "" for by in result.broken_by])

    return call


def pyautoattack(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    from pyautoattack import AutoAttack

    attack = AutoAttack(model, norm="Linf", eps=epsilon, version="standard", device="cpu")
    return lambda: is_correct(model, attack.run_standard_evaluation(x, y, batch_size=len(x))[0], y)


def torchattacks_autoattack(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Call:
    import torchattacks

    classes = model(x[:1]).shape[1]
    attack = torchattacks.AutoAttack(model, norm="Linf", eps=epsilon, version="standard", n_classes=classes)
    return lambda: is_correct(model, attack(x, y), y)


ATTACKS: dict[str, dict[str, Callable[..., Call]]] = {
    "pgd": {
        "uiat": our_pgd,
        "uiat, every image attacked": our_pgd_on_every_image,
        "uiat, the attack on one batch": our_pgd_on_one_batch,
        "torchattacks": torchattacks_pgd,
        "foolbox": foolbox_pgd,
        "art": art_pgd,
        "secmlt": secml_pgd,
    },
    "autoattack": {
        "uiat": our_autoattack,
        "pyautoattack": pyautoattack,
        "torchattacks": torchattacks_autoattack,
    },
}
TRADES = {"uiat": "ours, TRADES, bf16, compiled", "uiat, fp32, not compiled": "ours, TRADES"}
TRADES |= {"its authors' loop": "trades_loss", "art": "ART, TRADES"}
NETWORK = "small-cnn"  # of a step of TRADES
PACKAGES = {"art": "adversarial-robustness-toolbox", "secmlt": "secml-torch"}


def is_installed(peer: str) -> bool:
    return " " in peer or importlib.util.find_spec(peer) is not None


def begin(job: str, peer: str, run: Path, n: int, root: str | None, threads: int) -> None:
    """In a process of its own: make a library's call."""
    global call, clock
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    if job == "trades":
        step = step_time.WAYS[TRADES[peer]](NETWORK, root)
        call = lambda: step() and None  # noqa: E731
        return
    images, model = evaluated_images(read_run(run), n=n), uiat.load(run).eval()
    x, y = as_float(images.images), images.labels
    call = ATTACKS[job][peer](model, x, y, float(model.threat.epsilon))  # type: ignore[arg-type]


def go() -> tuple[float, float | None]:
    """In that process: return the seconds of a call, and the fraction of images that stand."""
    begun = clock()
    correct = call()
    return clock() - begun, correct.double().mean().item() if isinstance(correct, Tensor) else None


def compare(job: str, run: Path, *, n: int, root: str | None, threads: int, rounds: int) -> dict[str, float]:
    """Print a job's table; return how many times our time each library takes, medians of rounds."""
    peers = [peer for peer in (TRADES if job == "trades" else ATTACKS[job]) if is_installed(peer)]
    context, given = get_context("spawn"), (run, n, root, threads)
    workers = {peer: ProcessPoolExecutor(1, context, begin, (job, peer, *given)) for peer in peers}
    results: dict[str, list[tuple[float, float | None]]] = {peer: [] for peer in peers}
    warm = 0 if job == "autoattack" else 2  # rounds that compile and warm up; the ensemble's own are many
    for number in range(rounds + warm):
        for peer, worker in workers.items():
            result = worker.submit(go).result()
            if number >= warm:
                results[peer].append(result)
    for worker in workers.values():
        worker.shutdown()
    print(f"\n| {job} | robust, % | seconds | times ours |\n|---|---|---|---|")
    times = {}
    for peer, found in results.items():
        times[peer] = statistics.median(s / ours for (s, _), (ours, _) in zip(found, results["uiat"], strict=True))
        robust = "" if found[0][1] is None else f"{100 * found[0][1]:.1f}"
        seconds = statistics.median(s for s, _ in found)
        print(f"| {peer} | {robust} | {seconds:.3g} | {times[peer]:.2f} |", flush=True)
    return times


def draw(jobs: dict[str, dict[str, float]], path: Path) -> None:
    """Draw how many times our time each library takes, as bars, a panel a job."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "uiat"}  # text as text
    import matplotlib.pyplot as plt

    heights = [len(times) for times in jobs.values()]
    figure, axes = plt.subplots(
        len(jobs), 1, figsize=(6.4, 0.8 + 0.32 * sum(heights)), height_ratios=heights, sharex=True
    )
    for axis, (job, times) in zip([axes] if len(jobs) == 1 else axes, jobs.items(), strict=True):
        colours = ["C0" if peer.startswith("uiat") else "C7" for peer in times]
        axis.bar_label(axis.barh(list(times), list(times.values()), color=colours), fmt="%.2f", padding=3)
        axis.axvline(1, color="black", linewidth=0.6)
        axis.invert_yaxis()
        axis.set_title(job, loc="left", fontsize=10)
        axis.margins(x=0.12)
    figure.supxlabel("times the time of uiat", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--root", help="folder of the data sets, for TRADES")
    parser.add_argument("--jobs", default="pgd,trades,autoattack", help="comma-separated")
    parser.add_argument("--n", type=int, default=256, help="images of PGD; a sixteenth of them for AutoAttack")
    parser.add_argument("--rounds", type=int, default=5, help="of AutoAttack at most three")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--figure", type=Path, help="an SVG to draw")
    given = parser.parse_args()
    jobs = {}
    for job in given.jobs.split(","):
        ensemble = job == "autoattack"
        n, rounds = (given.n // 16, min(given.rounds, 3)) if ensemble else (given.n, given.rounds)
        jobs[job] = compare(job, given.run, n=n, root=given.root, threads=given.threads, rounds=rounds)
    libraries = dict.fromkeys(peer for times in jobs.values() for peer in times if " " not in peer)
    versions = ", ".join(f"{peer} {importlib.metadata.version(PACKAGES.get(peer, peer))}" for peer in libraries)
    facts = describe_environment()
    print(f"\n{facts['processor']}, {given.threads} of {os.cpu_count()} cores, torch {facts['torch']}, {versions}")
    if given.figure:
        draw(jobs, given.figure)


if __name__ == "__main__":
    main()
