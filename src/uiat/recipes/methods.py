"""Methods: how the weights are trained, in any setting; the second part of the name of a recipe."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from uiat.attacks import FGSM, FGSMRS, NFGSM, PGD
from uiat.checks import checked_fields
from uiat.data.catalog import DATA_SETS
from uiat.inverse import InstanceInverse, UniversalInverse
from uiat.objectives import (
    ADR,
    ARD,
    DHAT,
    DKL,
    FAT,
    GAIRAT,
    HAT,
    LBGAT,
    MLCAT,
    PGDAT,
    RSLAD,
    UIAT,
    AnyObjective,
    Mart,
    Score,
    SelfAdaptive,
    Squeeze,
    Standard,
    Trades,
)
from uiat.recipes.settings import Setting
from uiat.threat import Linf, Threat

GRAD_ALIGN = 0.2  # the authors' weight at 8/255
REPLAYS = 4  # of a batch in "free": as many updates as cost what PGD-3 does


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Method:
    """How weights are trained, in any setting.

    Args:
        name: second part of the name of a recipe.
        about: the method in a sentence.
        build: makes the objective for a setting.
        replays: updates on each batch, for Free adversarial training; see `Optimisation`.
        grows: the radius grows from epoch to epoch to the setting's in the last one.
        metric: validation accuracy that selects the best epoch; that of the setting by default.
        base: name of the single-step method that UIAT is put on here; None for every other method.

    Example:
        >>> from uiat.recipes import SETTINGS
        >>> METHODS["iat"].build(SETTINGS["digits"]).inverse.kind
        'instance'
    """

    name: str
    about: str
    build: Callable[[Setting], AnyObjective]
    replays: int = 0
    grows: bool = False
    metric: Literal["robust", "clean", "mean"] | None = None
    base: str | None = None


def _kl_attack(setting: Setting) -> PGD:
    """Return the setting's attack in the form of TRADES."""
    return replace(setting.attack, loss="kl", start="gaussian")


def _with_attack(
    objective: Callable[..., AnyObjective], form: Callable[[Setting], PGD] = operator.attrgetter("attack")
) -> Callable[[Setting], AnyObjective]:
    """Return what builds an objective that takes of a setting its attack alone, in one form or another."""
    return lambda setting: objective(attack=form(setting))


def _at(setting: Setting, fraction: float) -> int:
    """Return the epoch at a fraction of the setting's run: authors name theirs for runs of another length."""
    return round(fraction * setting.optimisation.epochs)


def _build_iat(setting: Setting) -> UIAT:
    radius = float(setting.attack.threat.epsilon) / 2
    inverse = InstanceInverse(radius=radius, step_size=radius / 2, steps=setting.steps)
    return UIAT(
        attack=setting.attack,
        inverse=inverse,
        inverse_gradient=setting.inverse_gradient,
        ramp_epochs=setting.ramp_epochs,
    )


def _build_uiat(setting: Setting, *, one_off: bool = False, attack: PGD | None = None, alignment: float = 0.0) -> UIAT:
    """Build UIAT on the setting's attack or another one; the inverse radius is half of epsilon."""
    radius = float(setting.attack.threat.epsilon) / 2
    epoch = setting.optimisation.epochs // 2 if setting.one_off is None else setting.one_off
    return UIAT(
        attack=attack or setting.attack,
        inverse=UniversalInverse(radius=radius, step_size=radius / 4, epoch=epoch if one_off else None),
        inverse_gradient=setting.inverse_gradient,
        ramp_epochs=setting.ramp_epochs,
        alignment=alignment,
    )


def _build_uiat_paper(setting: Setting) -> UIAT:
    """Build the paper's method whole, as far as secondary sources tell it (PAPER.md)."""
    radius = float(setting.attack.threat.epsilon) / 2
    return UIAT(
        attack=setting.attack,
        inverse=UniversalInverse(radius=radius, step_size=radius / 4, regulariser="feature", regulariser_weight=1.0),
        weight=3.5,
        inverse_gradient=False,
        momentum="class",
        momentum_start="uniform",
        gamma=0.9,
    )


def _build_adr(setting: Setting) -> ADR:
    """Build ADR by its authors' files for CIFAR-10 and CIFAR-100; its average remembers half an epoch, as theirs."""
    known = DATA_SETS.get(setting.data.name)
    images = setting.data.subset or (known.train if known else math.inf)
    return ADR(
        attack=replace(setting.attack, loss="kl"),
        decay=min(ADR.decay, round(1 - 2 * setting.data.batch_size / images, 3)),
        temperatures=(1.5, 1.0) if setting.data.name == "cifar100" else ADR.temperatures,
        epochs=setting.optimisation.epochs,
    )


def _build_dhat(setting: Setting) -> DHAT:
    radius, step = float(setting.attack.threat.epsilon) / 2, float(setting.attack.step_size)
    inverse = InstanceInverse(radius=radius, step_size=step, steps=setting.steps, regulariser="logit")
    return DHAT(attack=setting.attack, inverse=inverse)


def _build_free(*, threat: Threat) -> PGD:
    """Build the attack of Free adversarial training: a start in the ball; replays take the steps."""
    return PGD(threat=threat, step_size=float(threat.epsilon), steps=0)


def _single_step(
    name: str, about: str, attack: Callable[..., PGD], *, alignment: float = 0.0, replays: int = 0
) -> tuple[Method, Method, Method]:
    """Return the rows of a single-step method: alone, under UIAT and under one-off UIAT."""

    def base(setting: Setting) -> PGDAT:
        return PGDAT(attack=attack(threat=Linf(setting.epsilon)), alignment=alignment)

    def uiat(setting: Setting, *, one_off: bool = False) -> UIAT:
        single = attack(threat=Linf(setting.epsilon))
        return _build_uiat(setting, one_off=one_off, attack=single, alignment=alignment)

    return (
        Method(name=name, about=about, build=base, replays=replays),
        Method(name=f"{name}-uiat", about=f"UIAT on {name}", build=uiat, replays=replays, base=name),
        Method(
            name=f"{name}-uiat-one-off",
            about=f"one-off UIAT on {name}",
            build=lambda setting: uiat(setting, one_off=True),
            replays=replays,
            base=name,
        ),
    )


# Rivals of UIAT beyond the classical methods. Epochs that their authors name are scaled to the setting's.
_RIVALS = (
    Method(
        name="hat",
        about="TRADES, and examples beyond the ball with a natural teacher's label (HAT; Rade 2022)",
        build=_with_attack(HAT, _kl_attack),
    ),
    Method(
        name="score",
        about="TRADES with squared distances of probabilities (SCORE; Pang et al. 2022)",
        build=lambda setting: Score(attack=replace(_kl_attack(setting), loss="squared")),
    ),
    Method(
        name="dkl",
        about="TRADES with the KL taken apart, its weights class means (IKL; Cui et al. 2024)",
        build=_with_attack(DKL, _kl_attack),
        grows=True,
    ),
    Method(
        name="lbgat",
        about="PGD-AT towards the logits of a natural network trained beside (Cui et al. 2021)",
        build=_with_attack(LBGAT, _kl_attack),
    ),
    Method(
        name="fat",
        about="PGD-AT on attacks stopped soon after they succeed (friendly; Zhang et al. 2020)",
        build=lambda setting: FAT(attack=setting.attack, tau_epochs=(_at(setting, 5 / 12), _at(setting, 3 / 4))),
    ),
    Method(
        name="sat",
        about="TRADES with running predictions as labels (self-adaptive; Huang et al. 2020)",
        build=lambda setting: SelfAdaptive(attack=_kl_attack(setting), from_epoch=_at(setting, 0.7)),
    ),
    Method(
        name="mlcat",
        about="PGD-AT that does not fit examples of small loss (loss scaling; Yu et al. 2022)",
        build=_with_attack(MLCAT),
    ),
    Method(
        name="squeeze",
        about="adversarial and collaborative examples drawn together (squeeze; Li et al. 2023)",
        build=lambda setting: Squeeze(attack=replace(_kl_attack(setting), batchnorm="train")),
    ),
    Method(
        name="dhat",
        about="IAT with a target freed of what the background predicts (Zhang et al. 2025)",
        build=_build_dhat,
    ),
    Method(
        name="ard",
        about="distillation of a PGD-AT teacher on adversarial images (Goldblum et al. 2020)",
        build=_with_attack(ARD),
    ),
    Method(
        name="rslad",
        about="distillation of it by soft labels alone, in the attack too (Zi et al. 2021)",
        build=_with_attack(RSLAD, _kl_attack),
    ),
    Method(
        name="adr",
        about="PGD-AT on labels mixed with an averaged model's predictions (Wu et al. 2024)",
        build=_build_adr,
    ),
    Method(
        name="gairat",
        about="PGD-AT weighted by distance to the boundary; falls to AutoAttack (Zhang et al. 2021)",
        build=lambda setting: GAIRAT(attack=setting.attack, from_epoch=_at(setting, 0.5)),
    ),
)

# One row a method: its recipes in every setting follow from it.
_ROWS = (
    Method(name="standard", about="natural images alone; not robust", build=lambda _: Standard(), metric="clean"),
    Method(
        name="pgd-at",
        about="adversarial training with PGD (Madry et al. 2018)",
        build=_with_attack(PGDAT),
    ),
    Method(
        name="trades",
        about="natural loss, and KL between natural and adversarial prediction (Zhang et al. 2019)",
        build=_with_attack(Trades, _kl_attack),
    ),
    Method(
        name="mart",
        about="PGD-AT with more weight on misclassified images (Wang et al. 2020)",
        build=_with_attack(Mart),
    ),
    Method(
        name="iat", about="PGD-AT, and KL to the prediction on an inverse adversarial image (IAT)", build=_build_iat
    ),
    Method(name="uiat", about="IAT with one inverse perturbation for all images of a class (UIAT)", build=_build_uiat),
    Method(
        name="uiat-one-off",
        about="UIAT with perturbations that are computed in one epoch and kept",
        build=lambda setting: _build_uiat(setting, one_off=True),
    ),
    Method(
        name="uiat-paper",
        about="UIAT as second-hand sources tell it: class momentum, regulariser, detached target",
        build=_build_uiat_paper,
    ),
    *_RIVALS,
    *_single_step("fgsm", "PGD-AT with one step from the image (Goodfellow et al. 2015)", FGSM),
    *_single_step("fgsm-rs", "PGD-AT with one step from a random start (Wong et al. 2020)", FGSMRS),
    *_single_step("n-fgsm", "PGD-AT with one step from a noisy image (de Jorge et al. 2022)", NFGSM),
    *_single_step(
        "grad-align",
        "FGSM with aligned input gradients (Andriushchenko and Flammarion 2020)",
        FGSM,
        alignment=GRAD_ALIGN,
    ),
    *_single_step(
        "free",
        f"{REPLAYS} updates on each batch, an attack step with each (Shafahi et al. 2019)",
        _build_free,
        replays=REPLAYS,
    ),
)
METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})
