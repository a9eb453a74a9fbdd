"""List the rows of the ablation: UIAT with one thing changed at a time."""

from uiat.checks import checked
from uiat.config import yaml_io
from uiat.config.own_objectives import is_objective_code
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.inverse import GeneratorInverse
from uiat.objectives import UIAT

Settings = list[tuple[str, str]]
# Steps of the inverse adversary in its radii, up to a full one: z is then a corner of its ball after one step.
STEPS = {"a quarter of": 0.25, "half": 0.5, "all of": 1.0}


@checked
def changes(run: Run) -> dict[str, Settings]:
    """Return the names of the rows, with the fields that each replaces; the run itself is the first.

    Each component off in turn, and the choices that the paper leaves open (PAPER.md): the direction of the KL, the
    gradient through the inverse branch, radius, lambda, momentum and gamma, regulariser. A change that changes nothing
    about the run, or comes to the same as one before it, is left out, and so is one that the run cannot have, such as a
    one-off epoch of an instance-wise run. Of an objective of the user's own: each number of its at 0, each switch the
    other way, and PGD-AT and TRADES.

    Raises:
        UserError: the objective of the run is neither UIAT nor one of the user's own.

    Example:
        >>> from uiat import recipes
        >>> rows = changes(recipes.get("digits-uiat"))
        >>> rows["KL(adv, inv)"]
        [('objective.kl', 'adversarial-inverse')]
    """
    if isinstance(run.objective, UIAT):
        base, candidates = "uiat", _candidates(run, run.objective)
    elif is_objective_code(run.objective.name):
        base, candidates = run.objective.name.rpartition(":")[2], _own_candidates(run)
    else:
        raise UserError(f"the ablation changes UIAT one thing at a time, and {run.name} is {run.objective.name}")
    rows: dict[str, Settings] = {base: []}
    seen = [run]
    for name, fields in candidates.items():
        settings = [(path, str(value)) for path, value in fields]
        try:
            changed = yaml_io.override(run, settings)
        except UserError:
            continue
        if changed not in seen:
            rows[name] = settings
            seen.append(changed)
    return rows


def _candidates(run: Run, objective: UIAT) -> dict[str, list[tuple[str, object]]]:
    half = max(1, run.optimisation.epochs // 2)
    quarter = run.optimisation.epochs // 4
    weight, gradient = ("objective.weight", 1), ("objective.inverse_gradient", "true")
    ramp, detached = ("objective.ramp_epochs", half), ("objective.inverse_gradient", "false")
    example, by_class = ("objective.momentum", "example"), ("objective.momentum", "class")
    uniform, feature = ("objective.momentum_start", "uniform"), ("objective.inverse.regulariser", "feature")
    return {
        "pgd-at": [("objective.name", "pgd-at")],
        "trades": [("objective.name", "trades")],
        "instance-wise inverse": [("objective.inverse.kind", "instance")],
        "one-off": [("objective.inverse.epoch", quarter)],
        "lambda 1": [weight],
        "lambda 7": [("objective.weight", 7)],
        "lambda ramped over half the run": [ramp],
        "gradient through the inverse branch": [gradient],
        "detached target with lambda 1": [detached, weight],
        "detached target": [detached],
        "detached target with lambda ramped": [detached, ramp],
        "radius epsilon divided by 4": _radius(objective, 0.25),
        "radius epsilon": _radius(objective, 1.0),
        **{f"step of {part} the radius": [_step(objective, size)] for part, size in STEPS.items()},
        "KL(adv, inv)": [("objective.kl", "adversarial-inverse")],
        "KL(inv, adv)": [("objective.kl", "inverse-adversarial")],
        "no momentum": [("objective.momentum", "none")],
        "momentum per example": [example],
        "momentum per example, gamma 0.5": [example, ("objective.gamma", 0.5)],
        "momentum per example, gamma 0.99": [example, ("objective.gamma", 0.99)],
        "momentum per class": [by_class],
        "momentum per class, from 1/K": [by_class, uniform],
        "detached target, feature regulariser, momentum per class": [detached, feature, by_class],
        "detached target, feature regulariser, momentum per class, from 1/K": [detached, feature, by_class, uniform],
        "momentum of the gradient of z": [("objective.inverse.gradient_momentum", 0.3)],
        "no regulariser": [("objective.inverse.regulariser", "none")],
        "feature regulariser": [feature],
        "logit regulariser": [("objective.inverse.regulariser", "logit")],
        "BatchNorm from adversarial": [("objective.batchnorm", "adversarial")],
    }


def _step(objective: UIAT, scale: float) -> tuple[str, object]:
    """Set the inverse adversary's step to a multiple of its radius."""
    return "objective.inverse.step_size", scale * float(objective.inverse.radius)


def _own_candidates(run: Run) -> dict[str, list[tuple[str, object]]]:
    found: dict[str, list[tuple[str, object]]] = {
        "pgd-at": [("objective.name", "pgd-at")],
        "trades": [("objective.name", "trades")],
    }
    for name, value in yaml_io.to_dict(run.objective).items():
        if isinstance(value, bool):
            found[f"{name} {yaml_io.write_value(not value)}"] = [(f"objective.{name}", not value)]
        elif isinstance(value, int | float):
            found[f"{name} 0"] = [(f"objective.{name}", 0)]
    return found


def _radius(objective: UIAT, scale: float) -> list[tuple[str, object]]:
    """Set the inverse radius to a multiple of epsilon; its step size, where there is one, keeps its ratio to it."""
    radius = scale * float(objective.attack.threat.epsilon)
    if isinstance(objective.inverse, GeneratorInverse):
        return [("objective.inverse.radius", radius)]
    ratio = float(objective.inverse.step_size) / float(objective.inverse.radius)
    return [("objective.inverse.radius", radius), ("objective.inverse.step_size", ratio * radius)]
