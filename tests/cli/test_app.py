"""`uiat` itself: its help, its mistakes, its faults, and the readers of what it prints."""

import sys
from pathlib import Path

import pytest

import uiat
from support.commands import process


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(ask, words):
    code, out, err = ask(*words)
    assert (code, err) == (0, "")
    assert all(name in out for name in ("train", "evaluate", "show", "recipes", "paper", "Exit codes"))


@pytest.mark.parametrize("command", ["train", "evaluate", "show", "recipes", "paper"])
def test_every_command_has_help(ask, command):
    code, out, err = ask(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: uiat {command}")


def test_version(ask):
    code, out, _ = ask("--version")
    assert code == 0
    assert out.startswith("uiat")


MISTAKES = {
    "command": (["recpes"], "unknown command 'recpes'; did you mean 'recipes'"),
    "option before": (["--verson"], "--verson"),
    "no recipe": (["train"], "name a recipe"),
    "recipe": (["train", "digits-uait"], "did you mean 'digits-uiat'"),
    "two recipes": (["train", "digits-uiat", "digits-iat"], "unexpected 'digits-iat'"),
    "field": (["train", "digits-uiat", "objective.wieght=2"], "did you mean 'objective.weight'"),
    "value": (["train", "digits-uiat", "objective.weight=abc"], "objective.weight must be a number, not 'abc'"),
    "choice": (["train", "digits-uiat", "data.augment=flip"], "unknown data.augment 'flip'"),
    "group": (["train", "digits-uiat", "--objective", "uiat"], "objective must be a mapping"),
    "no value": (["train", "digits-uiat", "--objective.weight"], "--objective.weight needs a value"),
    "no value but an option": (["train", "digits-uiat", "--objective.weight", "--seed=1"], "needs a value"),
    "option": (["train", "digits-uiat", "--run-dri", "x"], "did you mean '--run-dir'"),
    "short option": (["train", "digits-uiat", "-x"], "unknown option '-x'"),
    "option without value": (["train", "digits-uiat", "--run-dir"], "--run-dir"),
    "pixels": (["train", "digits-uiat", "objective.attack.threat.epsilon=8"], 'did you mean "8/255"'),
    "batch size": (["train", "digits-uiat", "data.batch_size=5000"], "larger than the set"),
    "model": (["train", "digits-uiat", "model.name=small-cn"], "did you mean 'small-cnn'"),
    "data": (["train", "digits-uiat", "data.name=digit"], "did you mean 'digits'"),
    "device": (["train", "digits-uiat", "compute.device=nonsense"], "device 'nonsense' cannot be used"),
    "file": (["train", "--config", "missing.yaml"], "cannot read missing.yaml"),
    "recipe and file": (["train", "digits-uiat", "--config", "missing.yaml"], "give one of them"),
    "resume nothing": (["train", "--resume", "missing"], "missing is not a run folder"),
    "resume and recipe": (["train", "digits-uiat", "--resume", "missing"], "--resume takes no recipe"),
    "resume and override": (["train", "--resume", "missing", "seed=1"], "--resume takes no recipe"),
    "evaluate nothing": (["evaluate"], "RUN"),
    "evaluate a missing run": (["evaluate", "missing"], "missing is not a run folder"),
    "show a missing run": (["show", "missing"], "missing is not a run folder"),
    "missing recipe": (["recipes", "digits-uait"], "did you mean 'digits-uiat'"),
    "too many words": (["show", "a", "b"], "b"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(ask, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = ask(*words)
    assert (code, out) == (2, "")
    assert err.startswith("uiat: error: ")
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_fault_shows_its_traceback(ask, monkeypatch):
    def broken(name):
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(uiat.recipes, "get", broken)
    code, _, err = ask("recipes", "digits-uiat")
    assert code == 1
    assert "Traceback" in err
    assert err.splitlines()[-1] == "uiat: fault: RuntimeError: a fault of the program"


def test_a_model_that_ends_the_program_is_a_mistake_and_not_a_closed_pipe(ask, monkeypatch):
    monkeypatch.setattr(uiat.recipes, "get", lambda name: sys.exit(0))
    code, _, err = ask("recipes", "digits-uiat")
    assert (code, err.splitlines()[-1]) == (
        2,
        "uiat: error: a model or an attack ended the program when it was called (SystemExit: 0)",
    )


def test_a_reader_that_has_seen_enough_is_no_trouble():
    listing = process("recipes")
    listing.stdout.close()
    assert listing.stderr.read() == ""
    assert listing.wait(timeout=200) == 141
    listing.stderr.close()


def test_a_folder_that_may_not_be_entered_is_one_line(ask, tmp_path, monkeypatch):
    def is_file(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", is_file)
    code, _, err = ask("show", tmp_path)
    assert (code, err) == (2, f"uiat: error: cannot use {tmp_path / 'config.yaml'}: Permission denied\n")
