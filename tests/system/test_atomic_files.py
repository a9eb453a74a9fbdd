"""Files: whole or not at all, and nothing in them is ever executed."""

import fcntl
import os
import pickle
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from uiat.errors import UserError
from uiat.system import atomic_files
from uiat.system.atomic_files import (
    clear_partial,
    create_file,
    partial_name,
    read_tensors,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)


def test_what_is_written_is_read(tmp_path):
    tensors = {
        "half": torch.randn(3, 2).bfloat16(),
        "flag": torch.tensor([True, False]),
        "one": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "flipped": torch.arange(6.0).view(2, 3).t(),
        "images": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    meta = {"epoch": 3, "name": "digits-uiat", "nested": {"a": [1, 2.5, None, True]}, "text": "Größe"}
    write_tensors(tmp_path / "a.safetensors", tensors, meta)
    again, meta_again = read_tensors(tmp_path / "a.safetensors")
    assert meta_again == meta
    assert again.keys() == tensors.keys()
    for name, value in tensors.items():
        assert again[name].dtype == value.dtype
        assert torch.equal(again[name], value)


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    base = torch.arange(4.0)
    write_tensors(tmp_path / "a.safetensors", {"all": base, "part": base[:2], "same": base}, {})
    again, _ = read_tensors(tmp_path / "a.safetensors")
    assert {name: value.tolist() for name, value in again.items()} == {
        "all": [0, 1, 2, 3],
        "part": [0, 1],
        "same": [0, 1, 2, 3],
    }


def test_writing_does_not_touch_the_tensor(tmp_path):
    p = torch.nn.Parameter(torch.ones(2))
    write_tensors(tmp_path / "a.safetensors", {"p": p}, {})
    assert p.requires_grad
    assert read_tensors(tmp_path / "a.safetensors")[0]["p"].requires_grad is False


def test_other_programs_metadata_stays_text(tmp_path):
    save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"format": "pt", "n": "3"})
    assert read_tensors(tmp_path / "a.safetensors")[1] == {"format": "pt", "n": 3}


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


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def good(tmp_path) -> bytes:
    write_tensors(tmp_path / "good.safetensors", {"w": torch.ones(100)}, {"epoch": 1})
    return (tmp_path / "good.safetensors").read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:5],
        lambda content: content[:30],
        lambda content: content[:-1],
        lambda content: content + b"more",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
        lambda content: b"PK\x03\x04 a zip archive, as torch.save writes",
        lambda content: "ε".encode() * 50,
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path, spoil):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(spoil(good(tmp_path)))
    with pytest.raises(UserError, match="not a readable safetensors file") as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("dump", [pickle.dumps, None], ids=["pickle", "torch.save"])
def test_a_pickle_bomb_does_not_go_off(tmp_path, dump):
    path, crater = tmp_path / "bomb.safetensors", tmp_path / "crater"
    if dump is None:
        torch.save({"w": Bomb(crater)}, path)
    else:
        path.write_bytes(dump(Bomb(crater)))
    with pytest.raises(UserError, match="not a readable safetensors file"):
        read_tensors(path)
    assert not crater.exists()


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()], ids=["missing", "folder"])
def test_no_such_file(tmp_path, make):
    make(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="no such file"):
        read_tensors(tmp_path / "a.safetensors")


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


def test_equal_tensors_and_facts_are_equal_files(tmp_path):
    code = (
        "import sys, torch, pathlib\nfrom uiat.system.atomic_files import write_tensors\n"
        "tensors = {n: torch.arange(float(i + 1)) for i, n in enumerate('cab')}\n"
        "write_tensors(pathlib.Path(sys.argv[1]), tensors, {n: {'k': n} for n in 'zyxwvut'})\n"
    )
    for name in ("one", "two", "three"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two", "three")}) == 1
    tensors, meta = read_tensors(tmp_path / "one")
    assert {name: len(value) for name, value in tensors.items()} == {"c": 1, "a": 2, "b": 3}
    assert meta == {name: {"k": name} for name in "zyxwvut"}
