"""`uiat recipes`: the settings and the methods that recipes are made of, or every field of one recipe."""

from typing import Annotated

import typer
from rich.console import Console

from uiat import recipes as recipe_list
from uiat.cli.output import console, fields, table
from uiat.config import yaml_io
from uiat.errors import nearest
from uiat.recipes import METHODS, SETTINGS, SINGLE, Method, Setting


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A recipe, to list every field of; or a word, to list the recipes that it stands in.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List settings and methods, or every field of a recipe.

    Example: uiat recipes cifar10-small-uiat

    Example: uiat recipes one-off
    """
    out = console()
    if name is None:
        _show_tables(out)
    elif name in recipe_list.names():
        _show_recipe(name, out)
    else:
        _show_matching(name, out)


def _show_recipe(name: str, out: Console) -> None:
    out.print(recipe_list.describe(name) + "\n", soft_wrap=True)
    out.print(fields(yaml_io.describe_fields(recipe_list.get(name))))
    out.print("\nany field can be replaced: uiat train " + f"{name} FIELD=VALUE", soft_wrap=True)


def _show_tables(out: Console) -> None:
    out.print("A recipe is SETTING-METHOD, such as cifar10-small-uiat; every method works in every setting.")
    columns = ("setting", "data", "model", "trained against", "epochs", "takes about")
    out.print(table(*columns, rows=map(_setting_row, SETTINGS.values()), narrow=True))
    shown = [(method.name, method.about) for method in METHODS.values() if method.base is None]
    out.print()
    out.print(table("method", "what it is", rows=shown, narrow=True))
    bases = ", ".join(str(base) for base in dict.fromkeys(method.base for method in METHODS.values()) if base)
    out.print(
        "\nOther names:\n"
        f"  -uiat, -uiat-one-off    after {bases}: UIAT on that attack\n"
        "  -b, -c                  after cifar10-resnet18-uiat, say: the second and third length, onecycle\n"
        + "".join(f"  {single.name:<24}{single.about}\n" for single in SINGLE.values())
        + "uiat recipes NAME lists every field of a recipe, uiat recipes WORD the recipes with a word in them.",
        soft_wrap=True,
    )


def _setting_row(setting: Setting) -> tuple[str, ...]:
    data, epochs = setting.data, str(setting.optimisation.epochs)
    images = data.name if data.subset is None else f"{data.subset // 1000}k of {data.name}"
    attack = f"Linf {setting.epsilon}, PGD-{setting.steps}"
    epochs += "".join(f"/{schedule.epochs}" for schedule in setting.others.values())
    return setting.name, images, setting.model.name, attack, epochs, setting.cost


def _show_matching(word: str, out: Console) -> None:
    """List the recipes with a word in their names or sentences; settings with the same methods together."""
    settings_by_methods: dict[tuple[str, ...], list[Setting]] = {}
    for setting in SETTINGS.values():
        methods = tuple(method.name for method in METHODS.values() if _has_word(word, setting, method))
        settings_by_methods.setdefault(methods, []).append(setting)
    settings_by_methods.pop((), None)
    singles = [each for each in SINGLE.values() if word.lower() in f"{each.name} {each.about}".lower()]
    if not settings_by_methods and not singles:
        raise nearest("recipe", word, recipe_list.names())
    for methods, settings in settings_by_methods.items():
        rows = [(f"{setting.name}-{'...' if len(methods) > 1 else methods[0]}", setting.about) for setting in settings]
        out.print(table("recipes", "what is trained", rows=rows, narrow=True))
        out.print()
        out.print(table("...", "how", rows=((name, METHODS[name].about) for name in methods), narrow=True))
        out.print()
    for single in singles:
        out.print(f"{single.name}: {single.about}", soft_wrap=True)
    if any(setting.others for settings in settings_by_methods.values() for setting in settings):
        out.print("recipes of the papers' settings: also with -b at the end, or -c, for their other schedules")


def _has_word(word: str, setting: Setting, method: Method) -> bool:
    texts = (f"{setting.name}-{method.name}", setting.about, setting.model.name, method.about)
    return any(word.lower() in text.lower() for text in texts)
