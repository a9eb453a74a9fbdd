"""Compare universal perturbations with those of the Adversarial Robustness Toolbox, on one run and the same images.

    python benchmarks/evaluation/universal.py RUN --fit 300 --passes 10

Both are fitted on the first training images of digits, within the radius that the run was trained for, and measured on
all test images. ART's is the algorithm of Moosavi-Dezfooli et al. (2017), with DeepFool and with PGD as the inner
attack, which is run on one image after another. Needs `adversarial-robustness-toolbox`.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import uiat
from uiat.evaluation import attack
from uiat.inverse import FitImages


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Compute the accuracy in percent."""
    with torch.no_grad():
        return 100 * float((model(x).argmax(1) == y).double().mean())


def fit_ours(model: nn.Module, images: FitImages, threat: uiat.Linf, name: str) -> Tensor:
    """Fit the perturbation of an attack by name, (C, H, W)."""
    settings: Any = attack(name, threat=threat)
    z: Tensor = settings.fit(model, images, num_classes=10).z[0, 0]
    return z


def fit_art(model: nn.Module, images: FitImages, threat: uiat.Linf, *, inner: str, passes: int) -> Tensor:
    """Fit ART's perturbation, (C, H, W)."""
    from art.attacks.evasion import UniversalPerturbation
    from art.estimators.classification import PyTorchClassifier

    shape = tuple(images.x.shape[1:])
    classifier = PyTorchClassifier(model, nn.CrossEntropyLoss(), shape, 10, clip_values=(0.0, 1.0), device_type="cpu")
    epsilon = float(threat.epsilon)
    how = {"max_iter": 10, "verbose": False} | ({"eps": epsilon, "eps_step": epsilon / 4} if inner == "pgd" else {})
    fitted = UniversalPerturbation(
        classifier,
        attacker=inner,
        attacker_params=how,
        delta=0.0,
        max_iter=passes,
        eps=epsilon,
        norm=np.inf,
        verbose=False,
    )
    labels = np.eye(10, dtype=np.float32)[images.y.numpy()]
    fitted.generate(images.x.numpy(), labels)
    return torch.as_tensor(fitted.noise, dtype=torch.float32).reshape(shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--fit", type=int, default=300, help="images to fit on")
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--epsilon", default="51/255")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, threat = uiat.load(arguments.run).eval().requires_grad_(False), uiat.Linf(arguments.epsilon)
    images = FitImages(*(each[: arguments.fit] for each in uiat.data.tensors("digits", "train")))
    x, y = uiat.data.tensors("digits", "test")
    print(f"{len(y)} test images, {threat.epsilon:.3f}, clean {accuracy(model, x, y):.1f} %", flush=True)
    ways = {
        f"ours, uap-{arguments.passes}": lambda: fit_ours(model, images, threat, f"uap-{arguments.passes}"),
        "ART, PGD inside": lambda: fit_art(model, images, threat, inner="pgd", passes=arguments.passes),
        "ART, DeepFool inside": lambda: fit_art(model, images, threat, inner="deepfool", passes=arguments.passes),
    }
    print(
        "| perturbation | accuracy on the fitting images, % | on test images, % | processor seconds |\n"
        + "|---" * 4
        + "|"
    )
    for name, fit in ways.items():
        start = time.process_time()
        z = fit()
        seconds = time.process_time() - start
        assert float(z.abs().max()) <= float(threat.epsilon) * (1 + 1e-5)
        fitted, measured = (accuracy(model, (part + z).clamp(0, 1), labels) for part, labels in (images, (x, y)))
        print(f"| {name} | {fitted:.1f} | {measured:.1f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
