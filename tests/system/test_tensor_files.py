"""Tensors in files: what is written is read, equal ones are equal files, and nothing in them is ever executed."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from uiat.errors import UserError
from uiat.system.tensor_files import read_metadata, read_tensors, write_tensors


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
    assert meta_again == meta == read_metadata(tmp_path / "a.safetensors")
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


def test_equal_tensors_and_facts_are_equal_files(tmp_path):
    code = (
        "import sys, torch, pathlib\nfrom uiat.system.tensor_files import write_tensors\n"
        "tensors = {n: torch.arange(float(i + 1)) for i, n in enumerate('cab')}\n"
        "write_tensors(pathlib.Path(sys.argv[1]), tensors, {n: {'k': n} for n in 'zyxwvut'})\n"
    )
    for name in ("one", "two", "three"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two", "three")}) == 1
    tensors, meta = read_tensors(tmp_path / "one")
    assert {name: len(value) for name, value in tensors.items()} == {"c": 1, "a": 2, "b": 3}
    assert meta == {name: {"k": name} for name in "zyxwvut"}


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
    for read in (read_tensors, read_metadata):
        with pytest.raises(UserError, match="not a readable safetensors file") as caught:
            read(path)
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
    for read in (read_tensors, read_metadata):
        with pytest.raises(UserError, match="no such file"):
            read(tmp_path / "a.safetensors")
