"""Files: whole or not at all, and nothing in them is ever executed."""

import errno
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from uiat.errors import UserError
from uiat.system import atomic_files
from uiat.system.atomic_files import locked_folder, read_tensors, write_bytes, write_json, write_tensors, write_text


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


def test_a_lock_dies_with_its_process(tmp_path):
    hold = (
        "import pathlib, sys, time\nfrom uiat.system.atomic_files import locked_folder\n"
        "with locked_folder(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is being trained in already"), locked_folder(tmp_path):
            pass
        other.kill()
    with locked_folder(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_locked_training_goes_on(tmp_path, monkeypatch):
    def unsupported(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(atomic_files.fcntl, "flock", unsupported)
    with locked_folder(tmp_path), locked_folder(tmp_path):
        pass
    monkeypatch.setattr(atomic_files, "fcntl", None)
    with locked_folder(tmp_path):
        pass
