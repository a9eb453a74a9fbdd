"""Temporary folders of killed processes."""

import shutil

import pytest

from uiat.errors import UserError
from uiat.system import atomic_folder
from uiat.system.atomic_folder import clear_abandoned, marked_in_use, probe, refuse_link


def test_what_is_no_abandoned_folder_of_that_name_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".a.0f.partial").symlink_to(tmp_path / "elsewhere")
    for name in ("a", "a.partial", ".b.0f.partial", ".a.1f.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".a.2f.partial").write_text("a file")
    clear_abandoned(tmp_path / "a", shutil.rmtree)
    left = {".a.0f.partial", ".a.2f.partial", ".b.0f.partial", "a", "a.partial", "elsewhere"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_folder_that_is_removed_before_it_is_marked_is_made_again(tmp_path, monkeypatch):
    temporary, real, calls = tmp_path / ".a.0f.partial", atomic_folder.lock_descriptor, []

    def late(descriptor, **options):
        if not calls:  # another process takes it for abandoned at this moment
            shutil.rmtree(temporary)
        calls.append(descriptor)
        return real(descriptor, **options)

    temporary.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(atomic_folder, "lock_descriptor", late)
        with marked_in_use(temporary):
            patch.undo()
            clear_abandoned(tmp_path / "a", shutil.rmtree)
            assert temporary.is_dir()
    clear_abandoned(tmp_path / "a", shutil.rmtree)
    assert not temporary.exists()


def test_a_link_is_refused_whether_or_not_it_leads_anywhere(tmp_path):
    link = tmp_path / "link"
    for target in (tmp_path, tmp_path / "missing"):
        link.symlink_to(target)
        with pytest.raises(UserError, match="is a link"):
            refuse_link(link)
        link.unlink()
    assert refuse_link(tmp_path) == tmp_path


def test_a_probe_leaves_nothing_and_says_what_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("here")
    probe(tmp_path / "a.json")
    probe(tmp_path / "new" / "folder" / "b.json")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "here")]
    with pytest.raises(UserError, match=r"cannot write .*/a.json/b/c.json: .*/a.json is not a folder; try another$"):
        probe(tmp_path / "a.json" / "b" / "c.json", advice="; try another")

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(atomic_folder, "create_file", refuse)
    with pytest.raises(UserError, match=r"cannot write .*a.json: Read-only file system; try another$"):
        probe(tmp_path / "a.json", advice="; try another")
    with pytest.raises(UserError, match=r"cannot write .*/new/b.json: Read-only file system$"):
        probe(tmp_path / "new" / "b.json")
