"""Compare two evaluations image by image: who withstands what the other does not, and whether that can be chance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uiat.errors import UserError
from uiat.formatting import threat_text
from uiat.intervals import binomial_tail
from uiat.runs.evaluations import Found, find_evaluations

_SAME = ("data", "split", "threat", "n")  # what has to be the same of two evaluations, in words a user knows


@dataclass(frozen=True)
class Fourfold:
    """How many images each of two models has right, and McNemar's exact test of the difference.

    Args:
        name: the attack, "clean" for none, "worst" for all of them.
        both: images that both have right.
        only_a: images that the first alone has right.
        only_b: images that the second alone has right.
        neither: images that neither has right.

    Example:
        >>> Fourfold("clean", 90, 8, 2, 0).p
        0.109
    """

    name: str
    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def p(self) -> float:
        """The probability of a difference as large or larger, were the two models equally good."""
        return mcnemar(self.only_a, self.only_b)


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same images.

    Args:
        a: the first folder, and the file of its evaluation.
        b: the second.
        data: name of the images.
        threat: the threat model.
        n: number of images.
        tables: for the images as they are, after each attack that both had in the same order, and in the worst case.
        broken: for each image, the first attack that broke each of the two models; "" for none.
        index: position of each image in the test set.
        notes: what a reader should know.
    """

    a: str
    b: str
    data: str
    threat: str
    n: int
    tables: Sequence[Fourfold]
    broken: Sequence[tuple[str, str]]
    index: Sequence[int]
    notes: Sequence[str] = ()

    @property
    def differing(self) -> list[int]:
        """Places of the images that one of the two alone has right in the worst case."""
        return [i for i, (a, b) in enumerate(self.broken) if bool(a) != bool(b)]

    def breakers(self, *, of_b: bool) -> dict[str, int]:
        """Count what breaks one model on the images that the other has right in the worst case."""
        counts: dict[str, int] = {}
        for a, b in self.broken:
            breaker, other = (b, a) if of_b else (a, b)
            if breaker and not other:
                counts[breaker] = counts.get(breaker, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        images = [{"index": self.index[i], "a": self.broken[i][0], "b": self.broken[i][1]} for i in self.differing]
        tables = [asdict(table) | {"p": table.p} for table in self.tables]
        facts = {"a": self.a, "b": self.b, "data": self.data, "threat": self.threat, "n": self.n}
        return facts | {"tables": tables, "differing": images, "notes": list(self.notes)}


def mcnemar(only_a: int, only_b: int) -> float:
    """Compute the p-value of McNemar's exact test (McNemar 1947), two-sided: only images that differ count.

    Args:
        only_a: images that the first alone has right.
        only_b: images that the second alone has right.

    Example:
        >>> mcnemar(8, 2), mcnemar(0, 0)
        (0.109, 1.0)
    """
    return min(1.0, 2 * binomial_tail(max(only_a, only_b), only_a + only_b, 0.5))


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compare the evaluations of two folders: of all pairs on the same images, that on most of them.

    An evaluation keeps the first attack that broke each image. So a table says how many images each model has right
    after an attack and all before it, which is the order of the evaluation.

    Raises:
        UserError: a folder without an evaluation, or none of the two on the same images under the same threat model.

    Example:
        >>> compare("missing-run", "other-run")
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run has no evaluation of what it holds now: uiat evaluate missing-run
    """
    first, second = _evaluations(Path(a)), _evaluations(Path(b))
    pairs = [(one, other) for one in first for other in second if not _difference(one.record, other.record)]
    if not pairs:
        raise UserError(f"{a} and {b} cannot be compared: {_difference(first[0].record, second[0].record)}")
    one, other = max(pairs, key=lambda pair: (pair[0].record["n"], len(_shared(*pair)), len(_order(pair[0]))))
    broken = list(zip(one.record["broken_by"], other.record["broken_by"], strict=True))
    seen: set[str] = set()
    tables = []
    for name, stages in _shared(one, other):
        seen |= set(stages)
        tables.append(_count(name, [(a in seen, b in seen) for a, b in broken]))
    tables.append(_count("worst", [(bool(a), bool(b)) for a, b in broken]))
    names = [[name for name, _ in _order(each)] for each in (one, other)]
    notes = []
    if names[0] != names[1]:
        notes.append(f"the worst case is over {', '.join(names[0])} for A and over {', '.join(names[1])} for B")
    record = one.record
    chosen = (record.get("sample") or {}).get("index") or list(range(record["n"]))
    return Comparison(
        a=str(one.path),
        b=str(other.path),
        data=str(record.get("data")),
        threat=threat_text(record["threat"]),
        n=record["n"],
        tables=tables,
        broken=broken,
        index=chosen,
        notes=notes,
    )


def _evaluations(folder: Path) -> list[Found]:
    found = [each for each in find_evaluations(folder) if not each.stale]
    if not found:
        raise UserError(f"{folder} has no evaluation of what it holds now: uiat evaluate {folder}")
    return found


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return why two evaluations are not of the same images; "" where they are."""
    for name in _SAME:
        if one.get(name) != other.get(name):
            what = {"n": "the number of images", "threat": "the threat model"}.get(name, f"the {name}")
            return f"{what} is {one.get(name)} in the first and {other.get(name)} in the second"
    sums, others = one.get("sums") or {}, other.get("sums") or {}
    if not all(len(each.get("broken_by") or ()) == each["n"] for each in (one, other)):
        return "an evaluation lacks the verdict on each image; evaluate again"
    if any(sums.get(name) != others.get(name) or not sums.get(name) for name in ("images", "labels")):
        return "they are of other images; evaluate both again with the same --data and --n"
    return ""


def _order(found: Found) -> list[tuple[str, tuple[str, ...]]]:
    """Return the attacks of the worst case in their order, each with the names of what breaks images in it."""
    stages = found.record.get("stages") or {}
    names = [name for name in found.record["accuracy"] if name in found.attacks | {"clean"}]
    return [(name, tuple(stages.get(name) or (name,))) for name in names]


def _shared(one: Found, other: Found) -> list[tuple[str, tuple[str, ...]]]:
    """Return the attacks that both began with, in the same order."""
    shared = []
    for mine, theirs in zip(_order(one), _order(other), strict=False):
        if mine != theirs:
            break
        shared.append(mine)
    return shared


def _count(name: str, wrong: Sequence[tuple[bool, bool]]) -> Fourfold:
    counts = [wrong.count(pair) for pair in ((False, False), (False, True), (True, False), (True, True))]
    return Fourfold(name, *counts)
