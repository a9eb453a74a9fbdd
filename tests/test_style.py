"""The house rules that a machine can hold: short functions, short files, nothing untrusted executed or unpickled."""

import ast
from collections.abc import Iterator

import pytest

from support.paths import SRC

FILES = sorted(SRC.rglob("*.py"))
LONGEST_FUNCTION = 40  # lines, the docstring not counted
LONGEST_FILE = 330

EXECUTES = {"eval", "exec", "compile", "__import__"}
UNPICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SAFE_YAML = {"SafeLoader", "CSafeLoader", "yaml.SafeLoader", "yaml.CSafeLoader"}

TEXTS = {str(file.relative_to(SRC)): file.read_text() for file in FILES}


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


def dangers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) for all that would run or unpickle what a file says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").split(".")[0]}
            if node.module == "torch" and any(alias.name == "load" for alias in node.names):
                yield node.lineno, "from torch import load"
        elif isinstance(node, ast.Call):
            names = set()
            yield from ((node.lineno, what) for what in dangers_of_call(node))
        else:
            continue
        yield from ((node.lineno, f"import {name}") for name in names & UNPICKLES)


def dangers_of_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name.removeprefix("builtins.") in EXECUTES:
        yield name
    if name == "torch.load" and given.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if given.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"
    if name.startswith("yaml.") and name.endswith(("unsafe_load", "unsafe_load_all", "full_load", "full_load_all")):
        yield name
    if name in {"yaml.load", "yaml.load_all"}:
        loaders = {given.get("Loader"), *(ast.unparse(argument) for argument in node.args[1:2])}
        if not loaders & SAFE_YAML:
            yield f"{name} without SafeLoader"


def test_functions_are_short():
    functions = [
        (name, node)
        for name, text in TEXTS.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = {f"{name}:{f.lineno} {f.name}": length(f) for name, f in functions if length(f) > LONGEST_FUNCTION}
    assert not long, f"longer than {LONGEST_FUNCTION} lines: {long}"


def test_files_are_short():
    long = {name: lines for name, text in TEXTS.items() if (lines := len(text.splitlines())) > LONGEST_FILE}
    assert not long, f"longer than {LONGEST_FILE} lines: {long}; turn the module into a folder of the same name"


def test_nothing_untrusted_is_run():
    found = {name: list(dangers(ast.parse(text))) for name, text in TEXTS.items()}
    assert not {name: what for name, what in found.items() if what}


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "exec(text)",
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
    ],
)
def test_a_danger_is_seen(source):
    assert list(dangers(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile('a')",
        "torch.compile(model)",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "yaml.load(text, Loader=SafeLoader)",
        "yaml.safe_load(text)",
    ],
)
def test_what_is_harmless_passes(source):
    assert not list(dangers(ast.parse(source)))
