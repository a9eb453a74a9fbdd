"""Exported runs: checked before they have their names, never over anything, and refused in one line."""

import shutil

import pytest

from uiat.errors import UserError
from uiat.experiments.export import export, export_run
from uiat.system.atomic_folder import marked_in_use


def test_a_folder_that_exists_is_left_alone(evaluated_run, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there exists and is never overwritten"):
        export_run(evaluated_run, "pytorch", out=tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


def test_what_fails_leaves_nothing_behind(evaluated_run, tmp_path, monkeypatch):
    def fail(bundle, folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setitem(export.FORMATS, "pytorch", fail)
    with pytest.raises(KeyboardInterrupt):
        export_run(evaluated_run, "pytorch", out=tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_the_folder_lies_in_the_run_by_default_and_the_run_stays_as_it_was(evaluated_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    done = export_run(run, "pytorch")
    assert done.folder == run / "export-pytorch"
    assert done.files == ("config.json", "model.py", "model.safetensors")
    assert done.difference == 0.0
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_what_a_killed_export_left_is_cleared_and_one_under_way_is_not(evaluated_run, tmp_path, monkeypatch):
    under_way, left = tmp_path / ".new.0f.partial", tmp_path / ".new.1f.partial"
    for folder in (under_way, left, tmp_path / ".other.0f.partial"):
        folder.mkdir()
        (folder / "model.onnx").write_text("half")
    monkeypatch.setitem(export.FORMATS, "pytorch", lambda bundle, folder: 0.0)
    with marked_in_use(under_way):
        export_run(evaluated_run, "pytorch", out=tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.0f.partial", ".other.0f.partial", "new"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("to", "options", "says"),
    [
        ("onxx", {}, "did you mean 'onnx'"),
        ("pytorch", {"vnnlib": 3}, "VNN-LIB properties belong to an ONNX file"),
        ("pytorch", {"which": "bets"}, "did you mean 'best'"),
        (
            "pytorch",
            {"out": "no/such/folder/x"},
            "cannot make the folder no/such/folder/x: .*; choose another with --out",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(evaluated_run, to, options, says):
    with pytest.raises(UserError, match=says):
        export_run(evaluated_run, to, **options)


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        export_run(tmp_path, "pytorch", out=tmp_path / "x")


def test_a_link_that_leads_nowhere_is_refused_at_once(evaluated_run, tmp_path):
    (tmp_path / "new").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="new exists and is never overwritten"):
        export_run(evaluated_run, "pytorch", out=tmp_path / "new")


def test_a_name_that_is_taken_in_the_meantime_is_one_line(evaluated_run, tmp_path, monkeypatch):
    def write(bundle, folder):
        (tmp_path / "new").write_text("taken")
        return 0.0

    monkeypatch.setitem(export.FORMATS, "pytorch", write)
    with pytest.raises(UserError, match=r"cannot make the folder .*new: Not a directory"):
        export_run(evaluated_run, "pytorch", out=tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
