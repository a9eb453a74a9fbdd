"""Run folders are made once, never over one that exists."""

from pathlib import Path

import pytest

import uiat
from support import tiny
from uiat import Run, UserError
from uiat.runs.folder import check_new_folder, make_folder
from uiat.runs.settings import read_run


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


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"cannot make the run folder .*: Not a directory"):
        make_folder(Run(), tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that is read-only to everyone")
def test_a_read_only_file_system():
    with pytest.raises(UserError, match="cannot make the run folder /proc/uiat-run"):
        uiat.train(tiny.run(), run_dir="/proc/uiat-run")
