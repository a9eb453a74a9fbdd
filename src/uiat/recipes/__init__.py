"""Recipes: a name for each run, `SETTING-METHOD`, such as `cifar10-small-trades`.

A setting is data, model, threat model and schedule (a row of SETTINGS); a method is how the weights are trained (a row
of METHODS). Every method works in every setting, so one row more in either table gives all of its recipes. A setting
with further schedules has each of its recipes once more for each, with `-b` or `-c` at the end of the name. A row of
SINGLE is a whole run with a name of its own. Every field of a recipe can be overridden; `uiat recipes NAME` lists them.
"""

from dataclasses import replace

from uiat.checks import checked
from uiat.config.schema import Evaluation, Run, Validation
from uiat.errors import nearest
from uiat.objectives.abilities import attack_of, takes_soft_labels
from uiat.recipes.methods import METHODS, Method
from uiat.recipes.settings import SETTINGS, Setting
from uiat.recipes.single import SINGLE

__all__ = ["METHODS", "SETTINGS", "SINGLE", "Method", "Setting", "describe", "get", "make_run", "names"]


@checked
def make_run(setting: Setting, method: Method, *, schedule: str = "") -> Run:
    """Return the run of a method in a setting, named after both.

    Of a method that needs one class an image, images are not mixed.

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
    objective, data, optimisation = method.build(setting), setting.data, setting.optimisation
    if method.grows:
        optimisation = replace(optimisation, radius_warmup_epochs=optimisation.epochs - 1)
    if attack_of(objective) is None:
        optimisation = replace(optimisation, radius_warmup_epochs=0, steps_warmup_epochs=0)
    if setting.label_smoothing and hasattr(objective, "label_smoothing"):
        objective = replace(objective, label_smoothing=setting.label_smoothing)  # type: ignore[arg-type]
    if data.augmentation.mixes and not takes_soft_labels(objective):
        data = replace(data, mixup=0.0, cutmix=0.0)
    return Run(
        name="-".join([setting.name, method.name, *([schedule] if schedule else [])]),
        data=data,
        model=setting.model,
        objective=objective,
        optimisation=replace(optimisation, replays=method.replays),
        validation=Validation(metric=method.metric or setting.metric),
        compute=setting.compute,
        evaluation=Evaluation(threat=setting.attack.threat, attacks=setting.attacks),
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
    return [*made, *SINGLE]


@checked
def get(name: str) -> Run:
    """Return a recipe by name.

    Raises:
        UserError: no such recipe; the nearest names are given.

    Example:
        >>> get("digits-uiat").data.name
        'digits'
    """
    if name in SINGLE:
        return SINGLE[name].build()
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
    if name in SINGLE:
        return SINGLE[name].about
    parts = _split(name)
    if parts is None:
        raise nearest("recipe", name, names())
    setting, method, schedule = parts
    ordinal = dict(zip(setting.others, ("second", "third"), strict=False)).get(schedule)
    about = f"{setting.about}; {method.about}" + (f"; the {ordinal} schedule" if ordinal else "")
    return f"{about} ({setting.source})" if setting.source else about
