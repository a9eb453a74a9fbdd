"""Recipes: a name for each run, `SETTING-METHOD`, such as `cifar10-small-trades`.

A setting is data, model, threat model and schedule (a row of SETTINGS); a method is how the weights are trained (a row
of METHODS). Every method works in every setting, so one row more in either table gives all of its recipes. A setting
with further schedules has each of its recipes once more for each, with `-b` or `-c` at the end of the name. Every field
of a recipe can be overridden; `uiat recipes NAME` lists them.
"""

from dataclasses import replace

from uiat.attacks import PGD
from uiat.checks import checked
from uiat.config.schema import Compute, Data, Evaluation, Model, Optimisation, Run, Validation
from uiat.errors import nearest
from uiat.inverse import UniversalInverse
from uiat.objectives import UIAT
from uiat.recipes.methods import METHODS, Method
from uiat.recipes.settings import SETTINGS, Setting
from uiat.threat import Linf

__all__ = ["METHODS", "SETTINGS", "SPEEDRUN", "Method", "Setting", "describe", "get", "make_run", "names"]

SPEEDRUN = "cifar10-speedrun"  # the one recipe that is no setting times a method
SPEEDRUN_ABOUT = "single-step UIAT against a clock: 15 epochs, under 2 min on an H200"


@checked
def make_run(setting: Setting, method: Method, *, schedule: str = "") -> Run:
    """Return the run of a method in a setting, named after both.

    Args:
        setting: data, model, threat model, schedule.
        method: makes the objective.
        schedule: one of the setting's `others`, such as "b"; its own by default.

    Raises:
        UserError: the setting has no such schedule.

    Example:
        >>> make_run(SETTINGS["digits"], METHODS["fgsm-uiat"]).name
        'digits-fgsm-uiat'
    """
    if schedule:
        if schedule not in setting.others:
            raise nearest(f"schedule of {setting.name}", schedule, setting.others)
        setting = replace(setting, optimisation=setting.others[schedule])
    return Run(
        name="-".join([setting.name, method.name, *([schedule] if schedule else [])]),
        data=setting.data,
        model=setting.model,
        objective=method.build(setting),
        optimisation=replace(setting.optimisation, replays=method.replays),
        validation=Validation(metric=method.metric or setting.metric),
        compute=setting.compute,
        evaluation=Evaluation(threat=setting.attack.threat, attacks=setting.attacks),
    )


def _build_speedrun() -> Run:
    """Build the run of "cifar10-speedrun".

    The published mark is 45 % under PGD-50-10 after six minutes on a 2080 Ti (Wong et al. 2020). The detached target of
    one-off perturbations makes an image of a step cost 6 F.
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


def _split(name: str) -> tuple[Setting, Method, str] | None:
    """Return the setting, the method and the schedule of a name, or None where it is no recipe made of two."""
    for setting in SETTINGS.values():
        rest = name.removeprefix(f"{setting.name}-")
        if rest == name:
            continue
        if rest in METHODS:
            return setting, METHODS[rest], ""
        method, _, schedule = rest.rpartition("-")
        if method in METHODS and schedule in setting.others:
            return setting, METHODS[method], schedule
    return None


def names() -> list[str]:
    """Return the name of every recipe.

    Example:
        >>> "digits-uiat" in names()
        True
    """
    made = [
        f"{setting.name}-{method}{ending}"
        for setting in SETTINGS.values()
        for ending in ("", *(f"-{schedule}" for schedule in setting.others))
        for method in METHODS
    ]
    return [*made, SPEEDRUN]


@checked
def get(name: str) -> Run:
    """Return a recipe by name.

    Raises:
        UserError: no such recipe; the nearest names are given.

    Example:
        >>> get("digits-uiat").data.name
        'digits'
    """
    if name == SPEEDRUN:
        return _build_speedrun()
    parts = _split(name)
    if parts is None:
        raise nearest("recipe", name, names())
    setting, method, schedule = parts
    return make_run(setting, method, schedule=schedule)


@checked
def describe(name: str) -> str:
    """Return what a recipe is, in a sentence.

    Raises:
        UserError: no such recipe.

    Example:
        >>> describe("digits-uiat")
        "scikit-learn's 8x8 digits: no download; IAT with one inverse perturbation for all images of a class (UIAT)"
    """
    if name == SPEEDRUN:
        return SPEEDRUN_ABOUT
    parts = _split(name)
    if parts is None:
        raise nearest("recipe", name, names())
    setting, method, schedule = parts
    ordinal = dict(zip(setting.others, ("second", "third"), strict=False)).get(schedule)
    return f"{setting.about}; {method.about}" + (f"; the {ordinal} schedule" if ordinal else "")
