"""An evaluation under way, in memory and in a file: killed at any moment, it goes on to the same verdicts."""

import json
import logging
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.evaluation.engine.outcomes import Outcomes, merge_outcomes
from uiat.evaluation.engine.search_runner import State
from uiat.system.atomic_files import PARTIAL, read_tensors, write_tensors
from uiat.system.distributed import Rank

logger = logging.getLogger("uiat")

KIND, VERSION = "uiat.evaluation", 2


@dataclass
class StateFile:
    """The state file of an evaluation: written whole or not at all, read back only where it belongs.

    Each of several processes has a file of its own; what they hold is gone on with in any number of processes.

    Args:
        path: the file, that of one process alone; None keeps nothing.
        belongs: what tells this evaluation from others, by name; see `fingerprint`.
        minutes: between two writes inside a stage.
        clock: seconds, for tests.
        share: this process among several.

    Example:
        >>> StateFile(None, {}).open(resume=False) is None
        True
    """

    path: Path | None
    belongs: Mapping[str, Any]
    minutes: float = 5.0
    clock: Callable[[], float] = time.monotonic
    share: Rank = Rank()
    written: float = field(default=float("-inf"), init=False)

    @property
    def own(self) -> Path | None:
        """The file of this process."""
        return self.share.path(self.path)

    def open(self, *, resume: bool) -> tuple[Outcomes, State | None] | None:
        """What the files hold: the tally, and the state of the stage that was under way; None where there is nothing.

        In another number of processes than it was begun in, the stage that was under way is begun again. No process may
        write before all have read.

        Raises:
            UserError: a file that is in the way, or that is damaged, foreign, or of another evaluation.
        """
        if self.path is None or self.own is None:
            return None
        for partial in self.path.parent.glob(f".{self.own.name}.*{PARTIAL}"):  # half written when it was killed
            with suppress(OSError):
                partial.unlink()
        there = Rank.paths(self.path)
        if there and not resume:
            first = there.get(self.share, next(iter(there.values())))
            raise UserError(f"{first} holds the state of an evaluation: go on with it (resume) or delete it")
        held = {part: self._read(path, part) for part, path in there.items()}
        whole = [size for size in {part.size for part in held} if all(Rank(r, size) in held for r in range(size))]
        if self.share.size in whole or not whole:
            return held.get(self.share)
        logger.info("the evaluation was begun in %d processes and goes on in %d", whole[0], self.share.size)
        tally = merge_outcomes([held[Rank(rank, whole[0])][0] for rank in range(whole[0])], self.share)
        return None if tally is None else (tally, None)

    def clear(self) -> None:
        """Once all processes have written their files, remove those of another number of processes."""
        if self.path is not None and self.share.first:
            for part, path in Rank.paths(self.path).items():
                if part.size != self.share.size:
                    path.unlink(missing_ok=True)

    def _facts(self, part: Rank) -> dict[str, Any]:
        return dict(self.belongs) | {"share": [part.rank, part.size]}

    def _read(self, path: Path, part: Rank) -> tuple[Outcomes, State | None]:
        tensors, meta = read_tensors(path)
        if meta.get("kind") != KIND:
            raise UserError(f"{path} is not the state of an evaluation; it was left as it is")
        if meta.get("version") != VERSION or meta.get("check") != _check(tensors, meta):
            raise UserError(f"{path} is damaged or was written by another version; delete it to begin anew")
        belongs, ours = meta["belongs"], json.loads(json.dumps(self._facts(part)))
        if other := [name for name in ours if belongs.get(name) != ours[name]]:
            raise UserError(f"{path} is the state of another evaluation: not the same {', '.join(other)}")
        tally = Outcomes.unpack((_under(tensors, "tally/"), meta["tally"]))
        inside = meta["inside"]
        return tally, None if inside is None else (_under(tensors, "inside/"), inside)

    def save(self, tally: Outcomes, inside: State | None = None) -> None:
        """Write the file."""
        if self.own is None:
            return
        tensors, facts = tally.pack()
        named = {f"tally/{name}": value for name, value in tensors.items()}
        named |= {f"inside/{name}": value for name, value in (inside[0] if inside else {}).items()}
        meta = {"kind": KIND, "version": VERSION, "belongs": self._facts(self.share), "tally": facts}
        meta["inside"] = inside[1] if inside else None
        write_tensors(self.own, named, meta | {"check": _check(named, meta)})
        self.written = self.clock()

    def due(self) -> bool:
        """Whether so much time has passed that the state of an unfinished stage is worth a write."""
        return self.path is not None and self.clock() - self.written >= 60 * self.minutes


def fingerprint(
    model: nn.Module, x: Tensor, y: Tensor, *, transfer: nn.Module | None = None, **facts: Any
) -> dict[str, Any]:
    """What an evaluation is of: checksums of weights, images and labels, and plain values such as the threat model.

    Example:
        >>> one, other = (fingerprint(nn.Linear(1, 1), torch.ones(2), torch.ones(2), seed=s) for s in (0, 1))
        >>> [name for name in one if one[name] != other[name]]
        ['weights', 'seed']
    """
    second = None if transfer is None else checksum(transfer.state_dict())
    sums = {"weights": checksum(model.state_dict()), "images": checksum({"": x}), "labels": checksum({"": y})}
    return {**sums, "transfer model": second, **facts}


def checksum(tensors: Mapping[str, Any]) -> str:
    """Of names, shapes and values, bit for bit.

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


def _check(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """Of all that a file holds, so that a flipped bit is seen."""
    facts = json.dumps({name: value for name, value in meta.items() if name != "check"}, sort_keys=True)
    return f"{checksum(tensors)}{zlib.crc32(facts.encode()):08x}"


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
