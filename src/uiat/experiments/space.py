"""The settings that `uiat tune` searches: ranges and choices by dotted field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uiat.checks import number
from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import UserError
from uiat.experiments.grid import parse_axis

LOG = "log:"
EXAMPLE = "objective.weight=0.5..4, optimisation.learning_rate=log:0.01..0.3 or model.activation=relu,silu"
FORBIDDEN = ("seed", "name", "data.validation", "data.root", "validation.", "evaluation.")


@dataclass(frozen=True)
class Axis:
    """The values that one field may take: from `low` to `high`, or one of `choices`.

    Args:
        text: the values as they were written.
        low: the least value.
        high: the greatest value.
        log: True to search on a logarithmic scale.
        whole: True for whole numbers.
        choices: the values, as they are written in an override; empty for a range.

    Example:
        >>> Axis("1..2", low=1.0, high=2.0).holds(1.5)
        True
    """

    text: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()

    def holds(self, value: Any) -> bool:
        """True if a value of the field is one of these."""
        if self.choices:
            return yaml_io.write_value(value) in self.choices
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


def parse_space(run: Run, texts: Sequence[str]) -> dict[str, Axis]:
    """Return the values to search by field, from texts such as "objective.weight=0.5..4".

    Args:
        run: the run whose fields they are.
        texts: FIELD=LOW..HIGH, FIELD=log:LOW..HIGH or FIELD=A,B,C; none for `default_space`.

    Raises:
        UserError: no such field, values that it cannot have, or a field whose search would look at other images or
            another measure in each trial.

    Example:
        >>> axis = parse_space(Run(), ["optimisation.epochs=2..5"])["optimisation.epochs"]
        >>> (axis.low, axis.high, axis.whole)
        (2.0, 5.0, True)
    """
    if not texts:
        return default_space(run)
    space: dict[str, Axis] = {}
    for text in texts:
        path, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not path or not values:
            raise UserError(f"a space is FIELD=VALUES, such as {EXAMPLE}, not {text!r}")
        if path in space:
            raise UserError(f"{path} is in the space twice")
        if path.startswith(FORBIDDEN):
            raise UserError(f"{path} cannot be tuned: it decides how trials are measured, and not how well they do")
        space[path] = _parse_axis(run, path, values)
    return space


def _parse_axis(run: Run, path: str, text: str) -> Axis:
    if ".." not in text:
        choices = tuple(parse_axis(f"{path}={text}")[1])
        if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choices):
            raise UserError(f"{path} needs a range LOW..HIGH or several different values, not {text!r}")
        for choice in choices:
            yaml_io.override(run, [(path, choice)])
        return Axis(text, choices=choices)
    log, (first, _, last) = text.startswith(LOG), text.removeprefix(LOG).partition("..")
    low, high = (number(bound.strip(), name=path) for bound in (first, last))
    if not low < high or (log and low <= 0):
        above = "0 < LOW < HIGH" if log else "LOW < HIGH"
        raise UserError(f"{path}={text} is no range: it needs {above}")
    whole = [_is_whole(yaml_io.override(run, [(path, bound.strip())]), path) for bound in (first, last)]
    return Axis(text, low, high, log, all(whole))


def _is_whole(run: Run, path: str) -> bool:
    """True if a field holds a whole number: one that may be of either kind is of that which is written."""
    return isinstance({name: value for name, value, _ in yaml_io.describe_fields(run)}.get(path), int)


def default_space(run: Run) -> dict[str, Axis]:
    """Return the space of a run that is given none: learning rate, weight decay, and the weight of its robust term.

    Each goes from a quarter to four times the run's own value; those that are 0 are left out.

    Example:
        >>> {path: axis.text for path, axis in default_space(Run()).items()}["optimisation.learning_rate"]
        'log:0.025..0.4'
    """
    values = {name: value for name, value, _ in yaml_io.describe_fields(run)}
    rates = ("optimisation.learning_rate", "optimisation.weight_decay", "objective.weight")
    space = {}
    for path in rates:
        value = values.get(path)
        if isinstance(value, int | float) and value > 0:
            space[path] = _parse_axis(run, path, f"{LOG}{value / 4:.6g}..{value * 4:.6g}")
    return space


def describe_space(space: Mapping[str, Axis]) -> str:
    """Return a space as it is written on a command line.

    Example:
        >>> describe_space({"objective.weight": Axis("1..2", 1, 2)})
        'objective.weight=1..2'
    """
    return " ".join(f"{path}={axis.text}" for path, axis in space.items())
