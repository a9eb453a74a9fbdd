"""What a run folder from elsewhere may make this machine do, and what the files of a run say of where they are from."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import uiat
from support import tiny
from support.commands import TINY, environment
from uiat.models import build
from uiat.runs import checkpoint
from uiat.runs.config_file import read_settings
from uiat.training import setup


def change(folder, **settings):
    """Change fields of a run folder's config.yaml, given as data__root=..."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for name, value in settings.items():
        section, _, key = name.partition("__")
        config[section][key] = value
    path.write_text(yaml.safe_dump(config))
    (folder / "manifest.json").unlink(missing_ok=True)  # whoever makes a folder up leaves none that gives it away


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
def test_a_root_that_only_the_run_names_is_neither_made_nor_downloaded_into(ask, run, tmp_path, monkeypatch, name):
    monkeypatch.setattr("torchvision.datasets.utils.download_url", None)  # whatever calls it fails
    root = tmp_path / "elsewhere" / "data"
    change(run, data__name=name, data__root=str(root))
    out = tmp_path / "report.html"
    for words in (["show", run], ["report", run, "--out", out], ["evaluate", run], ["analyse", "strength", run]):
        code, said, err = ask(*words)
        assert code in (0, 2)
        assert not (tmp_path / "elsewhere").exists(), words
        if words[0] != "show":
            assert f"{name} is missing or damaged under {root}" in said + err
            assert "--data.root" in said + err
    assert sorted(path.name for path in tmp_path.iterdir()) in (["report.html", "report.md", "run"], ["run"])


def test_a_root_of_the_users_own_is_downloaded_into(monkeypatch):
    asked = []
    real = uiat.data.open_data
    monkeypatch.setattr(setup, "open_data", lambda *words, **how: asked.append(how) or real(*words, **how))
    data = uiat.Run().data  # digits, which need no files
    for root, given in ((None, None), (None, "mine"), ("theirs", None), ("theirs", "mine")):
        setup.open_split(replace(data, root=root), "test", root=given)
    assert [(how["root"], how["download"]) for how in asked] == [
        *((None, True), ("mine", True), ("theirs", False), ("mine", True))
    ]


CODE = """
import pathlib
from torch import nn

def net(*, num_classes, image_shape):
    pathlib.Path("ran").touch()
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""


@pytest.fixture
def coded(tmp_path, monkeypatch):
    """A run folder whose model is code."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CODE)
    spec = {"name": "mine.py:net", "num_classes": 10, "image_shape": [1, 8, 8]}
    (tmp_path / "coded").mkdir()
    checkpoint.save_weights(tmp_path / "coded" / "best.safetensors", build(**spec), spec=spec, threat=uiat.Linf(0.1))
    Path("ran").unlink()
    return tmp_path / "coded"


@pytest.mark.parametrize(
    ("flags", "runs"),
    [
        ([], False),
        (["--own-code"], False),
        (["--transfer-own-code"], True),
        (["--own-code", "--transfer-own-code"], True),
    ],
)
def test_to_trust_a_run_is_not_to_trust_the_one_of_transfer(ask, run, coded, flags, runs):
    code, _, err = ask("evaluate", run, "--attacks", "clean", "-n", 9, "--transfer", coded, *flags)
    assert (code == 0) is Path("ran").exists() is runs
    if not runs:
        assert f"--transfer {coded}: the run's model is code, 'mine.py:net': allow it with --transfer-own-code" in err


SECRETS = [
    "root:x:0:0:root:/root",
    "PASSWORD=hunter2",
    "[unclosed",
    "a: b: c",
    "- hunter2\n- two",
    "hunter2: 3",
    "\x00\x01",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("command", ["show", "report", "evaluate", "train", "analyse", "weights", "teacher", "extend"])
def test_an_error_about_a_linked_file_repeats_no_line_of_it(ask, run, tmp_path, secret, command):
    (tmp_path / "secret").write_text(secret)
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to(tmp_path / "secret")
    begin = ["--run-dir", tmp_path / "new", *TINY, "data.subset=64"]
    words = {
        "train": ["train", "--resume", run],
        "extend": ["train", "--resume", run, "optimisation.epochs=9"],
        "analyse": ["analyse", "strength", run],
        "weights": ["train", "digits-pgd-at", f"model.weights={run}", *begin],
        "teacher": ["train", "digits-ard", f"objective.teacher={run}", *begin],
    }
    code, out, err = ask(*words.get(command, [command, run]))
    assert code == 2
    assert str(run / "config.yaml") in err
    assert not any(word in out + err for word in ("hunter2", "root:x", "unclosed", "a: b"))


@pytest.mark.parametrize(
    ("name", "secret"), [("environment.json", '{"hunter2": {}}'), ("evaluation.json", '{"format": "hunter2"}')]
)
def test_an_error_about_a_linked_record_repeats_nothing_of_it(ask, run, tmp_path, name, secret):
    (tmp_path / "secret").write_text(secret)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "secret")
    (run / "manifest.json").unlink()
    code, out, err = ask("report", run, "--out", tmp_path / "page.html")
    assert (code, "hunter2" in out + err) == (2, False)
    assert f"{run / name} is a link to something that does not hold" in err


def test_a_warning_about_linked_settings_repeats_nothing_of_them(run, tmp_path, caplog):
    text = (run / "config.yaml").read_text()
    (tmp_path / "secret").write_text(re.sub("(?m)^name: .*", "name: hunter2", text))
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to(tmp_path / "secret")
    assert read_settings(run)["name"] == "hunter2"
    assert "config.yaml was edited: name" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.slow
def test_equal_runs_are_equal_files(tmp_path):
    words = ["digits-uiat", "data.subset=64", "model.width=4", "optimisation.epochs=1", "validation.steps=1"]
    for name in ("one", "two"):
        subprocess.run(
            [sys.executable, "-m", "uiat", "train", *words, "--run-dir", tmp_path / name],
            env=environment() | {"PYTHONHASHSEED": "random"},
            check=True,
            capture_output=True,
        )
    names = {path.name for path in (tmp_path / "one").iterdir()}
    timed = {
        "metrics.jsonl",
        "checkpoint.safetensors",
        "manifest.json",
    }  # these hold seconds, or the sums of those that do
    assert names - timed == {
        "config.yaml",
        "environment.json",
        "best.safetensors",
        "last.safetensors",
        "inverse.safetensors",
    }
    for name in names - timed:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert tiny.differences(tmp_path / "one", tmp_path / "two") == []


def test_the_environment_of_a_run_names_no_other_repository(tmp_path):
    """An environment inside a project's repository: that one's commit says nothing about the package."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "x"], cwd=tmp_path, check=True)
    package = tmp_path / "venv" / "uiat"
    shutil.copytree(Path(uiat.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from uiat.system.environment import describe_environment as d; import json; print(json.dumps(d()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    facts = json.loads(done.stdout)
    assert (facts["commit"], facts["torch"]) == (None, torch.__version__)
