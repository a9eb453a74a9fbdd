"""A run resumes as it began: a full disk loses nothing, and other settings or data are refused."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import uiat
from support import tiny
from support.tiny import Killed, Killer
from uiat import UserError
from uiat.data import Folder, from_tensors
from uiat.runs.writer import fingerprint
from uiat.system.tensor_files import read_tensors
from uiat.training.open_run import reopen_run
from uiat.training.setup import load_datasets


def full(monkeypatch, *, writes=0, name=""):
    """The disk is full, after some files whose names begin with `name` could be written."""
    sync, left = os.fsync, [writes]

    def fsync(number):
        path = Path(os.readlink(f"/proc/self/fd/{number}")).name
        if path.startswith(f".{name}"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(number)

    monkeypatch.setattr(os, "fsync", fsync)


RUN = tiny.run(epochs=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    uiat.train(RUN, run_dir=folder)
    return folder


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name open files")


@needs_proc
def test_a_disk_that_is_full_at_the_start_leaves_nothing(tmp_path, monkeypatch):
    full(monkeypatch)
    with pytest.raises(UserError, match=r"cannot write .*config.yaml: No space left on device"):
        uiat.train(tiny.run(), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@needs_proc
@pytest.mark.parametrize("name", ["checkpoint", "best", "last", "inverse", "metrics"])
def test_a_disk_that_fills_up_keeps_the_previous_checkpoint(name, whole, tmp_path, monkeypatch):
    full(monkeypatch, writes=3 if name == "checkpoint" else 0, name=name)
    with pytest.raises(UserError, match=rf"cannot write .*{name}.*: No space left on device"):
        uiat.train(RUN, run_dir=tmp_path / "run")
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    assert read_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]["meta"]["epoch"] == 0 or name == "checkpoint"
    monkeypatch.undo()
    uiat.resume(tmp_path / "run")
    assert tiny.differences(whole, tmp_path / "run") == []


def test_a_folder_that_vanishes_during_training(tmp_path):
    vanish = Killer(4, action=lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(UserError, match=r"cannot write .*No such file or directory"):
        uiat.train(tiny.run(), run_dir=tmp_path / "run", listener=vanish)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(Killed):
        uiat.train(tiny.run(data={"augment": "crop"}), run_dir=folder, listener=Killer(4))
    return folder


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.name", "mnist", "."),
        ("data.subset", 128, "data.subset was 96 and is 128"),
        ("data.batch_size", 16, "data.batch_size was 32 and is 16"),
        ("data.validation", 50, "data.validation was 40 and is 50"),
        ("data.augment", "none", "data.augment was 'crop' and is 'none'"),
        ("seed", 2, "seed was 1 and is 2"),
        ("model.width", 8, "model.width was 4 and is 8"),
        ("objective.weight", 1.0, "objective.weight was 3.5 and is 1.0"),
        ("objective.attack.threat.epsilon", 0.1, "objective.attack.threat.epsilon was '51/255' and is 0.1"),
        ("optimisation.epochs", 9, "optimisation.epochs was 2 and is 9"),
        ("optimisation.learning_rate", 1.0, "optimisation.learning_rate was 0.05 and is 1.0"),
        ("compute.precision", "bf16", "compute.precision was 'fp32' and is 'bf16'"),
    ],
)
def test_an_edited_run_is_refused(field, value, message, interrupted, monkeypatch):
    path = interrupted / "config.yaml"
    before = path.read_text()
    monkeypatch.setenv("UIAT_DATA", str(interrupted / "nowhere"))
    edit(path, field, value)
    try:
        with pytest.raises(UserError, match=message):
            uiat.resume(interrupted)
    finally:
        path.write_text(before)


def edit(path, field, value):
    tree = yaml.safe_load(path.read_text())
    *keys, last = field.split(".")
    branch = tree
    for key in keys:
        branch = branch[key]
    branch[last] = value
    path.write_text(yaml.safe_dump(tree))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "other"),
        ("data.root", "elsewhere"),
        ("data.workers", 0),
        ("compute.checkpoint_steps", None),
        ("compute.device", "auto" if not torch.cuda.is_available() else "cpu"),
        ("guards.chance_epochs", 1),
        ("evaluation.attacks", ["clean"]),
    ],
)
def test_settings_without_effect_on_the_weights_may_be_edited(field, value, interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path / "run")
    edit(tmp_path / "run" / "config.yaml", field, value)
    with reopen_run(tmp_path / "run") as training:
        assert training.position == 0
        assert training.epoch == 1


def test_other_data_under_the_same_name_is_refused(interrupted, monkeypatch):
    def other(data, seed, **_):
        training_set, held_out = load_datasets(data, seed)
        images = training_set.images.clone()
        images[0, 0, 0, 0] = 1 - images[0, 0, 0, 0]
        return replace(training_set, images=images), held_out

    monkeypatch.setattr("uiat.training.open_run.load_datasets", other)
    with pytest.raises(UserError, match=r"the training set is not the one that .* was trained on"):
        uiat.resume(interrupted)


def test_fingerprint():
    x, y = tiny.tensors()
    one = fingerprint(from_tensors(x, y))
    assert one == fingerprint(from_tensors(x.clone(), y.clone()))
    assert one["examples"] == 64
    assert one != fingerprint(from_tensors(x.flip(0), y))
    assert one != fingerprint(from_tensors(x, (y + 1) % 4))
    here, there, renamed = (
        Folder((f"{root}/a/{name}.png", f"{root}/b/2.png"), torch.tensor([0, 1]), ("a", "b"), "f", (3, 8, 8), None)
        for root, name in (("/here", "1"), ("/there", "1"), ("/here", "3"))
    )
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(renamed)
