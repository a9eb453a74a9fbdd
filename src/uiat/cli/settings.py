"""One grammar for settings on a command line: FIELD=VALUE, --FIELD=VALUE or --FIELD VALUE."""

import dataclasses
from collections.abc import Sequence

import typer

from uiat.config import yaml_io
from uiat.config.field_names import find_fields
from uiat.config.schema import Run
from uiat.errors import UserError, nearest


def split_words(words: Sequence[str], *, options: Sequence[str] = ()) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the names among the words, and (field, value) pairs from the settings.

    Args:
        words: what is left of a command line when its options are taken out.
        options: the command's options, to answer a mistyped one with.

    Raises:
        UserError: an option that does not exist, or a setting without a value.

    Example:
        >>> split_words(["digits-uiat", "seed=1", "--objective.weight", "2"])
        (['digits-uiat'], [('seed', '1'), ('objective.weight', '2')])
    """
    names, assignments, rest = [], [], iter(words)
    for word in rest:
        path, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("-"):
            if equals:
                assignments.append((path, value))
            else:
                names.append(word)
            continue
        if "." not in path and path not in {field.name for field in dataclasses.fields(Run)}:
            raise _unknown_option(word, path, options)
        following = value if equals else next(rest, None)
        if following is None or (not equals and following.startswith("--")):
            raise UserError(f"{word} needs a value: {word} VALUE")
        assignments.append((path, following))
    return names, assignments


def split_recipe(context: typer.Context) -> tuple[str, list[tuple[str, str]]]:
    """Return the one recipe of a command line, and the settings.

    Raises:
        UserError: no recipe or several, an option that does not exist, or a setting without a value.
    """
    names, assignments = split_words(context.args, options=list_options(context))
    if not names:
        raise UserError(f"name a recipe (`uiat recipes` lists them): uiat {context.info_name} RECIPE [FIELD=VALUE]...")
    if len(names) > 1:
        raise UserError(f"unexpected {names[1]!r}: one recipe, then settings written FIELD=VALUE")
    return names[0], assignments


def list_options(context: typer.Context) -> list[str]:
    """Return the options of the command under way, such as --run-dir."""
    return [option for parameter in context.command.params for option in parameter.opts if option.startswith("-")]


def _unknown_option(word: str, path: str, options: Sequence[str]) -> UserError:
    """Return the error for an option; a short field, as in `--epochs 3`, is answered with the full one."""
    option = f"--{path}" if word.startswith("--") else word
    fields = find_fields(path, [name for name, _, _ in yaml_io.describe_fields(Run())], exact=True)
    if word.startswith("--") and fields:
        return UserError(f"unknown option {option!r}; did you mean --{' or --'.join(fields)}?")
    return nearest("option", option, options)
