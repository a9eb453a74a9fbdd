"""What a manifest sees, what it lets pass, and that a kill between two renames leaves a folder that is read."""

import json
import os
from pathlib import Path

import pytest

from uiat import UserError
from uiat.system import manifest
from uiat.system.manifest import (
    check_file,
    find_damage,
    is_sealed,
    read_manifest,
    seal,
    start_manifest,
    sum_of,
    sum_of_tensors,
    update_manifest,
    write_recorded,
)


@pytest.fixture
def folder(tmp_path):
    start_manifest(tmp_path, [], settings={"seed": 3})
    write_recorded(tmp_path / "a.txt", b"one")
    return tmp_path


@pytest.mark.parametrize("content", [b"", b"on", b"oneone", b"onf", None])
def test_whatever_is_not_what_was_written_is_named(folder, content):
    path = folder / "a.txt"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path} is (missing|not the file that was written here)"):
        check_file(path)
    assert [str(path) in said for said in find_damage(folder)] == [True]


def test_files_that_are_not_listed_pass(folder):
    (folder / "mine.txt").write_text("anything")
    check_file(folder / "mine.txt")
    assert find_damage(folder) == []


@pytest.mark.parametrize("killed", ["write_bytes", "_write"])
def test_a_kill_before_or_after_the_rename_leaves_a_folder_that_is_read(folder, monkeypatch, killed):
    """Before the rename the old contents stand, after it the new; the manifest allows either, and nothing else."""
    calls, real = [], getattr(manifest, killed)

    def kill(*given):
        calls.append(given)
        if killed == "write_bytes" or len(calls) == 2:
            raise KeyboardInterrupt
        real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(manifest, killed, kill)
        with pytest.raises(KeyboardInterrupt):
            write_recorded(folder / "a.txt", b"two")
    assert (folder / "a.txt").read_bytes() == (b"one" if killed == "write_bytes" else b"two")
    check_file(folder / "a.txt")
    write_recorded(folder / "a.txt", b"three")
    assert len(read_manifest(folder)["files"]["a.txt"]) == 1
    (folder / "a.txt").write_bytes(b"one")
    with pytest.raises(UserError):
        check_file(folder / "a.txt")


def test_a_file_that_was_never_written_may_be_missing_and_one_that_was_may_not(tmp_path, monkeypatch):
    start_manifest(tmp_path, [])
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write_bytes", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_recorded(tmp_path / "a.txt", b"one")
    check_file(tmp_path / "a.txt")
    write_recorded(tmp_path / "a.txt", b"one")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"a\.txt is missing: manifest\.json lists it"):
        check_file(tmp_path / "a.txt")


def test_a_file_that_is_replaced_while_it_is_read_is_looked_at_again(folder, monkeypatch):
    real, seen = manifest.sum_of_file, []

    def late(path):
        if not seen:
            seen.append(path)
            write_recorded(path, b"two")  # between the reading of the manifest and that of the file
        return real(path)

    monkeypatch.setattr(manifest, "sum_of_file", late)
    check_file(folder / "a.txt")
    assert seen


@pytest.mark.parametrize("bit", range(0, 400, 37))
def test_a_flipped_bit_in_the_manifest_is_seen(folder, bit):
    path = folder / "manifest.json"
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        read_manifest(folder)


def test_a_seal_survives_json_and_no_edit():
    record = seal({"accuracy": {"clean": 0.1 + 0.2, "worst": 1 / 3}, "n": 3, "names": ["ä", None]})
    again = json.loads(json.dumps(record))
    assert is_sealed(again)
    for changed in ({"n": 4}, {"accuracy": {"clean": 0.3, "worst": 1 / 3}}, {"more": 1}, {"sha256": "0"}):
        assert not is_sealed(again | changed)


def test_sums_of_tensors_tell_names_types_shapes_and_values_apart():
    import torch

    one = {"w": torch.zeros(2)}
    others = [{"v": torch.zeros(2)}, {"w": torch.zeros(2).double()}, {"w": torch.zeros(1, 2)}, {"w": torch.ones(2)}]
    assert len({sum_of_tensors(each) for each in (one, *others)}) == 5
    assert sum_of_tensors(one) == sum_of_tensors({"w": torch.zeros(4)[::2]})


@pytest.mark.parametrize(
    "changed",
    [
        {"files": None},
        {"files": ["a.txt"]},
        {"files": {"a.txt": 7}},
        {"files": {"a.txt": [7]}},
        {"files": {"/dev/zero": ["x"]}},
        {"files": {"../a.txt": ["x"]}},
        {"files": {"own-code/../../a.txt": ["x"]}},
        {"settings": [1]},
        {"own-code": [1]},
        {"own-code": {"net.py:net": {"copy": "../net.py", "sha256": "x"}}},
        {"own-code": {"net.py:net": {"copy": "own-code/../../net.py", "sha256": "x"}}},
        {"own-code": {"net.py:net": {"copy": "own-code/..", "sha256": "x"}}},
        {"own-code": {"net.py:net": {"copy": 7, "sha256": "x"}}},
    ],
)
def test_a_sealed_manifest_of_what_cannot_be_is_damaged(folder, changed):
    (folder / "manifest.json").write_text(json.dumps(seal({**read_manifest(folder), **changed})))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        find_damage(folder)


def test_a_sealed_manifest_without_files_is_damaged(folder):
    (folder / "manifest.json").write_text(json.dumps(seal({"kind": "uiat.manifest"})))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        check_file(folder / "a.txt")


def test_what_is_no_file_is_not_read_for_ever(folder):
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to("/dev/zero")
    assert ["it is no file" in said for said in find_damage(folder)] == [True]


@pytest.mark.skipif(not Path("/proc/self/pagemap").is_file(), reason="there is no such file")
def test_a_file_without_end_has_no_sum(folder):
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to("/proc/self/pagemap")
    assert ["it goes on behind the end" in said for said in find_damage(folder)] == [True]


@pytest.mark.parametrize("how", ["pipe", "/dev/zero", "."])
def test_a_manifest_that_is_no_file_is_damaged(folder, how):
    path = folder / "manifest.json"
    path.unlink()
    os.mkfifo(path) if how == "pipe" else path.symlink_to(how)
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        check_file(folder / "a.txt")


@pytest.mark.parametrize("how", ["edited", "removed", "link", "folder is a link"])
def test_a_copy_of_own_code_that_is_not_the_one_that_was_kept_is_named(folder, how):
    copy = folder / "own-code" / "net.py"
    copy.parent.mkdir()
    copy.write_text("kept")
    entry = {"copy": "own-code/net.py", "sha256": sum_of(b"kept")}
    update_manifest(folder, **{"own-code": {"net.py:net": entry}})
    assert find_damage(folder) == []
    if how == "folder is a link":
        copy.parent.rename(folder / "other")
        copy.parent.symlink_to(folder / "other")
    elif how == "link":
        copy.rename(folder / "other.py")
        copy.symlink_to(folder / "other.py")
    else:
        copy.write_text("harmless") if how == "edited" else copy.unlink()
    assert [str(copy) in said for said in find_damage(folder)] == [True]
