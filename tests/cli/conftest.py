"""A small run folder, and commands in this process."""

import shutil
from pathlib import Path

import jaxtyping
import pytest

from uiat.cli import main

TINY = ["model.width=4", "optimisation.epochs=1", "objective.attack.steps=2", "validation.steps=2"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run folder, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    jaxtyping.config.update("jaxtyping_disable", True)  # typer's context is not of the class it names for annotations
    try:
        assert main(["train", "digits-uiat", *TINY, "--run-dir", str(folder)]) == 0
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, for tests that do."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def ask(capsys, unchecked, monkeypatch):
    """Run a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.delenv("COLUMNS", raising=False)  # output as into a pipe, whatever terminal runs the tests

    def ask(*words):
        code = main([str(word) for word in words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return ask
