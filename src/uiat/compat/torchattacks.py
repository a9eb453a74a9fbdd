"""This package's attacks called as torchattacks calls its own: made with a model, then called on images and labels.

    from uiat.compat.torchattacks import PGD
    atk = PGD(model, eps=8/255, alpha=2/255, steps=10)
    adv_images = atk(images, labels)

Images are in [0, 1]. Which images are returned is as there: of PGD the last iterate, of APGD and AutoAttack an example
for each image that they break and the image itself for the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from uiat import attacks, evaluation
from uiat.errors import UserError, nearest
from uiat.threat import L1, L2, Linf, Threat

_NORMS: dict[str, Callable[[float], Threat]] = {"Linf": Linf, "L2": L2, "L1": L1}
_VERSIONS = {"standard": "autoattack", "plus": "autoattack-plus", "rand": "autoattack-rand"}


@dataclass
class _Targets:
    """Which labels an attack is given: the true ones, to raise the loss, or those to aim at, to lower it."""

    choose: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None

    @property
    def targeted(self) -> bool:
        return self.choose is not None


@dataclass
class _Gradient:
    """An attack that is a setting of PGD, with the targeted modes of torchattacks."""

    model: nn.Module
    settings: attacks.PGD
    targets: _Targets = field(default_factory=_Targets)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return adversarial examples of images (b, c, h, w) in [0, 1]; labels (b,) are those to leave or to reach.

        Raises:
            UserError: images, labels or a model that do not fit together.
        """
        if self.targets.choose is None:
            return self.settings(self.model, images, labels)
        aim = self.targets.choose(self.model, images, labels)
        return replace(self.settings, descend=True)(self.model, images, aim)

    def set_mode_default(self) -> None:
        """Leave the true labels again."""
        self.targets.choose = None

    def set_mode_targeted_by_label(self) -> None:
        """Aim at the labels of the call."""
        self.targets.choose = lambda model, images, labels: labels

    def set_mode_targeted_by_function(self, target_map_function: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Aim at the labels that a function of (images, labels) returns."""
        self.targets.choose = lambda model, images, labels: target_map_function(images, labels)

    def set_mode_targeted_random(self) -> None:
        """Aim at a wrong label drawn at random."""
        self.targets.choose = _draw_wrong

    def set_mode_targeted_least_likely(self, kth_min: int = 1) -> None:
        """Aim at the label with the kth smallest logit, the true one left out."""
        if kth_min < 1:
            raise UserError(f"kth_min counts from 1, but is {kth_min}")
        self.targets.choose = lambda model, images, labels: _least_likely(model, images, labels, kth_min)


def FGSM(model: nn.Module, eps: float = 8 / 255) -> _Gradient:
    """Return FGSM (Goodfellow et al. 2015): one step of eps under Linf.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
        >>> bool((FGSM(model, eps=0.1)(x, y) - x).abs().max() < 0.101)
        True
    """
    return _Gradient(model, attacks.FGSM(threat=Linf(eps)))


def PGD(
    model: nn.Module, eps: float = 8 / 255, alpha: float = 2 / 255, steps: int = 10, random_start: bool = True
) -> _Gradient:
    """Return PGD under Linf (Madry et al. 2018).

    Args:
        model: maps images in [0, 1] to logits.
        eps: radius.
        alpha: step size.
        steps: number of steps.
        random_start: start anywhere in the ball, not at the image.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> atk = PGD(model, eps=0.1, alpha=0.05, steps=3)
        >>> atk.set_mode_targeted_by_label()
        >>> x, target = torch.full((1, 1, 2, 2), 0.5), torch.tensor([1])
        >>> bool(model(atk(x, target))[0, 1] > model(x)[0, 1])
        True
    """
    return _Gradient(model, _pgd(Linf(eps), alpha, steps, random_start=random_start))


def PGDL2(
    model: nn.Module, eps: float = 1.0, alpha: float = 0.2, steps: int = 10, random_start: bool = True
) -> _Gradient:
    """Return PGD under L2; the arguments are those of `PGD`.

    Example:
        >>> PGDL2(nn.Flatten(), eps=0.5).settings.threat
        L2(epsilon=0.5, norm='L2')
    """
    return _Gradient(model, _pgd(L2(eps), alpha, steps, random_start=random_start))


def CWPGD(
    model: nn.Module, eps: float = 8 / 255, alpha: float = 2 / 255, steps: int = 10, random_start: bool = True
) -> _Gradient:
    """Return PGD under Linf on the margin loss (Carlini & Wagner 2017); the arguments are those of `PGD`.

    Example:
        >>> CWPGD(nn.Flatten()).settings.loss
        'margin'
    """
    return _Gradient(model, replace(_pgd(Linf(eps), alpha, steps, random_start=random_start), loss="margin"))


def _pgd(threat: Threat, alpha: float, steps: int, *, random_start: bool) -> attacks.PGD:
    start: Literal["uniform", "none"] = "uniform" if random_start else "none"
    return attacks.PGD(threat=threat, step_size=alpha, steps=steps, start=start)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """An attack that `uiat.evaluate` runs: the images that it breaks are replaced by their examples."""

    model: nn.Module
    threat: Threat
    attack: Any
    seed: int

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the example that broke each image (b, c, h, w), or the image itself."""
        result = evaluation.evaluate(
            self.model,
            images,
            labels,
            threat=self.threat,
            attacks=[self.attack],
            seed=self.seed,
            keep_examples=True,
            selfchecks=False,
        )
        assert result.examples is not None
        return result.examples.to(images)


def APGD(
    model: nn.Module,
    norm: str = "Linf",
    eps: float = 8 / 255,
    steps: int = 10,
    n_restarts: int = 1,
    seed: int = 0,
    loss: Literal["ce", "dlr"] = "ce",
    rho: float = 0.75,
) -> _Judged:
    """Return Auto-PGD (Croce & Hein 2020).

    Args:
        model: maps images in [0, 1] to logits.
        norm: "Linf" or "L2".
        eps: radius.
        steps: number of iterations.
        n_restarts: number of random starts.
        seed: seed of the random starts.
        loss: "ce" or "dlr".
        rho: fraction of steps that must raise the loss, or else the step is halved.

    Example:
        >>> APGD(nn.Flatten(), eps=0.1, loss="dlr").attack.name
        'apgd-dlr'
    """
    threat = _threat(norm, eps)
    attack = attacks.APGD(threat=threat, loss=loss, iterations=steps, restarts=n_restarts, rho=rho)
    return _Judged(model=model, threat=threat, attack=attack, seed=seed)


def AutoAttack(
    model: nn.Module,
    norm: str = "Linf",
    eps: float = 8 / 255,
    version: str = "standard",
    n_classes: int | None = None,
    seed: int = 0,
) -> _Judged:
    """Return AutoAttack (Croce & Hein 2020).

    Args:
        model: maps images in [0, 1] to logits.
        norm: "Linf", "L2" or "L1".
        eps: radius.
        version: "standard", "plus" or "rand".
        n_classes: taken for the sake of torchattacks' signature: the model says how many it has.
        seed: seed of the random numbers.

    Example:
        >>> AutoAttack(nn.Flatten(), norm="L2", eps=0.5).attack
        'autoattack'
    """
    if version not in _VERSIONS:
        raise nearest("version", version, _VERSIONS)
    return _Judged(model=model, threat=_threat(norm, eps), attack=_VERSIONS[version], seed=seed)


def _threat(norm: str, eps: float) -> Threat:
    if norm not in _NORMS:
        raise nearest("norm", norm, _NORMS)
    return _NORMS[norm](eps)


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    training = model.training
    logits: Tensor = model.eval()(images)
    model.train(training)
    return logits


def _draw_wrong(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    classes = _logits(model, images[:1]).shape[1]
    return (labels + torch.randint(1, classes, labels.shape, device=labels.device)) % classes


def _least_likely(model: nn.Module, images: Tensor, labels: Tensor, kth_min: int) -> Tensor:
    logits = _logits(model, images).scatter(1, labels[:, None], float("inf"))  # sorted last
    return logits.argsort(dim=1)[:, kth_min - 1]
