"""Find settings of a run that cannot matter, such as milestones beyond its end, and warn of them.

`RULES` lists them, a row each. A field that keeps its default is no setting, since nobody asked for it, but for the
epochs of a method's own schedule: those of its authors never come in a shorter run, which is then of another method.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from uiat.attacks import PGD
from uiat.config.schema import Run
from uiat.objectives import ADR
from uiat.objectives.abilities import attack_of, one_off_epoch
from uiat.system.distributed import current_rank

logger = logging.getLogger("uiat")
# Sentences that were logged already, inside `warned_once`; None outside of it.
_said: ContextVar[set[str] | None] = ContextVar("_said", default=None)


class Rule(NamedTuple):
    """A setting that cannot matter.

    Args:
        is_idle: true of runs in which it cannot.
        sentence: what to tell the user; braces hold dotted fields of the run.
    """

    is_idle: Callable[[Run], bool]
    sentence: str


def find_idle_settings(run: Run) -> list[str]:
    """Return a sentence for each setting of a run that cannot matter.

    Example:
        >>> from uiat import Optimisation
        >>> find_idle_settings(Run(optimisation=Optimisation(milestones=(3,), schedule="cosine")))
        ['optimisation.milestones has no effect: optimisation.schedule is cosine, and not piecewise']
    """
    return [_write(rule.sentence, run) for rule in RULES if rule.is_idle(run)]


def warn_of_idle_settings(run: Run) -> None:
    """Log a warning for each setting of a run that cannot matter; of several processes the first one does.

    Example:
        >>> warn_of_idle_settings(Run())
    """
    said = _said.get()
    if not current_rank().first:
        return
    for sentence in find_idle_settings(run):
        if said is None or sentence not in said:
            logger.warning(sentence)
        if said is not None:
            said.add(sentence)


@contextmanager
def warned_once(runs: Sequence[Run]) -> Iterator[None]:
    """Warn of the idle settings of several runs at once; inside, each sentence is not repeated.

    Example:
        >>> with warned_once([Run(), Run(seed=1)]):
        ...     warn_of_idle_settings(Run())
    """
    token = _said.set(set())
    try:
        for run in runs:
            warn_of_idle_settings(run)
        yield
    finally:
        _said.reset(token)


def _write(sentence: str, run: Run) -> str:
    """Put the values of the fields named in braces into a sentence."""
    parts = sentence.replace("}", "{").split("{")
    return "".join(part if i % 2 == 0 else _text(_get(run, part)) for i, part in enumerate(parts))


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _get(run: Run, path: str, default: Any = None) -> Any:
    """Return the value at a dotted path; the default where an objective has no such field."""
    value: Any = run
    for name in path.split("."):
        if not hasattr(value, name):
            return default
        value = getattr(value, name)
    return value


def _is_set(run: Run, path: str) -> bool:
    """True if a field has another value than its default."""
    section_path, _, name = path.rpartition(".")
    section = _get(run, section_path)
    known = {field.name: field for field in fields(section)} if hasattr(section, "__dataclass_fields__") else {}
    if name not in known:
        return False
    field = known[name]
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return bool(getattr(section, name) != default)


def _set_without(path: str, needed: str, *values: Any) -> Rule:
    """Return the rule that a field matters only where another one has one of some values."""
    words = " or ".join(_text(value) for value in values)
    return Rule(
        lambda run: _is_set(run, path) and _get(run, needed, values[0]) not in values,
        f"{path} has no effect: {needed} is {{{needed}}}, and not {words}",
    )


def _set_with(path: str, other: str, value: Any) -> Rule:
    """Return the rule that a field does not matter where another one has some value."""
    return Rule(
        lambda run: _is_set(run, path) and _get(run, other) == value, f"{path} has no effect: {other} is {{{other}}}"
    )


def _beyond_the_end(path: str, what: str, *, is_used: Callable[[Run], bool]) -> Rule:
    """Return the rule that an epoch lies beyond the end of the run."""
    return Rule(
        lambda run: is_used(run) and _get(run, path) >= run.optimisation.epochs,
        f"{what} is never reached: {path} is {{{path}}}, counted from 0, and optimisation.epochs is "
        "{optimisation.epochs}",
    )


def _lambdas(run: Run) -> list[float]:
    """Return UIAT's lambda in each epoch; none for other methods."""
    lambda_at = getattr(run.objective, "lambda_at", None)
    return [] if lambda_at is None else [lambda_at(epoch) for epoch in range(run.optimisation.epochs)]


def _is_lambda_zero(run: Run) -> bool:
    """True if the ramp alone keeps lambda at 0."""
    weight, epoch = _get(run, "objective.weight"), one_off_epoch(run.objective)
    comes = epoch is None or epoch < run.optimisation.epochs
    return bool(_lambdas(run)) and not any(_lambdas(run)) and bool(weight) and comes


def _is_ramp_cut(run: Run) -> bool:
    return any(_lambdas(run)) and max(_lambdas(run)) < _get(run, "objective.weight")


def _validations(run: Run) -> int:
    return -(-run.optimisation.epochs // run.validation.every)


def _attack(run: Run) -> PGD | None:
    return attack_of(run.objective)


_SGD = "optimisation.optimizer"
_SCHEDULE = "optimisation.schedule"
_NEED_ATTACK = ("mean", "worst-class")  # values of validation.metric
_REGULARISER = "objective.inverse.regulariser"

RULES: tuple[Rule, ...] = (
    # The weight of the method's second term.
    Rule(
        lambda run: _is_set(run, "objective.weight") and _get(run, "objective.weight") == 0,
        "objective.weight is 0: the second term of {objective.name} has no effect, and is computed all the same",
    ),
    Rule(
        lambda run: bool(_is_lambda_zero(run)),
        "objective.weight has no effect: lambda is 0 in every epoch, since objective.ramp_epochs is "
        "{objective.ramp_epochs} and optimisation.epochs {optimisation.epochs}",
    ),
    Rule(
        lambda run: _is_ramp_cut(run),
        "objective.weight {objective.weight} is never reached: objective.ramp_epochs is {objective.ramp_epochs}, which "
        "is not shorter than the run (optimisation.epochs {optimisation.epochs})",
    ),
    _beyond_the_end(
        "objective.inverse.epoch", "the one-off epoch", is_used=lambda run: one_off_epoch(run.objective) is not None
    ),
    _beyond_the_end(
        "objective.from_epoch",
        "the part of the method that begins later",
        is_used=lambda run: _get(run, "objective.from_epoch") is not None,
    ),
    Rule(
        lambda run: any(epoch >= run.optimisation.epochs for epoch in _get(run, "objective.tau_epochs") or ()),
        "not every one of objective.tau_epochs ({objective.tau_epochs}) is reached: optimisation.epochs is "
        "{optimisation.epochs}",
    ),
    Rule(
        lambda run: isinstance(run.objective, ADR) and run.objective.epochs != run.optimisation.epochs,
        "the schedule of adr is not that of the run: objective.epochs is {objective.epochs}, and optimisation.epochs "
        "{optimisation.epochs}",
    ),
    _set_without("objective.weight", "objective.form", "trades"),
    # The images.
    _set_without("data.least_area", "data.augment", "resized-crop", "resized-crop-flip"),
    _set_with("data.randaugment_magnitude", "data.randaugment", 0),
    # Inverse adversaries.
    _set_with("objective.inverse.regulariser_weight", _REGULARISER, "none"),
    Rule(
        lambda run: _is_set(run, _REGULARISER) and _get(run, "objective.inverse.regulariser_weight") == 0,
        f"{_REGULARISER} {{{_REGULARISER}}} has no effect: objective.inverse.regulariser_weight is 0",
    ),
    Rule(
        lambda run: _is_set(run, "objective.inverse.start") and bool(_get(run, "objective.inverse.warm_start")),
        "objective.inverse.start has no effect: objective.inverse.warm_start says where z starts",
    ),
    _set_with("objective.gamma", "objective.momentum", "none"),
    _set_with("objective.momentum_start", "objective.momentum", "none"),
    Rule(
        lambda run: _is_set(run, "objective.momentum") and _get(run, "objective.gamma") == 0,
        "objective.momentum {objective.momentum} has no effect: objective.gamma is 0",
    ),
    _set_without("objective.batchnorm", "objective.inverse_gradient", True),
    # The attack.
    _set_without("objective.attack.start_radius", "objective.attack.start", "uniform"),
    Rule(
        lambda run: (attack := _attack(run)) is not None and attack.restarts > 1 and attack.start == "none",
        "objective.attack.restarts {objective.attack.restarts} has no effect: objective.attack.start is none, so that "
        "all of them are the same",
    ),
    # The optimiser and its schedule.
    _set_without("optimisation.momentum", _SGD, "sgd"),
    _set_without("optimisation.nesterov", _SGD, "sgd"),
    _set_without("optimisation.milestones", _SCHEDULE, "piecewise"),
    _set_without("optimisation.decay", _SCHEDULE, "piecewise"),
    _set_without("optimisation.peak_at", _SCHEDULE, "onecycle", "cyclic"),
    Rule(
        lambda run: run.optimisation.schedule == "piecewise" and not run.optimisation.milestones,
        "optimisation.schedule piecewise has no effect: there are no optimisation.milestones",
    ),
    Rule(
        lambda run: (
            run.optimisation.schedule == "piecewise"
            and any(milestone >= run.optimisation.epochs for milestone in run.optimisation.milestones)
        ),
        "not every one of optimisation.milestones ({optimisation.milestones}) is reached: optimisation.epochs is "
        "{optimisation.epochs}",
    ),
    Rule(
        lambda run: run.optimisation.radius_warmup_epochs >= run.optimisation.epochs,
        "the whole radius is never reached: optimisation.radius_warmup_epochs is {optimisation.radius_warmup_epochs}, "
        "and optimisation.epochs is {optimisation.epochs}",
    ),
    Rule(
        lambda run: run.optimisation.steps_warmup_epochs >= run.optimisation.epochs,
        "the attack never makes all of its steps: optimisation.steps_warmup_epochs is "
        "{optimisation.steps_warmup_epochs}, and optimisation.epochs is {optimisation.epochs}",
    ),
    # Weight perturbation and averages.
    _set_with("optimisation.awp_from_epoch", "optimisation.awp", 0.0),
    _beyond_the_end("optimisation.awp_from_epoch", "optimisation.awp", is_used=lambda run: run.optimisation.awp > 0),
    _set_with("optimisation.average_from_epoch", "optimisation.average", "none"),
    _set_without("optimisation.average_decay", "optimisation.average", "ema"),
    _beyond_the_end(
        "optimisation.average_from_epoch",
        "optimisation.average",
        is_used=lambda run: run.optimisation.average != "none",
    ),
    # Validation and guards.
    Rule(
        lambda run: run.validation.patience is not None and run.validation.patience >= _validations(run),
        "validation.patience {validation.patience} has no effect: the run has no more validations than that "
        "(optimisation.epochs {optimisation.epochs}, validation.every {validation.every})",
    ),
    Rule(
        lambda run: run.threat is None and (_is_set(run, "validation.steps") or run.validation.metric in _NEED_ATTACK),
        "validation.steps and validation.metric have no effect: {objective.name} has no threat model, so that clean "
        "accuracy alone is measured",
    ),
    Rule(
        lambda run: run.objective.threat is None and _is_set(run, "guards.overfitting"),
        "guards.overfitting has no effect: {objective.name} trains on no adversarial examples",
    ),
    Rule(
        lambda run: _is_set(run, "guards.chance_epochs") and run.guards.chance_epochs > run.optimisation.epochs,
        "guards.chance_epochs {guards.chance_epochs} is never reached: optimisation.epochs is {optimisation.epochs}",
    ),
    # Batches and arithmetic.
    Rule(
        lambda run: run.optimisation.accumulate > run.data.batch_size,
        "optimisation.accumulate {optimisation.accumulate} is more than the images of a batch (data.batch_size "
        "{data.batch_size}): each part has one image",
    ),
    Rule(
        lambda run: _is_set(run, "data.workers") and not run.data.name.startswith("imagefolder:"),
        "data.workers has no effect: {data.name} is held in memory",
    ),
    *(
        Rule(
            lambda run, path=path: run.data.extra is None and _is_set(run, path),  # type: ignore[misc]
            f"{path} has no effect: there is no data.extra",
        )
        for path in ("data.extra_share", "data.extra_labels", "data.extra_teacher")
    ),
    Rule(
        lambda run: run.data.extra is not None and bool(run.data.extra_teacher) and run.data.extra_labels == "file",
        "data.extra_teacher has no effect: data.extra_labels is file, and not teacher",
    ),
    *(
        Rule(
            lambda run, path=path: run.compute.plain and _is_set(run, path),  # type: ignore[misc]
            f"{path} has no effect: compute.plain switches every setting of speed off",
        )
        for path in ("compute.precision", "compute.fold", "compute.compile")
    ),
)
