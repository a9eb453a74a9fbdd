"""What a randomised model was asked, and how often it was wrong: the hardest examples so far, and the final calls.

The example of an image that most calls misclassify is chosen by the calls that its stage ends with. How often the model
is wrong on it is then measured by others, in which luck had no part: the accuracy is the mean over these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from uiat.shapes import Bool, Int

CLEAN, WORST = "clean", "worst"
_PREFIXES = {"hardest": "asked/hardest/", "most_wrong": "asked/most/", "correct_calls": "asked/calls/"}


@dataclass
class Asked:
    """Of each named attack, of "clean" (the images as they are) and of "worst", the hardest over all of these.

    Args:
        hardest: the example of each image that most calls misclassified, (n, ...).
        most_wrong: the number of these calls, (n,).
        correct_calls: of the final calls, the number of images that each classified correctly, (calls,).
        wrong_calls: of the final calls on the hardest examples, the number that misclassified each image, (n,).

    Example:
        >>> asked = Asked()
        >>> x, some = torch.zeros(2, 1), torch.tensor([True, False])
        >>> asked.add("clean", x, torch.tensor([0, 3]))
        >>> asked.add("fgsm", x + 1, torch.tensor([2, 2]))
        >>> asked.hardest["fgsm"].flatten().tolist(), asked.most_wrong["worst"].tolist()
        ([1.0, 0.0], [2, 3])
    """

    hardest: dict[str, Tensor] = field(default_factory=dict)
    most_wrong: dict[str, Int[Tensor, "n"]] = field(default_factory=dict)
    correct_calls: dict[str, Int[Tensor, "calls"]] = field(default_factory=dict)
    wrong_calls: Int[Tensor, "n"] | None = None

    def add(self, name: str, x_adv: Tensor, count: Int[Tensor, "n"], *, counted: bool = True) -> None:
        """Record the examples of a stage, and how many calls misclassified each; -1 for an image that has none.

        Those of an attack that is not `counted` are no part of the worst case.
        """
        for key in (name, WORST) if counted else (name,):
            hardest, most = self.of(key) if CLEAN in self.hardest else (x_adv, count)
            better = count >= most
            self.hardest[key] = torch.where(better.view(-1, *[1] * (x_adv.ndim - 1)), x_adv, hardest)
            self.most_wrong[key] = torch.maximum(count, most)

    def of(self, name: str) -> tuple[Tensor, Int[Tensor, "n"]]:
        """Return the hardest examples of an attack and their counts: at first the images as they are."""
        key = name if name in self.hardest else CLEAN
        return self.hardest[key], self.most_wrong[key]

    def conclude(self, name: str, wrong: Bool[Tensor, "calls n"]) -> None:
        """Record the final calls on the hardest examples of an attack."""
        self.correct_calls[name] = (~wrong).sum(dim=1)
        if name == WORST:
            self.wrong_calls = wrong.sum(dim=0)

    def pack(self) -> dict[str, Tensor]:
        """Return all of it as tensors, for a state file."""
        packed = {
            f"{prefix}{name}": value
            for kind, prefix in _PREFIXES.items()
            for name, value in getattr(self, kind).items()
        }
        return packed | ({} if self.wrong_calls is None else {"asked/wrong_calls": self.wrong_calls})

    @classmethod
    def unpack(cls, tensors: dict[str, Tensor]) -> "Asked | None":
        """Return what `pack` was called on; None where there is nothing of it."""
        parts: dict[str, Any] = {
            kind: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            for kind, prefix in _PREFIXES.items()
        }
        return cls(**parts, wrong_calls=tensors.get("asked/wrong_calls")) if parts["hardest"] else None


def merge_asked(
    parts: Sequence[Asked | None], rows: Callable[[Sequence[Tensor | None]], Any], *, is_first: bool
) -> Asked | None:
    """Return what was asked about one process's images, from what all processes of another number of them asked.

    Final calls that not all have made are made again; those that all have are added up in the first process.

    Args:
        parts: what each of the processes there were has asked.
        rows: returns the rows of this process's images from the columns of all parts.
        is_first: True for the first process.

    Example:
        >>> parts = [Asked(), Asked()]
        >>> for part in parts:
        ...     part.add("clean", torch.zeros(1, 1), torch.tensor([1]))
        >>> merge_asked(parts, torch.cat, is_first=True).most_wrong["clean"].tolist()
        [1, 1]
    """
    asked = [part for part in parts if part is not None]
    if len(asked) < len(parts) or not asked:
        return None
    names = dict.fromkeys(name for part in asked for name in part.hardest)
    done = [name for name in asked[0].correct_calls if all(name in part.correct_calls for part in asked)]
    return Asked(
        hardest={name: rows([part.of(name)[0] for part in asked]) for name in names},
        most_wrong={name: rows([part.of(name)[1] for part in asked]) for name in names},
        correct_calls={name: int(is_first) * sum(part.correct_calls[name] for part in asked) for name in done},  # type: ignore[misc]
        wrong_calls=rows([part.wrong_calls for part in asked]) if WORST in done else None,
    )
