"""Run folders: what is in them, what they refuse, and what happens when the disk does."""

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
from uiat import Data, Run, UserError
from uiat.data import Folder, from_tensors, load
from uiat.runs.folder import check_new_folder, make_folder
from uiat.runs.settings import read_config, read_run
from uiat.runs.writer import fingerprint
from uiat.system.atomic_files import read_tensors
from uiat.training.setup import as_image_set, load_datasets, model_spec, own_data, pick_device


def test_a_folder_holds_the_run(tmp_path):
    run = tiny.run(seed=7)
    folder = make_folder(run, tmp_path / "deep" / "down")
    assert read_run(folder) == run
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "environment.json"]


def test_a_folder_that_exists_is_refused(tmp_path):
    with pytest.raises(UserError, match="exists and is never overwritten"):
        make_folder(Run(), tmp_path)
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="exists and is never overwritten"):
            check_new_folder(taken)
    with pytest.raises(UserError, match="never overwritten"):
        make_folder(Run(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot make the run folder .*: Not a directory"):
        make_folder(Run(), tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that is read-only to everyone")
def test_a_read_only_file_system():
    with pytest.raises(UserError, match="cannot make the run folder /proc/uiat-run"):
        uiat.train(tiny.run(), run_dir="/proc/uiat-run")


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


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name open files")


@needs_proc
def test_a_disk_that_is_full_at_the_start_leaves_nothing(tmp_path, monkeypatch):
    full(monkeypatch)
    with pytest.raises(UserError, match=r"cannot write .*config.yaml: No space left on device"):
        uiat.train(tiny.run(), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@needs_proc
@pytest.mark.parametrize("name", ["checkpoint", "best", "last", "inverse", "metrics"])
def test_a_disk_that_fills_up_keeps_the_previous_checkpoint(name, tmp_path, monkeypatch):
    run = tiny.run(epochs=2)
    full(monkeypatch, writes=3 if name == "checkpoint" else 0, name=name)
    with pytest.raises(UserError, match=rf"cannot write .*{name}.*: No space left on device"):
        uiat.train(run, run_dir=tmp_path / "run")
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]
    assert read_tensors(tmp_path / "run" / "checkpoint.safetensors")[1]["meta"]["epoch"] == 0 or name == "checkpoint"
    monkeypatch.undo()
    uiat.resume(tmp_path / "run")
    uiat.train(run, run_dir=tmp_path / "whole")
    assert tiny.differences(tmp_path / "whole", tmp_path / "run") == []


def test_a_folder_that_vanishes_during_training(tmp_path):
    vanish = Killer(4, action=lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(UserError, match=r"cannot write .*No such file or directory"):
        uiat.train(tiny.run(), run_dir=tmp_path / "run", listener=vanish)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not a text file"),
        (b"a: [", "is not valid YAML"),
        (b"- 1\n- 2\n", "must be a mapping"),
        (b"seeed: 3", "did you mean 'seed'"),
        (b"seed: many", "seed should be"),
        (b"!!python/object/apply:os.system ['true']", "is not valid YAML"),
        (b"objective: {name: uiats}", "did you mean 'uiat'"),
        (b"optimisation: {epochs: 0}", "epochs must be at least 1"),
    ],
)
def test_settings_that_cannot_be_read(content, message, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    for act in (read_run, uiat.resume):
        with pytest.raises(UserError, match=message):
            act(tmp_path)


def test_what_is_no_run_folder(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it has no config.yaml"):
        uiat.resume(tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        read_config(tmp_path / "missing.yaml")


# A run goes on as it began


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
def test_what_does_not_decide_the_weights_may_be_edited(field, value, interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path / "run")
    edit(tmp_path / "run" / "config.yaml", field, value)
    with uiat.trainer.reopened(tmp_path / "run") as training:
        assert training.position == 0
        assert training.epoch == 1


def test_other_data_under_the_same_name_is_refused(interrupted, monkeypatch):
    def other(data, seed):
        training_set, held_out = load_datasets(data, seed)
        images = training_set.images.clone()
        images[0, 0, 0, 0] = 1 - images[0, 0, 0, 0]
        return replace(training_set, images=images), held_out

    monkeypatch.setattr("uiat.training.api.datasets", other)
    with pytest.raises(UserError, match=r"the training set is not the one that .* was trained on"):
        uiat.resume(interrupted)


def test_identity():
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


# Data and models


def test_datasets():
    training_set, held_out = load_datasets(Data(name="digits", validation=100, subset=300), 3)
    assert (len(training_set), len(held_out)) == (300, 100)
    again, other = (load_datasets(Data(name="digits", validation=100, subset=300), seed) for seed in (3, 4))
    assert torch.equal(again[0].images, training_set.images)
    assert not torch.equal(other[0].images, training_set.images)
    pixels = {image.numpy().tobytes() for image in training_set.images}
    test, _ = uiat.data.tensors("digits", "test")
    assert not pixels & {image.numpy().tobytes() for image in held_out.images}
    assert len(pixels & {image.numpy().tobytes() for image in test}) < 3  # but for images that are there twice


def test_as_image_set():
    x, y = tiny.tensors()
    data = load("digits", "train")
    assert as_image_set(data) is data
    assert len(as_image_set((x, y))) == 64
    assert len(as_image_set(torch.utils.data.TensorDataset(x, y))) == 64


def test_own_data_holds_some_out():
    training_set, held_out = own_data(tiny.tensors(), None, seed=0)
    assert (len(training_set), len(held_out)) == (60, 4)
    whole, given = own_data(tiny.tensors(), tiny.tensors(8), seed=0)
    assert (len(whole), len(given)) == (64, 8)


def test_model_spec():
    data = load("digits", "train")
    spec = model_spec(tiny.run(), data)
    assert spec["image_shape"] == [1, 8, 8]
    assert spec["width"] == 4
    assert spec["mean"][0] == pytest.approx(float(data.images.mean()), abs=1e-3)
    assert "activation" not in spec


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "mps:7", "meta"])
def test_devices_that_are_not_here(name):
    with pytest.raises(UserError, match="cannot be used here"):
        pick_device(name)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
