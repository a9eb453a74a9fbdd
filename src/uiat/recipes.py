"""Recipes: one name, one run. Every field of one can be overridden; `uiat recipes NAME` lists them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from uiat.attacks import FGSM, FGSMRS, NFGSM, PGD
from uiat.config.schema import Compute, Data, Evaluation, Model, Optimisation, Run, Validation
from uiat.errors import nearest
from uiat.inverse import InstanceInverse, UniversalInverse
from uiat.objectives import PGDAT, UIAT, AnyObjective, Mart, Standard, Trades
from uiat.threat import Linf, Threat, number

METHODS = ("standard", "pgd-at", "trades", "mart", "iat", "uiat", "uiat-one-off")
# Adversarial training with one step, each alone and, with "-uiat" or "-uiat-one-off" at its end, under UIAT.
SINGLE_STEP = ("fgsm", "fgsm-rs", "n-fgsm", "grad-align", "free")
ENDINGS = ("", "-uiat", "-uiat-one-off")
GRAD_ALIGN = 0.2  # the authors' weight at 8/255
AUTO = Compute(precision="auto", compile="auto")  # of runs of minutes: what the machine is fastest with
REPLAYS = 4  # of a batch in "free": as many updates as cost what PGD-3 does


def objective(
    method: str,
    *,
    epsilon: float | str,
    step_size: float | str,
    steps: int,
    one_off: int,
    inverse_gradient: bool = True,
    ramp_epochs: int = 0,
) -> AnyObjective:
    """A method by name against Linf attacks, with an inverse radius of epsilon / 2 and its usual weight.

    Args:
        method: one of METHODS, or of SINGLE_STEP with one of ENDINGS.
        epsilon: radius of the attack.
        step_size: of the attack.
        steps: of the attack, and of the instance-wise inverse adversary.
        one_off: epoch in which one-off UIAT refines its perturbations.
        inverse_gradient: whether the inverse methods train through the inverse prediction too.
        ramp_epochs: epochs over which the weight of the inverse methods grows.

    Example:
        >>> objective("iat", epsilon="8/255", step_size="2/255", steps=10, one_off=5).inverse.kind
        'instance'
    """
    radius = number(epsilon) / 2
    inverse_only: dict[str, Any] = {"inverse_gradient": inverse_gradient, "ramp_epochs": ramp_epochs}
    attack, more = PGD(threat=Linf(epsilon), step_size=step_size, steps=steps), dict[str, Any]()
    base = method.removesuffix("-one-off").removesuffix("-uiat")
    if base in SINGLE_STEP:
        makers = {"fgsm": FGSM, "grad-align": FGSM, "fgsm-rs": FGSMRS, "n-fgsm": NFGSM, "free": _free}
        attack, more = makers[base](threat=Linf(epsilon)), {"alignment": GRAD_ALIGN if base == "grad-align" else 0.0}
        method = method.removeprefix(base).removeprefix("-") or "pgd-at"
    match method:
        case "standard":
            return Standard()
        case "pgd-at":
            return PGDAT(attack=attack, **more)
        case "trades":
            return Trades(attack=replace(attack, loss="kl", start="gaussian"))
        case "mart":
            return Mart(attack=attack)
        case "iat":
            inverse = InstanceInverse(radius=radius, step_size=radius / 2, steps=steps)
            return UIAT(attack=attack, inverse=inverse, **inverse_only)
        case _:
            epoch = one_off if method == "uiat-one-off" else None
            universal = UniversalInverse(radius=radius, step_size=radius / 4, epoch=epoch)
            return UIAT(attack=attack, inverse=universal, **inverse_only, **more)


def _free(*, threat: Threat) -> PGD:
    """The attack of Free adversarial training: a start in the ball; replays take the steps."""
    return PGD(threat=threat, step_size=float(threat.epsilon), steps=0)


def _optimisation(method: str, **settings: Any) -> Optimisation:
    """The settings, with replays for the method that takes its steps by them."""
    return Optimisation(replays=REPLAYS if method.startswith("free") else 0, **settings)


def _validation(method: str) -> Validation:
    """Robust accuracy selects, except for standard training, which has none to select by."""
    return Validation(metric="clean" if method == "standard" else "robust")


def digits(method: str) -> Run:
    """scikit-learn's 8x8 digits, the embedded default: no download, seconds on a laptop.

    Command: `uiat train digits-uiat`. Linf 0.2, PGD-10, small-cnn of width 16, 40 epochs. The inverse methods use a
    detached target: on held-out images it was ahead of the gradient through both (84.0 against 79.3 robust, seed 0).
    """
    return Run(
        name=f"digits-{method}",
        data=Data(name="digits", validation=150, batch_size=64),
        model=Model(name="small-cnn", width=16),
        objective=objective(method, epsilon=0.2, step_size=0.05, steps=10, one_off=10, inverse_gradient=False),
        optimisation=_optimisation(method, epochs=40, learning_rate=0.1, schedule="onecycle"),
        validation=_validation(method),
        evaluation=Evaluation(threat=Linf(0.2), attacks=("clean", "pgd-50-5", "cw-50")),
    )


def mnist(method: str) -> Run:
    """MNIST at the field's usual Linf 0.3.

    Command: `uiat train mnist-uiat --data.root DIR`. PGD-7 of step 0.1, mnist-cnn of width 32, 12 epochs: about
    twenty minutes on two CPU cores. The inverse methods use a detached target: on held-out images it was ahead of the
    gradient through both, in clean (98.2 against 96.9) and in robust accuracy (93.9 against 92.1; width 16, 8 epochs,
    seed 0).
    """
    return Run(
        name=f"mnist-{method}",
        data=Data(name="mnist", batch_size=128),
        model=Model(name="mnist-cnn", width=32),
        objective=objective(method, epsilon=0.3, step_size=0.1, steps=7, one_off=3, inverse_gradient=False),
        optimisation=_optimisation(method, epochs=12, learning_rate=0.05, weight_decay=0.0, schedule="onecycle"),
        validation=_validation(method),
        compute=AUTO,
        evaluation=Evaluation(threat=Linf(0.3), attacks=("clean", "pgd-100-5")),
    )


def cifar10_small(method: str) -> Run:
    """CIFAR-10 at Linf 8/255 on a CPU: a pre-activation ResNet-8 of 78,000 parameters, 20,000 training images.

    Command: `uiat train cifar10-small-uiat --data.root DIR`. PGD-3 of step 4/255 in training, 4 epochs, onecycle: 3
    to 10 minutes on two CPU cores, with units for bf16 or without. So short a run is far from convergence: updates
    count for more than the strength of the inner problem, hence its few steps and the small batches. The weight of
    the inverse methods grows over half of the run: on held-out images that was ahead of the full weight at once
    (clean 37.6 against 35.9, robust 26.0 against 25.7, seed 0), and of a detached target (35.4, 23.6). The mean of
    clean and robust accuracy selects: in four epochs nothing overfits, and the robust accuracy of 1,000 images
    alone picks an early epoch by chance.
    """
    return Run(
        name=f"cifar10-small-{method}",
        data=Data(name="cifar10", subset=20_000, augment="crop-flip", batch_size=64),
        model=Model(name="preact-resnet8", width=16),
        objective=objective(method, epsilon="8/255", step_size="4/255", steps=3, one_off=2, ramp_epochs=2),
        optimisation=_optimisation(method, epochs=4, learning_rate=0.1, schedule="onecycle"),
        validation=Validation(metric="clean" if method == "standard" else "mean"),
        compute=AUTO,
        evaluation=Evaluation(threat=Linf("8/255"), attacks=("clean", "pgd-20", "cw-20")),
    )


def _protocol(name: str) -> Optimisation:
    """A: the step schedule of 110 epochs. B: OneCycle, 50 epochs (the HAT authors' protocol)."""
    if name == "a":
        return Optimisation(
            epochs=110, learning_rate=0.1, nesterov=False, schedule="piecewise", milestones=(100, 105), decay=0.1
        )
    return Optimisation(epochs=50, learning_rate=0.21, schedule="onecycle", peak_at=0.25)


def paper(data: str, architecture: str, method: str, protocol: str) -> Run:
    """The papers' setting: Linf 8/255, PGD-10 of step 2/255 (1/255 on SVHN), batch 128, on a GPU.

    Command: `uiat train cifar10-resnet18-uiat --data.root DIR`. Protocol A by default; names ending in -b use B.
    """
    svhn = data == "svhn"
    optimisation = _protocol(protocol)
    if svhn and protocol == "a":
        optimisation = replace(optimisation, learning_rate=0.01)
    step_size = "1/255" if svhn else "2/255"
    short = "wrn28" if architecture == "wrn-28-10" else architecture
    name = f"{data}-{short}-{method}" + ("-b" if protocol == "b" else "")
    return Run(
        name=name,
        data=Data(name=data, augment="none" if svhn else "crop-flip", batch_size=128),
        model=Model(name=architecture),
        objective=objective(method, epsilon="8/255", step_size=step_size, steps=10, one_off=optimisation.epochs // 2),
        optimisation=optimisation,
        validation=_validation(method),
        compute=AUTO,
        evaluation=Evaluation(threat=Linf("8/255"), attacks=("clean", "pgd-20", "cw-20")),
    )


def speedrun() -> Run:
    """Single-step UIAT against a clock: FGSM-RS at 8/255, preact-resnet18, 15 epochs, bf16, compiled, on a GPU.

    Command: `uiat train cifar10-speedrun --data.root DIR`. The published mark is 45 % under PGD-50-10 after six minutes
    on a 2080 Ti (Wong et al. 2020). The detached target of one-off perturbations makes an image of a step cost 6 F.
    """
    threat = Linf("8/255")
    attack = PGD(threat=threat, step_size="10/255", steps=1)
    inverse = UniversalInverse(radius="4/255", step_size="1/255", epoch=5)
    return Run(
        name="cifar10-speedrun",
        data=Data(name="cifar10", augment="crop-flip", batch_size=128),
        model=Model(name="preact-resnet18"),
        objective=UIAT(attack=attack, inverse=inverse, weight=1.0, inverse_gradient=False),
        optimisation=Optimisation(epochs=15, learning_rate=0.2, schedule="cyclic", weight_decay=5e-4),
        compute=Compute(precision="bf16", compile=True),
        evaluation=Evaluation(threat=threat, attacks=("clean", "pgd-50-10")),
    )


def _table() -> dict[str, Callable[[], Run]]:
    table: dict[str, Callable[[], Run]] = {}
    single = [base + ending for base in SINGLE_STEP for ending in ENDINGS]
    for method in single:
        table[f"digits-{method}"] = lambda m=method: digits(m)  # type: ignore[misc]
        table[f"mnist-{method}"] = lambda m=method: mnist(m)  # type: ignore[misc]
        table[f"cifar10-small-{method}"] = lambda m=method: cifar10_small(m)  # type: ignore[misc]
    for method in METHODS:
        table[f"digits-{method}"] = lambda m=method: digits(m)  # type: ignore[misc]
        table[f"mnist-{method}"] = lambda m=method: mnist(m)  # type: ignore[misc]
        table[f"cifar10-small-{method}"] = lambda m=method: cifar10_small(m)  # type: ignore[misc]
        for data in ("cifar10", "cifar100", "svhn"):
            for short, architecture in (("resnet18", "resnet18"), ("wrn28", "wrn-28-10")):
                for protocol, ending in (("a", ""), ("b", "-b")):
                    key = f"{data}-{short}-{method}{ending}"
                    table[key] = lambda d=data, a=architecture, m=method, p=protocol: paper(d, a, m, p)  # type: ignore[misc]
    table["cifar10-speedrun"] = speedrun
    return table


def names() -> list[str]:
    """Every recipe.

    Example:
        >>> "digits-uiat" in names()
        True
    """
    return list(_table())


def get(name: str) -> Run:
    """A recipe by name.

    Raises:
        UserError: no such recipe; the nearest names are given.

    Example:
        >>> get("digits-uiat").data.name
        'digits'
    """
    table = _table()
    if name not in table:
        raise nearest("recipe", name, table)
    return table[name]()


def describe(name: str) -> str:
    """What a recipe is for, in a sentence.

    Example:
        >>> describe("digits-uiat")[:12]
        'scikit-learn'
    """
    family = {"digits-": digits, "mnist-": mnist, "cifar10-small-": cifar10_small, "cifar10-speedrun": speedrun}
    source = next((f for prefix, f in family.items() if name.startswith(prefix)), paper)
    return (source.__doc__ or "").splitlines()[0]
