"""The state file of a certification by randomised smoothing: stopped at any moment, it is resumed to the same radii."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from uiat.errors import UserError
from uiat.system.distributed import Rank
from uiat.system.manifest import sum_of_tensors
from uiat.system.tensor_files import read_tensors, write_tensors

KIND = "uiat.smoothing"
SECONDS = 60.0  # between two writes
Found = dict[int, tuple[int, int]]  # by the position of the image: the class that was guessed, and how many got it


def require_none(path: Path | None) -> None:
    """Refuse a state that an earlier certification has left, by any number of processes.

    Raises:
        UserError: names the file.

    Example:
        >>> require_none(None)
    """
    for left in Rank.paths(path).values() if path is not None else ():
        raise UserError(f"{left} holds the state of a certification: resume it (resume) or delete the file")


@dataclass
class SmoothingState:
    """What is known of the images so far, of one process; what others have left is read too.

    Args:
        path: the file; None keeps nothing.
        rank: this process.
        belongs: what tells this certification from others.

    Example:
        >>> SmoothingState(None, Rank(), "").open(resume=True)
        {}
    """

    path: Path | None
    rank: Rank
    belongs: str
    written: float = field(default_factory=time.monotonic, init=False)

    @classmethod
    def of(
        cls, path: Path | None, rank: Rank, model: nn.Module, x: Tensor, settings: Sequence[float]
    ) -> "SmoothingState":
        """Return the state of the certification of these images with these settings."""
        if path is None:
            return cls(None, rank, "")
        numbers = torch.tensor(settings, dtype=torch.float64)
        return cls(path, rank, sum_of_tensors({**model.state_dict(), "": x, "settings": numbers}))

    def open(self, *, resume: bool) -> Found:
        """Return what is known, by any number of processes.

        Raises:
            UserError: a file that is in the way, damaged, or of another certification.
        """
        found: Found = {}
        if not resume:
            require_none(self.path)
        for path in Rank.paths(self.path).values() if self.path is not None else ():
            tensors, meta = read_tensors(path)
            if meta.get("kind") != KIND or meta.get("belongs") != self.belongs or set(tensors) != {"found"}:
                raise UserError(f"{path} is the state of another certification; it was left as it is")
            found |= {i: (guess, count) for i, guess, count in tensors["found"].tolist()}
        return found

    def save_if_due(self, found: Found) -> None:
        """Write the file where the last time is long ago."""
        if time.monotonic() - self.written >= SECONDS:
            self.save(found)

    def save(self, found: Found) -> None:
        """Write the file."""
        if (path := self.rank.path(self.path)) is not None:
            rows = torch.tensor([(i, *row) for i, row in sorted(found.items())], dtype=torch.int64).view(-1, 3)
            write_tensors(path, {"found": rows}, {"kind": KIND, "belongs": self.belongs})
            self.written = time.monotonic()
