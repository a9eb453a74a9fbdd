"""Read and write runs as nested dictionaries, YAML and dotted overrides, with errors that name the field."""

import dataclasses
import types
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from uiat.checks import checked, number
from uiat.checks.annotations import kind_of
from uiat.checks.values import describe
from uiat.config.field_names import unknown_field
from uiat.config.own_objectives import find_objective, is_objective_code
from uiat.config.plain_yaml import parse_plain, parse_value
from uiat.config.schema import Model, Run
from uiat.errors import UserError, nearest
from uiat.formatting import exact_255ths

# The field whose value says which of several classes a mapping describes.
_TAGS = ("name", "kind", "norm")
# What survives a switch of class; everything else takes the new class's default.
_KEPT = {"label_smoothing", "radius", "regulariser", "regulariser_weight"}
_BUDGET = ("threat", "step_size", "steps", "batchnorm")
_FRACTIONS = ("epsilon", "radius", "step_size")


def _members(hint: Any) -> list[type]:
    """Return the dataclasses that a field of this type may hold."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [option for option in options if dataclasses.is_dataclass(option) and isinstance(option, type)]


def _tag(classes: list[type]) -> str:
    names = {f.name for f in dataclasses.fields(classes[0])}
    tag = next((tag for tag in reversed(_TAGS) if tag in names), None)
    if tag is None:
        which = " and ".join(kind.__name__ for kind in classes)
        raise UserError(f"{which} need a field {' or '.join(_TAGS)}, which tells one from the other")
    return tag


def _tags(classes: list[type]) -> dict[str, type]:
    tag = _tag(classes)
    return {str(next(f.default for f in dataclasses.fields(c) if f.name == tag)): c for c in classes}


def _choose(classes: list[type], value: dict[str, Any], path: str, *, own_code: bool) -> type:
    if len(classes) == 1:
        return classes[0]
    tag, known = _tag(classes), _tags(classes)
    chosen = value.get(tag)
    if path == "objective" and is_objective_code(chosen):
        if not own_code:
            raise UserError(f"objective.name is code, {chosen!r}: allow it with own_code=True (--own-code)")
        return find_objective(str(chosen))
    if chosen is None:
        raise UserError(f"{path} needs a field {tag}, which says what else there is: one of {', '.join(known)}")
    if not isinstance(chosen, str) or chosen not in known:
        raise nearest(f"{path}.{tag}", str(chosen), known)
    return known[chosen]


def build(kind: type, value: Any, path: str = "", *, own_code: bool = False) -> Any:
    """Build a dataclass from nested dictionaries, each leaf checked against its type.

    Args:
        kind: the dataclass.
        value: its fields.
        path: dotted path of the value in a run, for messages.
        own_code: True to let objective.name name code of the user's own, which runs it.

    Raises:
        UserError: an unknown field or a value of the wrong type, named by its dotted path, or code that is not allowed.

    Example:
        >>> build(Run, {"name": "mine", "optimisation": {"epochs": 3}}).optimisation.epochs
        3
    """
    if not isinstance(value, dict):
        raise UserError(f"{path or 'a run'} must be a mapping of fields, not {describe(value)}")
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind) if f.init}
    arguments = {}
    for name, item in value.items():
        here = f"{path}.{name}" if path else str(name)
        if not isinstance(name, str) or name not in known:
            raise unknown_field(here, [f"{path}.{k}" for k in known] if path else [*known, *_leaf_names(Run())])
        classes = _members(hints[name])
        if classes and item is not None:
            arguments[name] = item
        if name in arguments and isinstance(item, dict):
            arguments[name] = build(_choose(classes, item, here, own_code=own_code), item, here, own_code=own_code)
        if name not in arguments:
            arguments[name] = _check_leaf(hints[name], item, here)
        elif not isinstance(item, dict):
            raise UserError(f"{here} must be a mapping of fields, not {describe(item)}{_hint_tag(classes, here, item)}")
    fields = dataclasses.fields(kind)
    required = {f.name for f in fields if f.init and f.default is f.default_factory is dataclasses.MISSING}
    if required - arguments.keys():
        raise UserError(f"{path or 'a run'} needs {' and '.join(sorted(required - arguments.keys()))}")
    try:
        return kind(**arguments)
    except (UserError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: {reason}" if path else reason) from None


def _hint_tag(classes: list[type], path: str, item: Any) -> str:
    """Return the question whether the name of a class was meant, for `model=resnet18`; "" where it cannot be."""
    tags = {f.name for kind in classes for f in dataclasses.fields(kind)} & {"name", "kind"}
    return f"; did you mean {path}.{min(tags)}={item}?" if tags and isinstance(item, str) else ""


def _leaf_names(run: Run) -> list[str]:
    return [path for path, _, _ in describe_fields(run)]


def _check_leaf(hint: Any, value: Any, path: str) -> Any:
    if get_origin(hint) is tuple and isinstance(value, str):  # as on the command line: clean,pgd-20
        value = [item.strip() for item in value.split(",")]
    elif get_origin(hint) is tuple and type(value) in (int, float):  # one milestone, say
        value = [value]
    if type(value) is bool and hint is not bool and bool not in get_args(hint):
        raise UserError(f"{path} must be {kind_of(hint).words}, not {value}")
    if hint in (float, float | None) and isinstance(value, str) and path.rpartition(".")[2] in _FRACTIONS:
        value = number(value, name=path)  # an objective of the user's own whose radius is a float
    if hint in (str, str | None) and type(value) in (int, float):  # YAML reads a name such as 2024 as a number
        value = str(value)
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError:
        if get_origin(hint) is Literal:
            raise nearest(path, str(value), map(str, get_args(hint))) from None
        words = "a mapping of fields" if _members(hint) else kind_of(hint).words
        raise UserError(f"{path} must be {words}, not {describe(value)}") from None


def to_dict(config: Any) -> Any:
    """Return a run as nested dictionaries, radii and steps as fractions of 255 if they are ones.

    Example:
        >>> to_dict(Run())["objective"]["attack"]["threat"]
        {'epsilon': '8/255', 'norm': 'Linf'}
    """
    if dataclasses.is_dataclass(config):
        pairs = ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config) if f.init)
        return {n: exact_255ths(v) if _is_fraction(n, v) else to_dict(v) for n, v in pairs}
    return list(config) if isinstance(config, tuple) else config


def _is_fraction(name: str, value: Any) -> bool:
    return name in _FRACTIONS and isinstance(value, float)


@checked
def dump(run: Run) -> str:
    """Return a run as YAML.

    Example:
        >>> load(dump(Run())) == Run()
        True
    """
    return str(yaml.safe_dump(to_dict(run), sort_keys=False))


def write_value(value: Any) -> str:
    """Return a value as it is written in a configuration or an override.

    Example:
        >>> write_value(None), write_value(["clean", "pgd-20"]), write_value("8/255")
        ('null', '[clean, pgd-20]', '8/255')
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


@checked
def load(text: str, *, source: str = "the configuration", own_code: bool = False) -> Run:
    """Read a run from YAML; fields that are left out have their defaults.

    Args:
        text: the YAML.
        source: where it comes from, for messages.
        own_code: as for `build`.

    Raises:
        UserError: not YAML, or an unknown field, a value of the wrong type, or code that is not allowed.

    Example:
        >>> load("name: mine").name
        'mine'
    """
    tree = parse(text, source=source)
    if isinstance(tree, dict):
        tree.pop("format", None)  # the config.yaml of a run folder begins with it
    run: Run = build(Run, tree, own_code=own_code)
    return run


def parse(text: str, *, source: str) -> Any:
    """Parse a YAML text; an empty one has no fields.

    Example:
        >>> parse("seed: 3", source="the configuration")
        {'seed': 3}
    """
    value = parse_plain(text, source=source)
    return {} if value is None else value


@checked
def override(run: Run, assignments: Iterable[tuple[str, str]]) -> Run:
    """Return a run with fields replaced: ("objective.weight", "2") sets run.objective.weight.

    Replacing the field that names a class (objective.name, objective.inverse.kind, ...norm) switches to that class's
    defaults and keeps what means the same in both: the threat model, the attack's budget, radii, regularisers.
    ("objective.name", "mine.py:Pairing") imports the objective, which runs that file.

    Raises:
        UserError: an unknown field or a value of the wrong type.

    Example:
        >>> override(Run(), [("objective.inverse.radius", "8/255")]).objective.inverse.radius == 8 / 255
        True
        >>> override(Run(), [("objective.name", "trades")]).objective.name
        'trades'
    """
    tree = to_dict(run)
    for path, text in assignments:
        if path.split(".")[0] not in tree:
            raise unknown_field(path, _leaf_names(run), value=text)
        _assign(tree, path.split("."), parse_value(text, source=path), path)
    result: Run = build(
        Run, tree, own_code=True
    )  # the run has its code already, and what is named here is the caller's
    return result


def _assign(tree: dict[str, Any], keys: list[str], value: Any, path: str) -> None:
    kind: type = Run
    for depth, key in enumerate(keys[:-1]):
        here = ".".join(keys[: depth + 1])
        if key not in tree:
            raise nearest("field", here, [".".join([*keys[:depth], k]) for k in tree])
        classes = _members(get_type_hints(kind)[key])
        if not classes:
            raise UserError(f"{here} has no fields: cannot set {path}")
        if tree[key] is None:
            tree[key] = {_tag(classes): value if keys[-1] == _tag(classes) else next(iter(_tags(classes)))}
        switches = depth == len(keys) - 2 and len(classes) > 1 and keys[-1] == _tag(classes)
        if switches and value != tree[key][keys[-1]]:
            chosen = _choose(classes, {keys[-1]: value}, here, own_code=True)
            tree[key] = _switch_class(tree[key], chosen, keys[-1]) | {keys[-1]: value}
        tree, kind = tree[key], _choose(classes, tree[key], here, own_code=True)
    known = [f.name for f in dataclasses.fields(kind) if f.init]
    if keys[-1] not in known:
        raise unknown_field(path, [".".join([*keys[:-1], name]) for name in known])
    if path == "model.name" and value != tree["name"]:  # another architecture: its own width and activation
        tree.update({"width": Model.width, "activation": Model.activation})
    tree[keys[-1]] = value


def _switch_class(old: dict[str, Any], new: type, tag: str) -> dict[str, Any]:
    """Return the defaults of another class, but keep what means the same in both: threat, attack budget, radii."""
    names = {f.name for f in dataclasses.fields(new)}
    if tag == "norm":
        return dict(old)  # a threat model is its radius, which is checked when the run is built
    tree: dict[str, Any] = to_dict(new())
    for key in _KEPT & names & old.keys():
        tree[key] = old[key]
    if isinstance(attack := tree.get("attack"), dict) and isinstance(before := old.get("attack"), dict):
        attack |= {key: before[key] for key in _BUDGET if key in before and key in attack}
    return tree


def describe_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield every field of a run as (dotted path, value, description), read from the classes' docstrings.

    Example:
        >>> [row[0] for row in describe_fields(Run())][:3]
        ['name', 'seed', 'data.name']
    """
    documented = _arguments(type(config).__doc__ or "")
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from describe_fields(value, f"{prefix}{f.name}.")
        else:
            shown = exact_255ths(value) if _is_fraction(f.name, value) else to_dict(value)
            usual = "the class that the other fields belong to" if f.name in _TAGS else ""
            yield f"{prefix}{f.name}", shown, documented.get(f.name, usual)


def _arguments(doc: str) -> dict[str, str]:
    """Return the `Args:` section of a docstring, by name."""
    result: dict[str, str] = {}
    name = None
    inside = False
    for line in doc.splitlines():
        indent, text = len(line) - len(line.lstrip()), line.strip()
        if text == "Args:":
            inside = True
        elif inside and text and indent <= 4:
            break
        elif inside and indent == 8 and ":" in text:
            name, _, first = text.partition(":")
            result[name] = first.strip()
        elif inside and name and text:
            result[name] += f" {text}"
    return result
