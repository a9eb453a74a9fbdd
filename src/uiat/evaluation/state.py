"""An evaluation under way, in memory and in a file: killed at any moment, it goes on to the same verdicts."""

import json
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from uiat.ensemble import State
from uiat.errors import UserError
from uiat.files import PARTIAL, read_tensors, write_tensors

KIND, VERSION = "uiat.evaluation", 1


@dataclass
class Tally:
    """What a process knows of its images so far.

    Args:
        index: their positions among all images.
        right: which are still right under each named attack, whether it is finished or not.
        broken_by: number of the stage in `names` that broke each; -1 for one that stands.
        names: stages.
        examples: what broke each image, or the image itself; None where they are not kept.
        confidence: probability of the predicted class, of the images as they are.
        after: by attack and stage: images right under the attack, and under everything, when the stage had ended.
        spent: by attack and stage: seconds, and images forward and backward.
        limit: images that fit into memory at once, where it ran out.
        known: by stage: 1 for an image that is right under it, 0 for one that is not, -1 for one not attacked with it.

    Example:
        >>> Tally(torch.arange(3)).standing.tolist()
        [True, True, True]
    """

    index: Int[Tensor, "n"]
    right: dict[str, Bool[Tensor, "n"]] = field(default_factory=dict)
    broken_by: Int[Tensor, "n"] | None = None
    names: list[str] = field(default_factory=list)
    examples: Tensor | None = None
    confidence: Tensor | None = None
    after: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    spent: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    limit: int | None = None
    known: dict[str, Int[Tensor, "n"]] = field(default_factory=dict)

    @property
    def breaker(self) -> Int[Tensor, "n"]:
        """`broken_by`, from the start on."""
        return torch.full_like(self.index, -1) if self.broken_by is None else self.broken_by

    @property
    def standing(self) -> Bool[Tensor, "n"]:
        """Which images nothing has broken so far."""
        return self.breaker < 0

    def verdicts(self, stage: str) -> Int[Tensor, "n"]:
        """`known` of a stage, from the start on."""
        return self.known.get(stage, torch.full_like(self.index, -1))

    def learn(self, stage: str, among: Bool[Tensor, "n"], right: Bool[Tensor, "n"]) -> None:
        """Which of the images in `among` are right under a stage, in whichever named attack it was run."""
        self.known[stage] = torch.where(among, right.to(self.index), self.verdicts(stage))

    def note(self, name: str, stage: str, right: Bool[Tensor, "n"], found: Tensor) -> None:
        """A stage of a named attack has ended: which images are right under that attack, and what broke the others."""
        fallen = self.standing & ~right
        if stage not in self.names:
            self.names.append(stage)
        self.broken_by = self.breaker.masked_fill(fallen, self.names.index(stage))
        if self.examples is not None:
            self.examples[fallen] = found[fallen.to(found.device)].to(self.examples)
        self.right[name] = right
        self.after.setdefault(name, {})[stage] = [int(right.sum()), int(self.standing.sum())]

    def spend(self, name: str, stage: str, cost: Mapping[str, float]) -> None:
        """Add to what a stage has cost."""
        total = self.spent.setdefault(name, {}).setdefault(stage, {})
        for kind, value in cost.items():
            total[kind] = total.get(kind, 0) + value

    def pack(self) -> State:
        """As tensors and plain values."""
        tensors = {"index": self.index, "broken_by": self.breaker}
        tensors |= {f"right/{name}": value for name, value in self.right.items()}
        tensors |= {f"known/{stage}": value for stage, value in self.known.items()}
        tensors |= {name: value for name in ("examples", "confidence") if (value := getattr(self, name)) is not None}
        names = ("names", "after", "spent", "limit")
        # Attacks in the order in which they were run, which sorted tensors would not tell.
        return tensors, {name: getattr(self, name) for name in names} | {"order": list(self.right)}

    @classmethod
    def unpack(cls, state: State) -> "Tally":
        """Back from what `pack` made."""
        tensors, meta = dict[str, Any](state[0]), dict(state[1])
        values: dict[str, Any] = {"right": {name: tensors.pop(f"right/{name}") for name in meta.pop("order")}}
        values["known"] = {n.removeprefix("known/"): tensors.pop(n) for n in list(tensors) if n.startswith("known/")}
        return cls(**values, **tensors, **meta)


@dataclass
class Keeper:
    """The state file of an evaluation: written whole or not at all, read back only where it belongs.

    Args:
        path: the file; None keeps nothing.
        belongs: what tells this evaluation from others, by name; see `fingerprint`.
        minutes: between two writes inside a stage.
        clock: seconds, for tests.

    Example:
        >>> Keeper(None, {}).open(resume=False) is None
        True
    """

    path: Path | None
    belongs: Mapping[str, Any]
    minutes: float = 5.0
    clock: Callable[[], float] = time.monotonic
    written: float = field(default=float("-inf"), init=False)

    def open(self, *, resume: bool) -> tuple[Tally, State | None] | None:
        """What the file holds: the tally, and the state of the stage that was under way; None where there is none.

        Raises:
            UserError: a file that is in the way, or that is damaged, foreign, or of another evaluation.
        """
        if self.path is None:
            return None
        for partial in self.path.parent.glob(f".{self.path.name}.*{PARTIAL}"):  # half written when it was killed
            with suppress(OSError):
                partial.unlink()
        if not self.path.exists():
            return None
        if not resume:
            raise UserError(f"{self.path} holds the state of an evaluation: go on with it (resume) or delete it")
        return self._read(self.path)

    def _read(self, path: Path) -> tuple[Tally, State | None]:
        tensors, meta = read_tensors(path)
        if meta.get("kind") != KIND:
            raise UserError(f"{path} is not the state of an evaluation; it was left as it is")
        if meta.get("version") != VERSION or meta.get("check") != _check(tensors, meta):
            raise UserError(f"{path} is damaged or was written by another version; delete it to begin anew")
        belongs, ours = meta["belongs"], json.loads(json.dumps(dict(self.belongs)))
        if other := [name for name in ours if belongs.get(name) != ours[name]]:
            raise UserError(f"{path} is the state of another evaluation: not the same {', '.join(other)}")
        tally = Tally.unpack((_under(tensors, "tally/"), meta["tally"]))
        inside = meta["inside"]
        return tally, None if inside is None else (_under(tensors, "inside/"), inside)

    def save(self, tally: Tally, inside: State | None = None) -> None:
        """Write the file."""
        if self.path is None:
            return
        tensors, facts = tally.pack()
        named = {f"tally/{name}": value for name, value in tensors.items()}
        named |= {f"inside/{name}": value for name, value in (inside[0] if inside else {}).items()}
        meta = {"kind": KIND, "version": VERSION, "belongs": dict(self.belongs), "tally": facts}
        meta["inside"] = inside[1] if inside else None
        write_tensors(self.path, named, meta | {"check": _check(named, meta)})
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
