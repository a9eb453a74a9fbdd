"""The options of `uiat evaluate` are the fields of one dataclass."""

import dataclasses

import typer

from uiat.cli.app import application
from uiat.experiments import EvaluateOptions

FLAGS = [
    "--model",
    "--width",
    "--weights",
    "--normalize",
    "--data",
    "--data.root",
    "--image-size",
    "--n",
    "-n",
    "--which",
    "--threat",
    "--attacks",
    "--batch-size",
    "--seed",
    "--calls",
    "--wrong-calls",
    "--until",
    "--device",
    "--own-code",
    "--changed-code",
    "--transfer",
    "--transfer-own-code",
    "--epsilons",
    "--sweep-attack",
    "--certify",
    "--norms",
    "--norms-attack",
    "--corruptions",
    "--corruption-files",
    "--out",
    "--resume",
    "--json",
    "--save-examples",
    "--robustbench-json",
    "--verbose",
    "-v",
    "--log-file",
    "--help",
    "-h",
]


def test_flags_are_those_of_before():
    command = typer.main.get_command(application("evaluate")).commands["evaluate"]
    flags = [flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")]
    flags += [flag for parameter in command.params for flag in parameter.secondary_opts]
    assert set(flags) == set(FLAGS) - {"--help", "-h"}


def test_every_option_says_what_it_is_in_a_sentence():
    for field in dataclasses.fields(EvaluateOptions):
        assert field.metadata["help"][0].isupper(), field.name
        assert field.metadata["help"].endswith("."), field.name


def test_each_reaches_its_field(ask, monkeypatch):
    seen = []
    monkeypatch.setattr("uiat.cli.evaluate._evaluate", lambda options, give: seen.append(options))
    words = ["runs/a", "-n", 5, "--data.root", "there", "--log-file", "log.txt", "--resume", "-v", "--which", "last"]
    assert ask("evaluate", *words)[0] == 0
    (options,) = seen
    assert isinstance(options, EvaluateOptions)
    assert (str(options.run), options.n, options.root, str(options.log)) == ("runs/a", 5, "there", "log.txt")
    assert (options.resume, options.verbose, options.which, options.seed) == (True, True, "last", 0)


def test_no_help_is_cut_off_at_80_columns(ask, monkeypatch):
    commands = list(typer.main.get_command(application()).commands)
    for words in ([], *([name] for name in commands)):
        monkeypatch.setenv("COLUMNS", "80")
        code, out, _ = ask(*words, "--help")
        assert code == 0
        assert "..." not in out.replace("]...", "").replace(",...,", "").replace("uiat train ...", ""), words
        assert "(that of" not in out
        assert max(map(len, out.splitlines())) <= 80
