"""`uiat recipes`: the settings and the methods that recipes are made of, or every field of one recipe."""

from typing import Annotated, Any

import typer
from rich.console import Console

from uiat import recipes as recipe_list
from uiat.cli.output import AsJson, console, fields, json_printed, table
from uiat.config import yaml_io
from uiat.errors import nearest
from uiat.formatting import threat_record
from uiat.recipes import METHODS, SETTINGS, SINGLE, Method, Setting
from uiat.recipes.single import SingleRecipe


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A recipe, to list every field of; or a word, to list the recipes that it stands in.",
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """List settings and methods, or every field of a recipe.

    Example: uiat recipes cifar10-small-uiat

    Example: uiat recipes one-off
    """
    out = console()
    if json:
        with json_printed(True) as give:
            give(_one_to_json(name) if name in recipe_list.names() else _all_to_json(name or ""))
    elif name is None:
        _show_tables(out)
    elif name in recipe_list.names():
        _show_recipe(name, out)
    else:
        _show_matching(name, out)


def _one_to_json(name: str) -> dict[str, Any]:
    run = recipe_list.get(name)
    described = [{"field": path, "value": value, "about": about} for path, value, about in yaml_io.describe_fields(run)]
    return {
        "kind": "recipe",
        "name": name,
        "about": recipe_list.describe(name),
        "config": yaml_io.to_dict(run),
        "fields": described,
    }


def _all_to_json(word: str) -> dict[str, Any]:
    """Return the recipes with a word in them, or all, and the settings and methods that they are made of."""
    pairs = [(s, m) for s in SETTINGS.values() for m in METHODS.values() if _has_word(word, s, m)]
    names = [f"{s.name}-{m.name}{ending}" for s, m in pairs for ending in ("", *(f"-{each}" for each in s.others))]
    names += [each.name for each in _singles(word)]
    if not names:
        raise nearest("recipe", word, recipe_list.names())
    settings, methods = {s.name: s for s, _ in pairs}.values(), {m.name: m for _, m in pairs}.values()
    return {
        "kind": "recipes",
        "recipes": [{"name": name, "about": recipe_list.describe(name)} for name in names],
        "settings": [_setting_to_json(setting) for setting in settings],
        "methods": [{"name": method.name, "about": method.about, "base": method.base} for method in methods],
    }


def _setting_to_json(setting: Setting) -> dict[str, Any]:
    schedules = {"": setting.optimisation, **setting.others}
    return {
        "name": setting.name,
        "about": setting.about,
        "cost": setting.cost,
        "data": setting.data.name,
        "images": setting.data.subset,
        "model": setting.model.name,
        "threat": threat_record(setting.attack.threat),
        "steps": setting.steps,
        "epochs": {name: schedule.epochs for name, schedule in schedules.items()},
    }


def _show_recipe(name: str, out: Console) -> None:
    out.print(recipe_list.describe(name) + "\n", soft_wrap=True)
    out.print(fields(yaml_io.describe_fields(recipe_list.get(name))))
    out.print("\nany field can be replaced: uiat train " + f"{name} FIELD=VALUE", soft_wrap=True)


def _show_tables(out: Console) -> None:
    out.print("Any SETTING-METHOD is a recipe: uiat recipes NAME lists its fields, uiat recipes WORD finds some.")
    columns = ("setting", "data", "model", "trained against", "epochs", "takes")
    out.print(table(*columns, rows=map(_setting_row, SETTINGS.values()), narrow=True))
    shown = [(method.name, method.about) for method in METHODS.values() if method.base is None]
    out.print(table("method", "what it is", rows=shown, narrow=True))
    bases = ", ".join(str(base) for base in dict.fromkeys(method.base for method in METHODS.values()) if base)
    out.print(
        f"  -uiat, -uiat-one-off    after {bases}: UIAT on that attack\n"
        "  -b, -c                  after cifar10-resnet18-uiat, say: the second and third length\n"
        + "".join(f"  {single.name:<24}{single.about}\n" for single in SINGLE.values()).rstrip(),
        soft_wrap=True,
    )


def _setting_row(setting: Setting) -> tuple[str, ...]:
    data, epochs = setting.data, str(setting.optimisation.epochs)
    name = data.name.removeprefix("imagefolder:")
    images = name if data.subset is None else f"{data.subset // 1000}k of {name}"
    attack = f"Linf {setting.epsilon}, PGD-{setting.steps}"
    epochs += "".join(f"/{schedule.epochs}" for schedule in setting.others.values())
    model = setting.model.name.rpartition(":")[2].partition("_patch")[0]  # as much of it as fits on a screen
    return setting.name, images, model, attack, epochs, setting.cost


def _show_matching(word: str, out: Console) -> None:
    """List the recipes with a word in their names or sentences; settings with the same methods together."""
    settings_by_methods: dict[tuple[str, ...], list[Setting]] = {}
    for setting in SETTINGS.values():
        methods = tuple(method.name for method in METHODS.values() if _has_word(word, setting, method))
        settings_by_methods.setdefault(methods, []).append(setting)
    settings_by_methods.pop((), None)
    singles = _singles(word)
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


def _singles(word: str) -> list[SingleRecipe]:
    return [each for each in SINGLE.values() if word.lower() in f"{each.name} {each.about}".lower()]


def _has_word(word: str, setting: Setting, method: Method) -> bool:
    texts = (f"{setting.name}-{method.name}", setting.about, setting.model.name, method.about)
    return any(word.lower() in text.lower() for text in texts)
