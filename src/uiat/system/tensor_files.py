"""Read and write tensors as safetensors, which never unpickles anything."""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from uiat.errors import UserError
from uiat.system.atomic_files import write_bytes


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write named tensors and JSON metadata atomically as one safetensors file.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tensors(Path(folder) / "a.safetensors", {"w": torch.ones(2)}, {"epoch": 3})
        ...     read_tensors(Path(folder) / "a.safetensors")
        ({'w': tensor([1., 1.])}, {'epoch': 3})
    """
    write_bytes(path, encode_tensors(tensors, meta))


def encode_tensors(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Return named tensors and JSON metadata as the contents of a safetensors file.

    Example:
        >>> len(encode_tensors({}, {"epoch": 3})) > 8
        True
    """
    # clone: safetensors refuses tensors that share memory, and contiguous() alone would keep sharing.
    plain = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    text = {name: json.dumps(value) for name, value in meta.items()}
    return _in_order(safetensors.torch.save(plain, metadata=text), text)


def _in_order(content: bytes, meta: Mapping[str, str]) -> bytes:
    """Return a safetensors file with its header in a fixed order, so that equal runs write equal files.

    The library writes metadata in the order of a hash table, which is another one in each process. A header is eight
    bytes with its length, then JSON, filled up with blanks to a multiple of eight (the safetensors format).
    """
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    places = dict(sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0])))
    facts = {"__metadata__": dict(meta)} if meta else {}
    text = json.dumps(facts | places, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the named tensors of a safetensors file and its metadata, decoded from JSON if it is JSON.

    Raises:
        UserError: no such file, or it is truncated, damaged or of another format. Nothing in it is ever executed.

    Example:
        >>> read_tensors(Path("missing.safetensors"))
        Traceback (most recent call last):
        uiat.errors.UserError: no such file: missing.safetensors
    """
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return tensors, _decode(file.metadata())


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a safetensors file alone, as `read_tensors` does; of the tensors nothing is read.

    Raises:
        UserError: as for `read_tensors`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tensors(Path(folder) / "a.safetensors", {}, {"epoch": 3})
        ...     read_metadata(Path(folder) / "a.safetensors")
        {'epoch': 3}
    """
    with _open(path) as file:
        return _decode(file.metadata())


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Inside, the file is open, and whatever a damaged one raises is a UserError that names it."""
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file (truncated, damaged or foreign): {error}"
        ) from error


def _decode(meta: Mapping[str, str] | None) -> dict[str, Any]:
    return {name: _decode_value(text) for name, text in (meta or {}).items()}


def _decode_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # another program's metadata is plain text
        return text
