"""Fixtures for the tests of commands and of what they do: run folders, a user's own model, commands in this process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

import uiat
from support.paths import ROOT
from uiat.cli import main
from uiat.data import STATS

TINY = ["model.width=4", "optimisation.epochs=1", "objective.attack.steps=2", "validation.steps=2"]
UIAT = [sys.executable, "-m", "uiat"]
OWN = """
from torch import nn

def net(*, num_classes, image_shape):
    c, h, w = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, num_classes))
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run folder, for tests that do not change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
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


def fitted(*, normalized=False):
    """A linear classifier of the digits, fitted in a moment: to images in [0, 1], or to normalised ones."""
    x, y = uiat.data.tensors("digits", "train")
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in STATS["digits"])
    x = (x - mean) / std if normalized else x
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The options of a model of the user's own; its code and weights lie in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN)
    torch.save({"state_dict": {f"module.{k}": v for k, v in fitted().state_dict().items()}}, "w.pth")
    return ["--model", "mine.py:net", "--weights", "w.pth", "--data", "digits", "--threat", "linf:8/255"]


def result(folder):
    """What evaluation.json says."""
    return json.loads((folder / "evaluation.json").read_text())


def environment():
    """Of a process that runs the package as it lies here."""
    sources = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": sources, "NO_COLOR": "1"}


def process(*words, **options):
    """A command in a process of its own."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*UIAT, *map(str, words)], env=environment(), text=True, stdout=pipe, stderr=pipe, **options
    )


def folder_of_images(path, classes, *, names=None, each=1):
    """An image folder, with so many images of each class and split."""
    from PIL import Image

    for split in ("train", "test"):
        for label, name in enumerate(names or map(str, range(classes))):
            (path / split / name).mkdir(parents=True)
            for i in range(each):
                image = Image.new("L", (8, 8), 20 * label).convert("RGB")
                image.save(path / split / name / f"{'abcdefgh'[i]}.png")
