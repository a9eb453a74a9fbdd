"""Runs with extra images: labels by a teacher, resumed bit for bit with a generator, and what is refused first."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import uiat
from support import tiny
from support.tiny import Killed, Killer
from uiat import UIAT, GeneratorInverse, UserError, models
from uiat.cli import main
from uiat.runs.checkpoint import save_weights
from uiat.system.tensor_files import read_tensors
from uiat.training.extra_images import BATCH, label_images
from uiat.training.open_run import reopen_run, start_run

GENERATOR = UIAT(attack=tiny.attack(), inverse=GeneratorInverse(radius=0.1, width=4), momentum="example")


def write(path, count=40, *, size=8, labels=None):
    images = np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)
    np.savez(path, image=images, label=np.arange(count) % 10 if labels is None else labels)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("extra") / "extra.npz"
    write(path)
    return path


def run_with(file, **data):
    data = {"extra": str(file), "extra_share": 0.5, "extra_labels": "teacher", "augment": "crop", **data}
    return tiny.run(objective=GENERATOR, data=data, average="ema", average_decay=0.5)


@pytest.fixture(scope="module")
def whole(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    uiat.train(run_with(file), run_dir=folder)
    return folder


def test_the_teachers_labels_are_kept(whole, file):
    labels = read_tensors(whole / "extra-labels.safetensors")[0]["labels"]
    images = torch.from_numpy(np.load(file)["image"])[:, None].float() / 255
    with torch.no_grad():
        assert torch.equal(labels, uiat.load(whole / "extra-teacher")(images).argmax(dim=1))
    settings = (whole / "extra-teacher" / "config.yaml").read_text()
    assert "name: standard" in settings
    assert "extra: null" in settings
    state = read_tensors(whole / "checkpoint.safetensors")[0]
    assert state["objective/p_bar"].shape == (96 + 40, 10)  # a row for each extra image too
    assert 30 < state["objective/visited"][96:].sum() <= 40  # 96 were drawn, never two of one in a batch
    assert uiat.load_generator(whole).last.weight.abs().max() > 0


def test_a_run_killed_while_its_teacher_trains_is_resumed_bit_for_bit(whole, file, tmp_path):
    with pytest.raises(Killed), start_run(run_with(file), run_dir=tmp_path / "run") as training:
        training.prepare_teacher(Killer(5))
    assert not (tmp_path / "run" / "extra-labels.safetensors").exists()
    uiat.resume(tmp_path / "run")
    for part in ("", "extra-teacher"):
        assert tiny.differences(whole / part, tmp_path / "run" / part) == []


def test_a_run_killed_after_its_teacher_is_resumed_without_it(whole, file, tmp_path):
    with pytest.raises(Killed):
        uiat.train(run_with(file), run_dir=tmp_path / "run", listener=Killer(4))
    shutil.rmtree(tmp_path / "run" / "extra-teacher")  # the labels are there
    uiat.resume(tmp_path / "run")
    assert tiny.differences(whole, tmp_path / "run") == []


def test_a_run_that_has_ended_needs_no_checkpoint_for_its_generator(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    with reopen_run(tmp_path / "run") as training:
        assert training.untrained_teachers == []
        kept = uiat.load_generator(whole)
        assert torch.equal(training.step.state.generator.last.weight, kept.last.weight)


def test_a_teacher_given_gives_the_same_labels(whole, file, tmp_path):
    run = run_with(file, extra_teacher=str(whole / "extra-teacher"))
    with start_run(run, run_dir=tmp_path / "run") as training:
        assert training.untrained_teachers == []
        training.prepare_teacher()
        kept = read_tensors(whole / "extra-labels.safetensors")[0]["labels"]
        assert torch.equal(training.loader.extra.labels, kept)


def test_images_are_labelled_in_parts(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("uiat.training.extra_images.BATCH", 16)
    write(tmp_path / "a.npz", 40)
    extra = uiat.data.open_extra(tmp_path / "a.npz", image_shape=(1, 8, 8), num_classes=10)
    labels = label_images(uiat.load(whole / "extra-teacher"), extra)
    assert BATCH > 40
    assert torch.equal(labels, read_tensors(whole / "extra-labels.safetensors")[0]["labels"])


# --- what is refused, before there is a folder


def _teacher(folder, **spec):
    folder.mkdir()
    spec = {"name": "small-cnn", "num_classes": 10, "image_shape": [1, 8, 8], "width": 4, **spec}
    save_weights(folder / "best.safetensors", models.build(**spec), spec=spec, threat=None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("data.extra_share=0", "extra_share must be above 0, but is 0"),
        ("data.extra_share=1", "extra_share must be below 1, but is 1"),
        ("data.extra_share=1.5", "extra_share must be below 1, but is 1.5"),
        (
            "data.extra_share=0.001",
            "a share of 0.001 of a batch of 64 is 0 extra images; choose one that gives 1 .. 63",
        ),
        ("data.extra=missing.npz", "no such file: missing.npz; data.extra is an npz file of images and labels"),
        ("data.extra=large.npz", r"large.npz: images must be (M, 8, 8, 1), height, width and channels as in the"),
        ("data.extra=labels.npz", "labels.npz: labels run from 0 to 39 but must lie in 0 .. 9 (10 classes)"),
        ("data.extra=keys.npz", "keys.npz has no array 'image', but 'arr_0': numpy.savez(FILE, image=images, label="),
        ("data.extra_labels=both", "data.extra_labels"),
        ("data.extra_labels=teacher data.extra_teacher=missing", "no such file: missing"),
        (
            "data.extra_labels=teacher data.extra_teacher=classes",
            "data.extra_teacher classes tells 5 classes apart, but",
        ),
        (
            "data.extra_labels=teacher data.extra_teacher=size",
            "data.extra_teacher size was trained on images of shape (1, 16, 16), but those of this run have (1, 8, 8)",
        ),
        ("data.extra_labels=teacher data.extra_teacher=empty", "data.extra_teacher: empty has no best.safetensors"),
        ("data.extra_labels=teacher data.extra_teacher=extra.npz", "extra.npz"),
        ("objective.inverse.kind=generator objective.inverse.width=0", "width must be at least 1"),
        ("objective.inverse.kind=generator objective.inverse.steps=3", "objective.inverse.steps"),
        ("objective.inverse.kind=generater", "did you mean 'generator'"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_leaves_no_folder(words, says, tmp_path, monkeypatch, capsys, unchecked):
    monkeypatch.chdir(tmp_path)
    write("extra.npz", 60)
    write("large.npz", size=9)
    write("labels.npz", labels=np.arange(40))
    np.savez("keys.npz", np.zeros(3))
    _teacher(tmp_path / "classes", num_classes=5)
    _teacher(tmp_path / "size", image_shape=[1, 16, 16])
    (tmp_path / "empty").mkdir()
    words = ["data.extra=extra.npz", *words.split(), "model.width=4"]
    assert main(["train", "digits-uiat", *words, "--run-dir", "run"]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert not (tmp_path / "run").exists()


def test_labels_and_images_of_another_file_are_refused(whole, file, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "extra-labels.safetensors").unlink()
    with (
        reopen_run(tmp_path / "run") as training,
        pytest.raises(UserError, match=r"extra-labels\.safetensors is missing"),
    ):
        training.prepare_teacher()
    before = file.read_bytes()
    try:
        write(file, 41)
        with pytest.raises(UserError, match="the training set is not the one"):
            uiat.resume(whole)
    finally:
        file.write_bytes(before)
    other = replace(run_with(file), seed=2)
    write(tmp_path / "other.npz", 41)
    with start_run(other, run_dir=tmp_path / "b") as training:
        labels = training.teachers.labels
        shutil.copy(whole / "extra-labels.safetensors", tmp_path / "b")
        extra = uiat.data.open_extra(tmp_path / "other.npz", image_shape=(1, 8, 8), num_classes=10, labelled=False)
        with pytest.raises(UserError, match="is of other images than"):
            labels.label(extra, tmp_path / "b")
