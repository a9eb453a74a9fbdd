"""The state file of an evaluation: killed at any moment, it is resumed to the same verdicts."""

import hashlib
import json
import logging
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.evaluation.engine.outcomes import Outcomes, merge_outcomes
from uiat.evaluation.engine.search_runner import State
from uiat.system.atomic_files import clear_partial
from uiat.system.distributed import Rank
from uiat.system.tensor_files import read_metadata, read_tensors, write_tensors

logger = logging.getLogger("uiat")

KIND, VERSION = "uiat.evaluation", 2


@dataclass
class StateFile:
    """The state file of an evaluation: written whole or not at all, read back only where it belongs.

    Each of several processes has a file of its own; an evaluation is resumed from them in any number of processes.

    Args:
        path: the file, that of one process alone; None keeps nothing.
        identity: what tells this evaluation from others, by name; see `fingerprint`.
        minutes: time between two writes inside a stage.
        clock: the time in seconds, for tests.
        rank: this process among several.

    Example:
        >>> StateFile(None, {}).open(resume=False) is None
        True
    """

    path: Path | None
    identity: Mapping[str, Any]
    minutes: float = 5.0
    clock: Callable[[], float] = time.monotonic
    rank: Rank = Rank()
    written: float = field(default=float("-inf"), init=False)

    @property
    def own_path(self) -> Path | None:
        """The file of this process."""
        return self.rank.path(self.path)

    def open(self, *, resume: bool) -> tuple[Outcomes, State | None] | None:
        """Read the outcomes, and the state of the stage that was under way; None where there is nothing.

        In another number of processes than it was begun in, the stage that was under way is begun again. No process may
        write before all have read.

        Raises:
            UserError: a file that is in the way, or that is damaged, foreign, or of another evaluation.
        """
        if self.path is None or self.own_path is None:
            return None
        clear_partial(self.path.parent, self.own_path.name)  # half written when it was killed
        paths = Rank.paths(self.path)
        if paths and not resume:
            first = paths.get(self.rank, next(iter(paths.values())))
            raise UserError(f"{first} holds the state of an evaluation: resume it (resume) or delete the file")
        states = {rank: self._read(path, rank) for rank, path in paths.items()}
        sizes = {rank.size for rank in states}
        complete = [size for size in sizes if all(Rank(r, size) in states for r in range(size))]
        if self.rank.size in complete or not complete:
            return states.get(self.rank)
        size = complete[0]
        logger.info("the evaluation was begun in %d processes and is resumed in %d", size, self.rank.size)
        outcomes = merge_outcomes([states[Rank(rank, size)][0] for rank in range(size)], self.rank)
        return None if outcomes is None else (outcomes, None)

    def clear(self) -> None:
        """Once all processes have written their files, remove those of another number of processes."""
        if self.path is not None and self.rank.first:
            for rank, path in Rank.paths(self.path).items():
                if rank.size != self.rank.size:
                    path.unlink(missing_ok=True)

    def _identity_of(self, rank: Rank) -> dict[str, Any]:
        return dict(self.identity) | {"share": [rank.rank, rank.size]}

    def _read(self, path: Path, rank: Rank) -> tuple[Outcomes, State | None]:
        tensors, meta = read_tensors(path)
        if meta.get("kind") != KIND:
            raise UserError(f"{path} is not the state of an evaluation; it was left as it is")
        if meta.get("version") != VERSION or meta.get("check") != _checksum_of_file(tensors, meta):
            raise UserError(f"{path} is damaged or was written by another version; delete it to begin anew")
        theirs, ours = meta["belongs"], _plain(self._identity_of(rank))
        if different := [name for name in ours if theirs.get(name) != ours[name]]:
            raise UserError(f"{path} is the state of another evaluation: not the same {', '.join(different)}")
        outcomes = Outcomes.unpack((_strip(tensors, "tally/"), meta["tally"]))
        inside = meta["inside"]
        return outcomes, None if inside is None else (_strip(tensors, "inside/"), inside)

    def save(self, outcomes: Outcomes, inside: State | None = None) -> None:
        """Write the file.

        Args:
            outcomes: of this process.
            inside: the state of the stage that is under way.
        """
        if self.own_path is None:
            return
        tensors, plain = outcomes.pack()
        named = {f"tally/{name}": value for name, value in tensors.items()}
        named |= {f"inside/{name}": value for name, value in (inside[0] if inside else {}).items()}
        meta = {"kind": KIND, "version": VERSION, "belongs": self._identity_of(self.rank), "tally": plain}
        meta["inside"] = inside[1] if inside else None
        write_tensors(self.own_path, named, meta | {"check": _checksum_of_file(named, meta)})
        self.written = self.clock()

    def is_due(self) -> bool:
        """True when so much time has passed that the state of an unfinished stage is worth a write."""
        return self.path is not None and self.clock() - self.written >= 60 * self.minutes


def is_of_another(path: Path, identity: Mapping[str, Any]) -> bool:
    """True if a whole state file, or that of one of several processes, is of another evaluation than this.

    One that is damaged may be of any: it is for `StateFile.open` to refuse.

    Example:
        >>> is_of_another(Path("missing"), {"seed": 0})
        False
    """
    for file in Rank.paths(path).values():
        try:
            meta = read_metadata(file)
        except UserError:
            continue
        theirs = meta.get("belongs")
        if meta.get("kind") == KIND and meta.get("version") == VERSION and isinstance(theirs, dict):
            return {name: value for name, value in theirs.items() if name != "share"} != _plain(identity)
    return False


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as a file gives them back."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def key_of(identity: Mapping[str, Any]) -> str:
    """Return eight characters for the name of a state file that only this evaluation has.

    Example:
        >>> key_of({"seed": 0}) == key_of({"seed": 0}) != key_of({"seed": 1})
        True
    """
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


def fingerprint(
    model: nn.Module, x: Tensor, y: Tensor, *, transfer: nn.Module | None = None, **facts: Any
) -> dict[str, Any]:
    """Return what tells an evaluation from others: checksums of weights, images and labels, and plain values.

    Example:
        >>> one, other = (fingerprint(nn.Linear(1, 1), torch.ones(2), torch.ones(2), seed=s) for s in (0, 1))
        >>> [name for name in one if one[name] != other[name]]
        ['weights', 'seed']
    """
    second = None if transfer is None else checksum(transfer.state_dict())
    sums = {"weights": checksum(model.state_dict()), "images": checksum({"": x}), "labels": checksum({"": y})}
    return {**sums, "transfer model": second, **facts}


def checksum(tensors: Mapping[str, Any]) -> str:
    """Compute a checksum of names, shapes and values, bit for bit.

    Example:
        >>> checksum({"w": torch.zeros(2)}) == checksum({"w": torch.zeros(2)}) != checksum({"w": torch.zeros(1, 2)})
        True
    """
    total = 0
    for name in sorted(tensors):
        if isinstance(value := tensors[name], Tensor):
            total = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), total)
            flat = value.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
            total = zlib.crc32(flat.numpy().data, total)
    return f"{total:08x}"


def _checksum_of_file(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Compute a checksum of all that a file holds, so that a flipped bit is seen."""
    facts = json.dumps({name: value for name, value in meta.items() if name != "check"}, sort_keys=True)
    return f"{checksum(tensors)}{zlib.crc32(facts.encode()):08x}"


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
