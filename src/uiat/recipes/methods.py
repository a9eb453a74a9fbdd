"""Methods: how the weights are trained, in any setting; the second part of the name of a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from uiat.attacks import FGSM, FGSMRS, NFGSM, PGD
from uiat.checks import checked_fields
from uiat.inverse import InstanceInverse, UniversalInverse
from uiat.objectives import PGDAT, UIAT, AnyObjective, Mart, Standard, Trades
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
    metric: Literal["robust", "clean", "mean"] | None = None
    base: str | None = None


def _build_trades(setting: Setting) -> Trades:
    return Trades(attack=replace(setting.attack, loss="kl", start="gaussian"))


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


# One row a method: its recipes in every setting follow from it.
_ROWS = (
    Method(name="standard", about="natural images alone; not robust", build=lambda _: Standard(), metric="clean"),
    Method(
        name="pgd-at",
        about="adversarial training with PGD (Madry et al. 2018)",
        build=lambda setting: PGDAT(attack=setting.attack),
    ),
    Method(
        name="trades",
        about="natural loss, and KL between natural and adversarial prediction (Zhang et al. 2019)",
        build=_build_trades,
    ),
    Method(
        name="mart",
        about="PGD-AT with more weight on misclassified images (Wang et al. 2020)",
        build=lambda setting: Mart(attack=setting.attack),
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
