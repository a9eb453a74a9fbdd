"""Run folders are made once, never over one that exists."""

import os
from pathlib import Path

import pytest

import uiat
from support import tiny
from uiat import Run, UserError
from uiat.runs import folder as folder_module
from uiat.runs.folder import check_new_folder, make_folder
from uiat.runs.settings import read_run
from uiat.system.atomic_files import partial_name


def test_a_folder_holds_the_run(tmp_path):
    run = tiny.run(seed=7)
    folder = make_folder(run, tmp_path / "deep" / "down")
    assert read_run(folder) == run
    assert sorted(path.name for path in folder.iterdir()) == [*("config.yaml", "environment.json", "manifest.json")]


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


def test_a_folder_whose_files_could_not_be_read_again_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match="is not UTF-8, and safetensors could not read its files again"):
        uiat.train(tiny.run(), run_dir=tmp_path / "a\udcffb")
    with pytest.raises(UserError, match="cannot name its folder"):
        make_folder(Run(name="a\udcffb"), None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot make the run folder .*: Not a directory"):
        make_folder(Run(), tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that is read-only to everyone")
def test_a_read_only_file_system():
    with pytest.raises(UserError, match="cannot make the run folder /proc/uiat-run"):
        uiat.train(tiny.run(), run_dir="/proc/uiat-run")


# Killed in the first moments


@pytest.mark.parametrize(
    "left", [[".config.yaml.77.partial"], [".config.yaml.77.partial", ".environment.json.7.partial"]]
)
def test_what_a_killed_start_of_an_older_version_left_is_taken_over(tmp_path, left):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in left:
        (folder / name).write_text("name: ha")
    check_new_folder(folder)
    assert read_run(make_folder(tiny.run(seed=3), folder)).seed == 3
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "environment.json", "manifest.json"]


@pytest.mark.parametrize("other", ["notes.txt", "config.yaml", ".hidden", "best.safetensors", "x.partial"])
def test_a_folder_with_anything_else_in_it_is_not(tmp_path, other):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".config.yaml.77.partial").write_text("name: ha")
    (folder / other).write_text("mine")
    with pytest.raises(UserError, match="never overwritten"):
        check_new_folder(folder)
    with pytest.raises(UserError, match="never overwritten"):
        make_folder(Run(), folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([".config.yaml.77.partial", other])


def test_a_start_that_is_killed_leaves_no_run_and_is_cleared_by_the_next(tmp_path):
    left = tmp_path / partial_name("run")
    left.mkdir()
    (left / "config.yaml").write_text("name: a")
    (left / ".environment.json.12.partial").write_text("{")
    for name in (partial_name("other"), partial_name("run")):  # of another run; with a file that no start writes
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("keep")
    make_folder(Run(), tmp_path / "run")
    assert not left.exists()
    assert len([path for path in tmp_path.iterdir() if (path / "mine").exists()]) == 2


def test_a_start_under_way_is_left_alone_and_the_second_is_refused(tmp_path, monkeypatch):
    describe, seen = folder_module.describe_environment, []

    def meanwhile():
        if not seen:
            seen.append(True)
            make_folder(Run(seed=2), tmp_path / "run")
        return describe()

    monkeypatch.setattr(folder_module, "describe_environment", meanwhile)
    with pytest.raises(UserError, match="never overwritten"):
        make_folder(Run(seed=1), tmp_path / "run")
    assert read_run(tmp_path / "run").seed == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("call", ["fsync", "replace", "rename", "mkdir"])
def test_a_disk_that_is_full_in_the_first_moments_leaves_nothing(tmp_path, monkeypatch, call):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError, match=r"cannot (make|write) .*run.*: No space left on device") as caught:
            make_folder(Run(), tmp_path / "run")
    assert ".partial" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    make_folder(Run(), tmp_path / "run")


def test_an_empty_folder_is_told_to_be_empty(tmp_path):
    with pytest.raises(UserError, match="it is empty, so remove it"):
        make_folder(Run(), tmp_path)


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_link_is_taken(tmp_path, target):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / target)
    with pytest.raises(UserError, match="never overwritten"):
        make_folder(Run(), tmp_path / "run")
    assert list((tmp_path / "elsewhere").iterdir()) == []
