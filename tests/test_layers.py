"""Imports inside the package point one way: a module may import those listed above it, and no others."""

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src" / "uiat"

# From the ground up. A folder counts as one module; every module has to be here.
ORDER = [
    *(
        "errors",
        "intervals",
        "shapes",
        "checks",
        "system",
        "threat",
        "losses",
        "formatting",
        "markup",
        "models",
        "modes",
        "data",
    ),
    *("speed", "attacks", "inverse", "certify", "evaluation", "compat", "objectives", "config", "runs"),
    *("report", "recipes", "training", "experiments", "explore", "analyse", "api", "cli", "__main__"),
]

# Where "everything above it" would be too much.
GROUND = {"errors", "intervals", "shapes", "checks", "system", "threat", "losses", "models"}
ONLY = {
    "errors": set(),
    "intervals": set(),
    "shapes": set(),
    "checks": {"errors", "shapes"},
    "system": {"errors", "shapes"},
    "threat": {"errors", "shapes", "checks"},
    "losses": {"errors", "shapes", "checks"},
    "markup": {"errors"},
    "models": {"errors", "shapes", "checks", "system"},
    "modes": {"models"},
    "data": {"errors", "shapes", "checks", "system"},
    "speed": {"errors", "shapes", "checks", "system", "models", "data"},
    "attacks": GROUND,
    "certify": GROUND | {"formatting"},  # never attacks: the two are held against each other
    # never objectives: a defence cannot influence its evaluation
    "evaluation": GROUND | {"formatting", "data", "speed", "attacks", "inverse"},
    "compat": {"errors", "threat", "attacks", "evaluation"},
    "report": {"errors", "system", "formatting", "markup", "runs"},  # reads files only
}

# Used by single readers or optional: only ever imported inside the function that needs it.
LATE = {
    *("torchvision", "sklearn", "PIL", "matplotlib", "jaxtyping", "timm", "tensorboard", "datasets"),
    *("onnxruntime", "onnxscript", "huggingface_hub", "wandb", "mlflow", "trackio", "optuna"),
}
# A package that is imported late as a whole may import these at once: its own beginning answers where they are missing.
EARLY = {"report": {"PIL", "jinja2"}}

FILES = sorted(SRC.rglob("*.py"))


def module_of(file: Path) -> str:
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def imported(file: Path, nodes: list[ast.AST]) -> Iterator[str]:
    """Absolute dotted names of all that the nodes import, relative imports resolved."""
    package = ("uiat", *file.relative_to(SRC).parts[:-1])
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def breach(file: Path) -> str:
    """What a module imports that is not below it; "" for nothing."""
    module = module_of(file)
    if module == "__init__":
        return ""  # the public API gathers from everywhere
    if module not in ORDER:
        return f"new module {module}: give it its place in ORDER of {Path(__file__).name}"
    allowed = ONLY.get(module, set(ORDER[: ORDER.index(module)])) | {module}
    names = imported(file, list(ast.walk(ast.parse(file.read_text()))))
    used = {[*name.split("."), ""][1] for name in names if name.split(".")[0] == "uiat"}
    return f"{file} imports {sorted(used - allowed)}, which are not below it (or not modules)" if used - allowed else ""


def test_imports_point_one_way():
    assert not list(filter(None, map(breach, FILES)))


def early_imports(file: Path) -> set[str]:
    """The packages that a module imports outside of functions and should not."""
    tree = ast.parse(file.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    names = imported(file, [node for node in ast.walk(tree) if id(node) not in inside])
    return {name.split(".")[0] for name in names} & LATE - EARLY.get(module_of(file), set())


def test_optional_packages_are_imported_late():
    early = {str(file.relative_to(SRC)): early_imports(file) for file in FILES}
    assert not {name: packages for name, packages in early.items() if packages}, (
        "import inside the function that uses it"
    )


def test_restrictions_agree_with_the_order():
    for module, allowed in ONLY.items():
        assert allowed <= set(ORDER[: ORDER.index(module)]), module
