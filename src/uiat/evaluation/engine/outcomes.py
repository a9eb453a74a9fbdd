"""Outcomes of an evaluation under way, image by image, of one process or put together from several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from uiat.evaluation.engine.asked import Asked, merge_asked
from uiat.evaluation.engine.search_runner import State
from uiat.shapes import Bool, Int
from uiat.system.distributed import Rank


@dataclass
class Outcomes:
    """The outcomes of a process's images so far.

    Args:
        index: positions of the images among all.
        correct: for each named attack, finished or not, a mask of the images still classified correctly.
        broken_by: for each image, the number of the stage in `names` that broke it; -1 for a robust one.
        names: stages.
        examples: what broke each image, or the image itself; None where they are not kept.
        confidence: probability of the predicted class, of the images as they are.
        correct_in_call: of a randomised model: mask of the images whose class that very call predicted; None otherwise.
        counts_after: by attack and stage: the numbers of images correct under the attack, and under everything, when
            the stage had ended.
        costs: by attack and stage: seconds, images forward and backward; of an attack from outside also those
            "attacked", "projected" and left "unchanged".
        memory_limit: images that fit into memory at once, where it ran out.
        asked: of a randomised model: what was asked of it, see `engine.asked.Asked`; None otherwise.
        confidence_under: for attacks that end in an example for every image: probability of the class predicted for it,
            of images that were not attacked for themselves; NaN where an older state file does not say.
        fits: for each stage that was fitted before it was measured, its perturbations; the same in all processes.
        verdict_by_stage: for each stage: 1 for an image that is robust to it, 0 for one that it breaks, -1 for one not
            attacked with it.

    Example:
        >>> Outcomes(torch.arange(3)).robust.tolist()
        [True, True, True]
    """

    index: Int[Tensor, "n"]
    correct: dict[str, Bool[Tensor, "n"]] = field(default_factory=dict)
    broken_by: Int[Tensor, "n"] | None = None
    names: list[str] = field(default_factory=list)
    examples: Tensor | None = None
    confidence: Tensor | None = None
    correct_in_call: Bool[Tensor, "n"] | None = None
    counts_after: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    costs: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    memory_limit: int | None = None
    asked: Asked | None = None
    fits: dict[str, Tensor] = field(default_factory=dict)
    verdict_by_stage: dict[str, Int[Tensor, "n"]] = field(default_factory=dict)
    confidence_under: dict[str, Tensor] = field(default_factory=dict)

    @property
    def breaker(self) -> Int[Tensor, "n"]:
        """`broken_by`, from the start on."""
        return torch.full_like(self.index, -1) if self.broken_by is None else self.broken_by

    @property
    def robust(self) -> Bool[Tensor, "n"]:
        """Mask of the images that nothing has broken so far."""
        return self.breaker < 0

    def verdicts(self, stage: str) -> Int[Tensor, "n"]:
        """`verdict_by_stage` of a stage, from the start on."""
        return self.verdict_by_stage.get(stage, torch.full_like(self.index, -1))

    def record_verdicts(self, stage: str, mask: Bool[Tensor, "n"], correct: Bool[Tensor, "n"]) -> None:
        """Record which of the images in `mask` are robust to a stage, in whichever named attack it was run."""
        self.verdict_by_stage[stage] = torch.where(mask, correct.to(self.index), self.verdicts(stage))

    def record_confidence(self, name: str, mask: Bool[Tensor, "n"], confidence: Tensor | None) -> None:
        """Record the confidence on the examples of a named attack; the images outside `mask` were not attacked."""
        assert self.confidence is not None
        self.confidence_under[name] = torch.where(
            mask, self.confidence if confidence is None else confidence, self.confidence
        )

    def end_stage(
        self, name: str, stage: str, correct: Bool[Tensor, "n"], x_adv: Tensor, *, counted: bool = True
    ) -> None:
        """Record that a stage of a named attack has ended.

        Args:
            name: the attack.
            stage: its stage.
            correct: mask of the images that are still correct under the attack.
            x_adv: for each of the others the example that broke it.
            counted: False for an attack that is no part of the worst case.
        """
        broken = self.robust & ~correct & counted
        if stage not in self.names:
            self.names.append(stage)
        self.broken_by = self.breaker.masked_fill(broken, self.names.index(stage))
        if self.examples is not None:
            self.examples[broken] = x_adv[broken.to(x_adv.device)].to(self.examples)
        self.correct[name] = correct
        self.counts_after.setdefault(name, {})[stage] = [int(correct.sum()), int(self.robust.sum())]

    def add_cost(self, name: str, stage: str, cost: Mapping[str, float]) -> None:
        """Add to the cost of a stage."""
        total = self.costs.setdefault(name, {}).setdefault(stage, {})
        for kind, value in cost.items():
            total[kind] = total.get(kind, 0) + value

    def pack(self) -> State:
        """Return all of it as tensors and plain values, under the names that state files have always had."""
        tensors = {"index": self.index, "broken_by": self.breaker}
        tensors |= {f"right/{name}": value for name, value in self.correct.items()}
        tensors |= {f"known/{stage}": value for stage, value in self.verdict_by_stage.items()}
        tensors |= {f"confidence/{name}": value for name, value in self.confidence_under.items()}
        tensors |= {f"fit/{stage}": value for stage, value in self.fits.items()}
        tensors |= {} if self.asked is None else self.asked.pack()
        optional = {"examples": self.examples, "confidence": self.confidence, "correct_in_call": self.correct_in_call}
        tensors |= {name: value for name, value in optional.items() if value is not None}
        # Attacks in the order in which they were run, which sorted tensors would not tell.
        order = list(self.correct)
        plain = {"names": self.names, "after": self.counts_after, "spent": self.costs, "limit": self.memory_limit}
        return tensors, {**plain, "order": order}

    @classmethod
    def unpack(cls, state: State) -> "Outcomes":
        """Return the outcomes that `pack` was called on."""
        tensors, meta = state

        def named(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        return cls(
            tensors["index"],
            correct={name: tensors[f"right/{name}"] for name in meta["order"]},
            broken_by=tensors["broken_by"],
            names=meta["names"],
            examples=tensors.get("examples"),
            confidence=tensors.get("confidence"),
            correct_in_call=tensors.get("correct_in_call"),
            counts_after=meta["after"],
            costs=meta["spent"],
            memory_limit=meta["limit"],
            fits=named("fit/"),
            verdict_by_stage=named("known/"),
            confidence_under=named("confidence/"),
            asked=Asked.unpack(tensors),
        )


def merge_outcomes(parts: Sequence[Outcomes], rank: Rank) -> Outcomes | None:
    """Return the outcomes of one process's images, from those of all processes of another number of processes.

    A stage has ended where it has in all parts; of one that has only in some, the verdicts are kept. Counts and costs,
    which are added up in the end, go to the first process.

    Args:
        parts: the outcomes of each of the processes there were.
        rank: the process whose images are asked about.

    Returns:
        None where not all processes had looked at the images as they are.

    Example:
        >>> parts = [Outcomes(torch.tensor([r, r + 2]), confidence=torch.ones(2)) for r in (0, 1)]
        >>> for part in parts:
        ...     part.end_stage("clean", "clean", part.index > 0, torch.rand(2, 1))
        >>> one, second_of_four = (merge_outcomes(parts, rank) for rank in (Rank(), Rank(1, 4)))
        >>> one.correct["clean"].tolist(), second_of_four.index.tolist()
        ([False, True, True, True], [1])
    """
    if not all("clean" in part.counts_after for part in parts):
        return None
    # Rows of the concatenated parts lie in any order: `take` finds those of this process's images, in theirs.
    position = torch.cat([part.index for part in parts])
    index = rank.index(len(position))
    return _join(parts, index, position.argsort()[index], is_first=rank.first)


def append_outcomes(before: Outcomes, after: Outcomes) -> Outcomes:
    """Return the outcomes of one process's images put together from those of two parts, attacked one after the other.

    Args:
        before: the outcomes of the first part, of all its stages.
        after: those of the second part.

    Example:
        >>> parts = [Outcomes(torch.tensor([2 * r, 2 * r + 1]), confidence=torch.ones(2)) for r in (0, 1)]
        >>> for part in parts:
        ...     part.end_stage("clean", "clean", part.index > 0, torch.rand(2, 1))
        ...     part.add_cost("clean", "clean", {"seconds": 1.0})
        >>> both = append_outcomes(*parts)
        >>> both.correct["clean"].tolist(), both.counts_after["clean"], both.costs["clean"]["clean"]
        ([False, True, True, True], {'clean': [3, 3]}, {'seconds': 2.0})
    """
    index = torch.cat([before.index, after.index])
    both = _join([before, after], index, torch.arange(len(index)), is_first=True)
    seconds = {name: dict(stages) for name, stages in before.costs.items()}
    for name, stages in after.costs.items():
        for stage, cost in stages.items():
            both.costs[name][stage]["seconds"] = cost["seconds"] + seconds.get(name, {}).get(stage, {}).get(
                "seconds", 0
            )
    return both


def _join(parts: Sequence[Outcomes], index: Tensor, take: Tensor, *, is_first: bool) -> Outcomes:
    """Return the outcomes of the images at `index`, which are the rows `take` of the parts put behind one another."""

    def rows(columns: Sequence[Tensor | None]) -> Any:
        present = [column for column in columns if column is not None]
        return torch.cat(present)[take] if present else None

    names = list(dict.fromkeys(name for part in parts for name in part.names))
    # Each part numbers its stages for itself; the last entry keeps -1, "robust", as it is.
    renumber = [torch.tensor([*(names.index(name) for name in part.names), -1]) for part in parts]
    attacks = dict.fromkeys(name for part in parts for name in part.correct)
    stages = dict.fromkeys(stage for part in parts for stage in part.verdict_by_stage)
    examined = dict.fromkeys(name for part in parts for name in part.confidence_under)
    limits = [part.memory_limit for part in parts if part.memory_limit is not None]
    return Outcomes(
        index,
        correct={name: rows([p.correct.get(name, p.correct["clean"]) for p in parts]) for name in attacks},
        broken_by=rows([numbers[part.breaker] for numbers, part in zip(renumber, parts, strict=True)]),
        names=names,
        examples=rows([part.examples for part in parts]),
        confidence=rows([part.confidence for part in parts]),
        correct_in_call=rows([part.correct_in_call for part in parts]),
        counts_after=_merge_counts(parts, is_first=is_first),
        costs=_merge_costs(parts, is_first=is_first),
        memory_limit=min(limits) if limits else None,
        asked=merge_asked([part.asked for part in parts], rows, is_first=is_first),
        fits={stage: z for part in parts for stage, z in part.fits.items()},
        verdict_by_stage={stage: rows([part.verdicts(stage) for part in parts]) for stage in stages},
        confidence_under={
            name: rows([part.confidence_under.get(name, part.confidence) for part in parts]) for name in examined
        },
    )


def _merge_counts(parts: Sequence[Outcomes], *, is_first: bool) -> dict[str, dict[str, list[int]]]:
    """Sum the counts of the stages that have ended in all parts; zeros for all but the first process."""
    merged: dict[str, dict[str, list[int]]] = {}
    for name, stages in parts[0].counts_after.items():
        for stage in stages:
            counts = [part.counts_after.get(name, {}).get(stage) for part in parts]
            if all(count is not None for count in counts):
                merged.setdefault(name, {})[stage] = [int(is_first) * sum(c) for c in zip(*counts, strict=True)]
    return merged


def _merge_costs(parts: Sequence[Outcomes], *, is_first: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Sum the passes of all, and take the seconds of the slowest; zeros for all but the first process."""
    merged: dict[str, dict[str, dict[str, float]]] = {}
    for part in parts:
        for name, stages in part.costs.items():
            for stage, cost in stages.items():
                total = merged.setdefault(name, {}).setdefault(stage, {})
                for kind, value in cost.items():
                    both = (total.get(kind, 0), value)
                    total[kind] = int(is_first) * (max(both) if kind == "seconds" else sum(both))
    return merged
