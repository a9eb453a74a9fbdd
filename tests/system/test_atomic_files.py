"""Files: whole or not at all, and nothing in them is ever executed."""

import fcntl
import os
import stat

import pytest

from uiat.errors import UserError
from uiat.system import atomic_files
from uiat.system.atomic_files import clear_partial, create_file, partial_name, write_bytes, write_json, write_text


@pytest.mark.parametrize("write", [lambda p, v: write_text(p, v), lambda p, v: write_json(p, {"text": v})])
def test_text_is_utf8(tmp_path, write):
    write(tmp_path / "a", "ε = 8/255")
    assert (tmp_path / "a").read_bytes().decode()


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"old", b"new and longer", b""):
        write_bytes(tmp_path / "a.bin", content)
        assert (tmp_path / "a.bin").read_bytes() == content
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_point_keeps_the_old_file(tmp_path, monkeypatch, call, error):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fail(*args):
        raise error

    monkeypatch.setattr(atomic_files.os, call, fail)
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]
    if expected is UserError:
        assert str(caught.value) == f"cannot write {path}: No space left on device"


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*No such file or directory"):
        write_bytes(tmp_path / "missing" / "a.bin", b"x")


# Temporary files


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o400])
def test_a_file_that_is_written_again_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "report.html"
    path.write_text("old")
    path.chmod(mode)
    write_text(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", mode)


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("plant", [".a.bin.{pid}.partial", ".a.bin.partial", ".a.bin.{pid}"])
def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path, plant):
    (tmp_path / "precious").write_text("keep")
    (tmp_path / plant.format(pid=os.getpid())).symlink_to(tmp_path / "precious")
    write_bytes(tmp_path / "a.bin", b"new")
    assert (tmp_path / "precious").read_text() == "keep"
    assert (tmp_path / "a.bin").read_bytes() == b"new"


@pytest.mark.parametrize("append", [False, True])
def test_a_file_is_made_or_appended_to_but_never_through_a_link(tmp_path, append):
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="link"):
        os.close(create_file(tmp_path / "link", append=append))
    assert (tmp_path / "precious").read_text() == "keep"


def test_a_link_is_replaced_and_its_target_left(tmp_path):
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "a", "new")
    assert ((tmp_path / "a").read_text(), (tmp_path / "precious").read_text()) == ("new", "keep")


def test_temporary_names_differ_and_fit_into_a_long_name(tmp_path):
    assert len({partial_name("a") for _ in range(100)}) == 100
    write_text(tmp_path / ("ä" * 120), "x")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("left", [".a.bin.123.partial", ".a.bin.0f1e.partial", ".a.bin..partial"])
def test_a_write_clears_what_a_kill_left_of_the_same_file(tmp_path, left):
    for name in (left, ".b.bin.123.partial", "a.bin.partial", ".a.bin.lock"):
        (tmp_path / name).write_text("half")
    write_bytes(tmp_path / "a.bin", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", ".b.bin.123.partial", "a.bin.partial", ".a.bin.lock"}
    clear_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", "a.bin.partial", ".a.bin.lock"}


def test_a_file_that_another_process_is_writing_is_left_alone(tmp_path):
    path = tmp_path / partial_name("a.bin")
    with open(path, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        clear_partial(tmp_path)
        assert path.exists()
    clear_partial(tmp_path)
    assert not path.exists()


def test_a_temporary_file_that_is_cleared_all_the_same_is_written_again(tmp_path, monkeypatch):
    replace, calls = os.replace, []

    def cleared(source, target):
        calls.append(source)
        if len(calls) == 1:
            os.unlink(source)
        replace(source, target)

    monkeypatch.setattr(atomic_files.os, "replace", cleared)
    write_bytes(tmp_path / "a.bin", b"new")
    assert (len(calls), (tmp_path / "a.bin").read_bytes(), os.listdir(tmp_path)) == (2, b"new", ["a.bin"])


def test_the_folder_is_flushed_after_the_rename(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def flushed(descriptor):
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(source, target):
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(atomic_files.os, "fsync", flushed)
    monkeypatch.setattr(atomic_files.os, "replace", renamed)
    write_bytes(tmp_path / "a.bin", b"new")
    assert events == ["file", "rename", "folder"]
