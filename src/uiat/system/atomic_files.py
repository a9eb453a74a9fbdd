"""Write files atomically, and read and write tensors as safetensors, which never unpickles anything."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from uiat.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks: nothing is locked there
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: to a temporary neighbour, flushed to disk, then renamed over `path`.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_bytes(Path(folder) / "a.txt", b"hello")
        ...     (Path(folder) / "a.txt").read_text()
        'hello'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Inside, no other process can lock the folder; the lock is not a file, so a kill releases it too.

    Raises:
        UserError: somebody else is writing to it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked_folder(Path(folder)), locked_folder(Path(folder)):
        ...     pass
        Traceback (most recent call last):
        uiat.errors.UserError: ... is being trained in already: wait for that run to end, or stop it first
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks must not keep anyone from training
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"{folder} is being trained in already: wait for that run to end, or stop it first"
                raise UserError(message) from None
        yield
    finally:
        os.close(descriptor)


def clear_partial(folder: Path) -> None:
    """Remove the temporary files that a kill left in a folder; nothing reads them, but they take space.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / ".a.txt.123.partial").write_text("hel")
        ...     clear_partial(Path(folder))
        ...     list(Path(folder).iterdir())
        []
    """
    for path in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text atomically, in UTF-8.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "a.txt", "hello")
    """
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value atomically as an indented JSON document.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "a.json", {"accuracy": 0.5})
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


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
    return bytes(safetensors.torch.save(plain, metadata=text))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the named tensors of a safetensors file and its metadata, decoded from JSON if it is JSON.

    Raises:
        UserError: no such file, or it is truncated, damaged or of another format. Nothing in it is ever executed.

    Example:
        >>> read_tensors(Path("missing.safetensors"))
        Traceback (most recent call last):
        uiat.errors.UserError: no such file: missing.safetensors
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} is not a readable safetensors file (truncated, damaged or foreign): {error}"
        ) from error
    return tensors, {name: _decode(value) for name, value in meta.items()}


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # another program's metadata is plain text
        return text
