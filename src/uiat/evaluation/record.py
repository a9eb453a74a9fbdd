"""Write evaluation.json: sealed by its own sum, never over an earlier one."""

import itertools
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from uiat.errors import UserError
from uiat.system.atomic_files import write_bytes, write_json
from uiat.system.bounded_files import read_file
from uiat.system.manifest import SEAL, is_sealed, seal, sum_of_tensor_file

logger = logging.getLogger("uiat")
EVALUATION_FILE = "evaluation.json"
FORMAT = 2  # of records; those of version 0.1 have neither a format nor a sum
OUTSIDE_BALL = ("PatchAttack", "Recolour", "Spatial")  # attacks that are no part of the worst case over a ball
FITTED = "fitting images"  # among the sums of what an evaluation is of: the images that attacks were fitted on
# As `uiat.runs.reader` names them, which this package does not know.
WEIGHTS_FILES = {"best": "best.safetensors", "last": "last.safetensors"}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record of an evaluation.

    Example:
        >>> import json, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(Path(folder) / "evaluation.json", {"n": 2})
        ...     sorted(json.loads((Path(folder) / "evaluation.json").read_text()))
        ['format', 'n', 'sha256']
    """
    write_json(path, sealed(record))


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as the file holds it: with its format and its sum.

    Example:
        >>> list(sealed({"n": 2}))
        ['format', 'n', 'sha256']
    """
    return seal({"format": FORMAT, **record})


def outside_ball(budgets: Mapping[str, Any]) -> set[str]:
    """Return the names of the attacks that are no part of the worst case, by the budgets of an evaluation.

    Example:
        >>> outside_ball({"spatial": {"attack": "Spatial"}, "fgsm": {"attack": "PGD"}})
        {'spatial'}
    """
    return {
        name for name, budget in budgets.items() if isinstance(budget, Mapping) and budget.get("attack") in OUTSIDE_BALL
    }


def keep_earlier(path: Path) -> Path | None:
    """Give a result that is in the way of a new one the next free number, as evaluation-1.json; None if none is.

    A damaged one is set aside under a name that is never read again, as evaluation-damaged-1.json, with a warning.

    Raises:
        UserError: it cannot be kept, and so nothing should take its place.

    Example:
        >>> keep_earlier(Path("missing/evaluation.json"))
    """
    if not path.is_file():
        return None
    content: bytes | None = None
    with suppress(UserError, OSError):  # a link to what has no end, far larger than any record, or not to be read
        content = read_file(path)
    is_whole = content is not None and _is_whole(content)
    stem = path.stem if is_whole else f"{path.stem}-damaged"
    numbered = (path.with_stem(f"{stem}-{number}") for number in itertools.count(1))
    kept = next(other for other in numbered if not other.exists())
    if content is None:
        _rename(path, kept)
    else:
        write_bytes(kept, content)  # and not renamed: a kill leaves a result under the usual name, too
    if not is_whole:
        logger.warning("%s could not be read: it is set aside as %s, and counts no more", path, kept.name)
    return kept if is_whole else None


def _rename(path: Path, kept: Path) -> None:
    try:
        path.rename(kept)
    except OSError as error:
        raise UserError(f"cannot set {path} aside as {kept.name}: {error.strerror}") from None


def _is_whole(content: bytes) -> bool:
    """True for a record of a known format whose sum, if it has one, is that of its contents."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return False
    if not isinstance(record, dict) or record.get("format", 1) not in (1, FORMAT):
        return False
    return is_sealed(record) if SEAL in record or "format" in record else "accuracy" in record


def which_weights(folder: Path, weights: str) -> str:
    """Return whether weights of this sum are a run folder's "best" or "last".

    Raises:
        UserError: they are neither.

    Example:
        >>> which_weights(Path("missing-run"), "e3b0")
        Traceback (most recent call last):
        uiat.errors.UserError: the model that was evaluated has neither the best nor the last weights of missing-run
    """
    for which, name in WEIGHTS_FILES.items():
        path = folder / name
        if path.is_file() and sum_of_tensor_file(path) == weights:
            return which
    raise UserError(f"the model that was evaluated has neither the best nor the last weights of {folder}")
