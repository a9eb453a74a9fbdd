"""manifest.json: what each file of a folder should hold, by its sha256; and records that carry a sha256 of themselves.

A file is entered before it is replaced, with the sum it has and the one it will have, so that a kill between the two
leaves a folder that is still read.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uiat.errors import UserError
from uiat.system.atomic_files import write_bytes, write_json
from uiat.system.bounded_files import pieces_of, read_file
from uiat.system.locks import locked
from uiat.system.tensor_files import encode_tensors, read_tensors

MANIFEST_FILE = "manifest.json"
KIND = "uiat.manifest"
OWN_CODE = "own-code"  # the folder of the copies of the user's own code, and their field in a manifest
SEAL = "sha256"  # the field of a record that holds the sum of all others
_LARGEST = 2**40  # bytes of a file that is summed; /proc/kcore says that it has a hundred times as many
_TRIES = 5  # of a file that is replaced again and again while it is read


def sum_of(content: bytes) -> str:
    """Return the sha256 of some bytes.

    Example:
        >>> sum_of(b"")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def sum_of_file(path: Path) -> str | None:
    """Return the sha256 of a file; None where there is none.

    Raises:
        UserError: it cannot be read, is no file, or has no end.

    Example:
        >>> sum_of_file(Path("missing"))
    """
    total = hashlib.sha256()
    try:
        for piece in pieces_of(path, most=_LARGEST):
            total.update(piece)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return total.hexdigest()


def sum_of_tensors(tensors: Mapping[str, Any]) -> str:
    """Return the sha256 of named tensors: names, types, shapes and values; what is no tensor is left out.

    Example:
        >>> import torch
        >>> sum_of_tensors({"w": torch.zeros(2)}) == sum_of_tensors({"w": torch.zeros(1, 2)})
        False
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        if isinstance(value := tensors[name], Tensor):
            total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            flat = value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
            total.update(flat.numpy().data)
    return total.hexdigest()


def sum_of_tensor_file(path: Path) -> str:
    """Return the sum of the tensors in a file, as `sum_of_tensors` has it; metadata are left out.

    Raises:
        UserError: there is no such file, or it is damaged, or not what its folder's manifest says.

    Example:
        >>> sum_of_tensor_file(Path("missing.safetensors"))
        Traceback (most recent call last):
        uiat.errors.UserError: no such file: missing.safetensors
    """
    tensors, _ = read_tensors(path)
    check_file(path)
    return sum_of_tensors(tensors)


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the sum of its own contents, by which damage and later edits are seen.

    Example:
        >>> is_sealed(seal({"accuracy": 0.5})), is_sealed(seal({"accuracy": 0.5}) | {"accuracy": 0.9})
        (True, False)
    """
    plain = {key: value for key, value in record.items() if key != SEAL}
    text = json.dumps(plain, sort_keys=True)
    return {**plain, SEAL: sum_of(json.dumps(json.loads(text), sort_keys=True).encode())}


def is_sealed(record: Mapping[str, Any]) -> bool:
    """True if a record's sum is that of its contents.

    Example:
        >>> is_sealed({})
        False
    """
    return record.get(SEAL) == seal(record)[SEAL]


def start_manifest(folder: Path, names: list[str], **facts: Any) -> None:
    """Write the first manifest of a folder, of the files that are in it.

    Args:
        folder: the folder.
        names: names of the files.
        facts: further JSON values to keep in it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.txt").write_text("hello")
        ...     start_manifest(Path(folder), ["a.txt"])
        ...     check_file(Path(folder) / "a.txt")
    """
    files = {name: [sum_of_file(folder / name)] for name in names}
    _write(folder, {"kind": KIND, **facts, "files": files})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder; None where it has none, as folders of version 0.1.

    Raises:
        UserError: it is damaged, or no file.

    Example:
        >>> read_manifest(Path("missing"))
    """
    path = folder / MANIFEST_FILE
    try:
        record = json.loads(read_file(path).decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("kind") != KIND or not is_sealed(record) or not _fits(record):
        raise UserError(f"{path} is damaged: put it back, or remove it to read the folder without its checks")
    return record


def _fits(record: Mapping[str, Any]) -> bool:
    """True if each field of a manifest is what it can be: anyone can seal one that holds something else."""
    files, copies = record.get("files"), record.get(OWN_CODE, {})
    if not isinstance(files, dict) or not isinstance(copies, dict) or not isinstance(record.get("settings", {}), dict):
        return False
    sums = all(isinstance(each, list) and all(map(_is_sum, each)) for each in files.values())
    return sums and all(map(_is_plain, files)) and all(map(_is_copy, copies.values()))


def _is_sum(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_plain(name: str) -> bool:
    """True for the name of a file in the folder itself."""
    return name not in ("", "..") and "\0" not in name and Path(name).name == name


def _is_copy(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("copy"), str) or not _is_sum(entry.get("sha256")):
        return False
    folder, _, name = entry["copy"].partition("/")
    return folder == OWN_CODE and _is_plain(name)


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    write_json(folder / MANIFEST_FILE, seal(record))


def update_manifest(folder: Path, **facts: Any) -> None:
    """Replace facts of a folder's manifest, which it has.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     start_manifest(Path(folder), [], ended=True)
        ...     update_manifest(Path(folder), ended=False)
        ...     read_manifest(Path(folder))["ended"]
        False
    """
    with locked(folder / MANIFEST_FILE, "", on_wait=lambda: None):
        record = read_manifest(folder)
        assert record is not None
        _write(folder, {**record, **facts})


def write_recorded(path: Path, content: bytes, **facts: Any) -> None:
    """Write a file atomically, entered in its folder's manifest first, if the folder has one.

    Args:
        path: the file.
        content: its contents.
        facts: JSON values that replace those of the manifest once the file is there.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     start_manifest(Path(folder), [])
        ...     write_recorded(Path(folder) / "a.txt", b"hello")
        ...     read_manifest(Path(folder))["files"]["a.txt"] == [sum_of(b"hello")]
        True
    """
    # One after another: a training and an evaluation of one folder may write at the same time.
    with locked(path.parent / MANIFEST_FILE, "", on_wait=lambda: None):
        record = read_manifest(path.parent)
        if record is None:
            write_bytes(path, content)
            return
        before, after = record["files"].get(path.name, [None]), sum_of(content)
        record["files"][path.name] = list(dict.fromkeys([*before, after]))
        _write(path.parent, record)
        write_bytes(path, content)
        record["files"][path.name] = [after]
        _write(path.parent, {**record, **facts})


def write_recorded_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], **facts: Any) -> None:
    """Write tensors and metadata as `write_tensors` does, entered in the manifest as `write_recorded` does.

    Example:
        >>> import tempfile, torch
        >>> from uiat.system.tensor_files import read_tensors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_recorded_tensors(Path(folder) / "a.safetensors", {"w": torch.ones(1)}, {})
        ...     read_tensors(Path(folder) / "a.safetensors")[0]
        {'w': tensor([1.])}
    """
    write_recorded(path, encode_tensors(tensors, meta), **facts)


def check_file(path: Path) -> None:
    """Refuse a file that is not what its folder's manifest says; pass one of which no manifest says anything.

    Raises:
        UserError: the file is missing, damaged, edited, or from another folder.

    Example:
        >>> check_file(Path("missing/a.txt"))
    """
    before = read_manifest(path.parent)
    for _ in range(_TRIES):
        allowed = None if before is None else before["files"].get(path.name)
        if allowed is None or (found := sum_of_file(path)) in allowed:
            return
        now = read_manifest(path.parent)  # another process may have replaced both
        if now == before:
            break
        before = now
    if found is None:
        raise UserError(f"{path} is missing: {MANIFEST_FILE} lists it; put it back")
    raise UserError(
        f"{path} is not the file that was written here ({MANIFEST_FILE} has another sha256): it is damaged, was "
        "edited, or comes from another folder"
    )


def check_copy(folder: Path, entry: Mapping[str, Any]) -> None:
    """Refuse a copy of the user's own code that is not the one that was kept.

    Args:
        folder: the folder.
        entry: what its manifest says of the copy.

    Raises:
        UserError: it is missing, edited or a link.

    Example:
        >>> check_copy(Path("missing"), {"copy": "own-code/net.py", "sha256": "0a"})
        Traceback (most recent call last):
        uiat.errors.UserError: missing/own-code/net.py is missing: manifest.json lists it; put it back
    """
    copy = folder / entry["copy"]
    if copy.is_symlink() or copy.parent.is_symlink() or sum_of_file(copy) != entry["sha256"]:
        if not copy.exists():
            raise UserError(f"{copy} is missing: {MANIFEST_FILE} lists it; put it back")
        raise UserError(f"{copy} is not the copy that was kept here ({MANIFEST_FILE} has another sha256)")


def find_damage(folder: Path) -> list[str]:
    """Return a sentence for each file, and each copy of own code, that is not what the manifest says.

    Example:
        >>> find_damage(Path("missing"))
        []
    """
    manifest = read_manifest(folder) or {"files": {}}
    checks = [partial(check_file, folder / name) for name in manifest["files"]]
    checks += [partial(check_copy, folder, entry) for entry in manifest.get(OWN_CODE, {}).values()]
    said = []
    for check in checks:
        try:
            check()
        except UserError as error:
            said.append(str(error))
    return said
