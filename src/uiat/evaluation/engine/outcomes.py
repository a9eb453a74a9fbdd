"""What is known of the images in the course of an evaluation, by one process or by all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from uiat.evaluation.engine.search_runner import State
from uiat.system.distributed import Rank


@dataclass
class Outcomes:
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
        >>> Outcomes(torch.arange(3)).standing.tolist()
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
    def unpack(cls, state: State) -> "Outcomes":
        """Back from what `pack` made."""
        tensors, meta = dict[str, Any](state[0]), dict(state[1])
        values: dict[str, Any] = {"right": {name: tensors.pop(f"right/{name}") for name in meta.pop("order")}}
        values["known"] = {n.removeprefix("known/"): tensors.pop(n) for n in list(tensors) if n.startswith("known/")}
        return cls(**values, **tensors, **meta)


def merge_outcomes(tallies: Sequence[Outcomes], share: Rank) -> Outcomes | None:
    """What the tallies of all processes know of the images of one process among another number of them.

    A stage has ended where it has in all tallies; of one that has only in some, the verdicts are kept. None where not
    even the images as they are have been looked at by all. Counts and costs, which are added up in the end, go to the
    first process.

    Example:
        >>> parts = [Outcomes(torch.tensor([rank, rank + 2]), confidence=torch.ones(2)) for rank in (0, 1)]
        >>> for part in parts:
        ...     part.note("clean", "clean", part.index > 0, torch.rand(2, 1))
        >>> merge_outcomes(parts, Rank()).right["clean"].tolist(), merge_outcomes(parts, Rank(1, 4)).index.tolist()
        ([False, True, True, True], [1])
    """
    if not all("clean" in tally.after for tally in tallies):
        return None
    place = torch.cat([tally.index for tally in tallies])
    index = share.index(len(place))
    take = place.argsort()[index]

    def rows(parts: Sequence[Tensor | None]) -> Any:
        known = [part for part in parts if part is not None]
        return torch.cat(known)[take] if known else None

    names = list(dict.fromkeys(name for tally in tallies for name in tally.names))
    numbers = [torch.tensor([*(names.index(name) for name in t.names), -1]) for t in tallies]
    attacks = dict.fromkeys(name for tally in tallies for name in tally.right)
    stages = dict.fromkeys(stage for tally in tallies for stage in tally.known)
    limits = [tally.limit for tally in tallies if tally.limit is not None]
    return Outcomes(
        index,
        right={name: rows([t.right.get(name, t.right["clean"]) for t in tallies]) for name in attacks},
        broken_by=rows([which[t.breaker] for which, t in zip(numbers, tallies, strict=True)]),
        names=names,
        examples=rows([t.examples for t in tallies]),
        confidence=rows([t.confidence for t in tallies]),
        after=_ended(tallies, first=share.first),
        spent=_spent(tallies, first=share.first),
        limit=min(limits) if limits else None,
        known={stage: rows([t.verdicts(stage) for t in tallies]) for stage in stages},
    )


def _ended(tallies: Sequence[Outcomes], *, first: bool) -> dict[str, dict[str, list[int]]]:
    """The stages that have ended in all tallies, with the sums of their counts."""
    found: dict[str, dict[str, list[int]]] = {}
    for name, stages in tallies[0].after.items():
        for stage in stages:
            counts = [tally.after.get(name, {}).get(stage) for tally in tallies]
            if all(count is not None for count in counts):
                found.setdefault(name, {})[stage] = [int(first) * sum(c) for c in zip(*counts, strict=True)]
    return found


def _spent(tallies: Sequence[Outcomes], *, first: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Passes of all, and the seconds of the slowest."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for tally in tallies:
        for name, stages in tally.spent.items():
            for stage, cost in stages.items():
                total = found.setdefault(name, {}).setdefault(stage, dict.fromkeys(cost, 0))
                for kind, value in cost.items():
                    both = (total[kind], value)
                    total[kind] = int(first) * (max(both) if kind == "seconds" else sum(both))
    return found
