"""Files to write to that hold something else are refused before anything is done."""

import errno
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from uiat.errors import UserError
from uiat.experiments.output_files import check_results, check_writable
from uiat.system import atomic_folder

OPTIONS = ("--json", "--save-examples", "--robustbench-json", "--log-file")
OWN_FILES = (
    "config.yaml",
    "best.safetensors",
    "metrics.jsonl",
    "evaluation.json",
    "evaluation-7.json",
    "manifest.json",
)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_takes_the_place_of_a_file_of_a_run(option, ask, run, tmp_path):
    before = contents(run)
    (tmp_path / "link").symlink_to(run / "config.yaml")
    for path in (*(run / name for name in OWN_FILES), tmp_path / "link"):
        code, _, err = ask("evaluate", run, "--attacks", "clean", "--n", 5, option, path)
        assert (code, err.count("\n")) == (2, 1)
        assert f"{option} {path} is a file of a run or a sweep, and would be overwritten" in err
    assert contents(run) == before


def test_no_two_options_write_one_file(ask, run, tmp_path):
    words = ["evaluate", run, "--attacks", "clean", "--n", 5]
    first, again = tmp_path / "a.json", tmp_path / "run" / ".." / "a.json"
    for one, other in itertools.pairwise(OPTIONS):
        code, _, err = ask(*words, one, first, other, again)
        assert code == 2
        assert f"both {one} and {other} are {first}: one would overwrite the other" in err
    assert not first.exists()


def test_what_the_command_reads_and_its_own_results_are_kept(ask, own, tmp_path):
    words = ["evaluate", *own, "--attacks", "clean", "--n", 5, "--out", tmp_path]
    assert "is the file of --weights" in ask(*words, "--json", "w.pth")[2]
    assert "is a file of a run" in ask(*words, "--robustbench-json", "evaluation.json")[2]
    (tmp_path / "sweep.json").write_text("{}")
    assert "is a file of a run or a sweep" in ask(*words, "--json", "sweep.json")[2]
    code, _, err = ask(*words, "--json", "best.json", "--log-file", "log.txt")
    assert (code, err) == (0, "")


CODE = """
import torch

def attack(model, x, y):
    return x

def images(split):
    return torch.zeros(4, 1, 8, 8), torch.zeros(4).long()
"""
WRITTEN_OVER = {
    "data": (["--data", "npz:set.npz"], "--json", "set.npz", "is the file of --data"),
    "data of code": (["--data", "code.py:images"], "--save-examples", "code.py", "is the file of --data"),
    "model": ([], "--robustbench-json", "mine.py", "is the file of --model"),
    "model and log": ([], "--log-file", "mine.py", "is the file of --model"),
    "attack": (["--attacks", "clean,code.py:attack"], "--json", "code.py", "is the file of --attacks"),
    "weights by another name": ([], "--log-file", "hard.log", "is the file of --weights"),
    "foreign": ([], "--json", "set.npz", "set.npz exists and is not an evaluation in JSON: name another file"),
    "foreign JSON": ([], "--json", "some.json", "some.json exists and is not an evaluation in JSON"),
    "foreign entry": ([], "--robustbench-json", "theirs.json", "exists and is not a record for RobustBench"),
    "foreign tensors": ([], "--save-examples", "set.npz", "exists and is not a file of saved examples"),
    "foreign log": ([], "--log-file", "some.json", "exists and is not a log, whose name ends in .log or .txt"),
    "link": ([], "--json", "link.json", "cannot write link.json: it is a link: name the file itself"),
    "link to nowhere": ([], "--json", "nowhere.json", "it is a link: name the file itself"),
}


@pytest.mark.parametrize(("words", "option", "path", "says"), WRITTEN_OVER.values(), ids=WRITTEN_OVER)
def test_no_input_and_no_foreign_file_is_overwritten(words, option, path, says, ask, own, tmp_path):
    np.savez("set.npz", x_test=np.zeros((4, 8, 8), np.uint8), y_test=np.arange(4), x_train=0, y_train=0)
    Path("code.py").write_text(CODE)
    Path("some.json").write_text('{"accuracy": 0.5, "threat": "none", "n": 3}')
    Path("theirs.json").write_text('{"clean_acc": "90.00", "footnote": "see the paper"}')
    os.link("w.pth", "hard.log")
    Path("link.json").symlink_to("some.json")
    Path("nowhere.json").symlink_to("missing")
    before = contents(tmp_path)
    code, out, err = ask("evaluate", *own, "--attacks", "clean", "--n", 4, *words, option, path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert contents(tmp_path) == before


def test_what_the_settings_of_a_run_name_is_kept(ask, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("extra.log").write_text("images")
    settings = run / "config.yaml"
    settings.write_text(settings.read_text().replace("extra: null", "extra: extra.log"))
    code, _, err = ask("evaluate", run, "--attacks", "clean", "--n", 4, "--log-file", "extra.log")
    assert (code, err.count("\n")) == (2, 1)
    assert f"--log-file extra.log is the file of data.extra of {run}, and would be overwritten" in err


def test_what_an_option_wrote_or_an_empty_file_is_written_again(ask, run, tmp_path):
    files = [tmp_path / name for name in ("a.json", "a.safetensors", "bench.json", "logged")]
    for file in files:
        file.touch()
    words = [word for pair in zip(OPTIONS, files, strict=True) for word in pair]
    for number in (1, 2, 3):
        assert ask("evaluate", run, "--attacks", "fgsm", "--n", 4 + number, *words)[::2] == (0, "")
        assert json.loads(files[0].read_text())["n"] == 4 + number
    assert files[3].read_text().count("initial accuracy: ") == 3


@pytest.fixture
def read_only(monkeypatch):
    """As a folder of somebody else's: the tests may run as root, who may write everywhere."""

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(atomic_folder, "create_file", refuse)


def test_a_folder_of_somebody_elses_is_refused_with_what_helps(read_only, ask, trained, tmp_path):
    before = contents(trained)
    code, out, err = ask("evaluate", trained, "--n", 8)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "evaluation.json: Permission denied; --out DIR gives the result a folder of its own" in err
    assert contents(trained) == before
    with pytest.raises(UserError, match="Permission denied; choose another --out"):
        check_results(tmp_path, is_run=False)
    with pytest.raises(UserError, match=r"cannot write .*a\.json: Permission denied$"):
        check_writable({"--json": tmp_path / "a.json"})


def test_a_folder_in_the_place_of_the_result_is_refused_before_the_work(ask, run, monkeypatch):
    (run / "evaluation.json").mkdir()
    monkeypatch.setattr("uiat.cli.evaluate.load_target", lambda options: pytest.fail("it was not refused before"))
    code, _, err = ask("evaluate", run)
    assert (code, err.count("\n")) == (2, 1)
    assert "evaluation.json: it is a folder; --out DIR gives the result a folder of its own" in err
