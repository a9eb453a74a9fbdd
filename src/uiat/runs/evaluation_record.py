"""Read one record of an evaluation: sealed, of values that it can hold, none of which contradicts another."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from uiat.errors import UserError
from uiat.evaluation.record import EVALUATION_FILE, FORMAT, outside_ball
from uiat.formatting import parse_threat_record
from uiat.runs.reader import is_number, read_object
from uiat.system.bounded_files import nothing_of_links
from uiat.system.manifest import SEAL, is_sealed

_CLOSE, _MOST = 1e-6, 10**12  # the rounding of a fraction, and more images than any test set has
_ABSENT: Any = object()
Check = Callable[[Any], bool]


def _is(*kinds: type) -> Check:
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool)


def _is_place(value: Any) -> bool:
    """True for a position in a test set."""
    return _is(int)(value) and 0 <= value < _MOST


def _list_of(fits: Check, *, length: int | None = None) -> Check:
    return lambda value: isinstance(value, list) and all(map(fits, value)) and length in (None, len(value))


def _table_of(fits: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


def _record_of(**fields: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(fits(value.get(name)) for name, fits in fields.items())


def _or_none(fits: Check) -> Check:
    return lambda value: value is None or fits(value)


def _optional(fits: Check) -> Check:
    return lambda value: value is _ABSENT or fits(value)


_TEXT, _NUMBERS, _SHARES = _is(str), _list_of(is_number), _table_of(is_number)
_SWEEP = _record_of(norm=_TEXT, attack=_TEXT, epsilons=_NUMBERS, accuracy=_NUMBERS)
_CORRUPTIONS = _record_of(accuracy=_table_of(_SHARES))
_SMOOTHING = _record_of(sigma=is_number, accuracy=is_number, mean_radius=is_number, at=_NUMBERS, certified=_NUMBERS)
_RANGE = _list_of(is_number, length=2)
_UNTIL = _record_of(
    of=is_number, done=is_number, stopped=lambda value: isinstance(value, bool), bounds=_RANGE, interval=_RANGE
)
_CALLS = _record_of(calls=is_number, wrong=is_number, accuracy=_SHARES, intervals=_table_of(_RANGE))
_SAMPLE = _record_of(index=lambda value: value is None or _list_of(_is_place)(value))
# What each field can hold; those that a reader cannot do without come first.
_FITS: dict[str, Check] = {
    "accuracy": lambda value: _SHARES(value) and "clean" in value,
    "n": lambda value: _is(int)(value) and 0 < value < _MOST,
    "threat": _TEXT,
    **{name: _optional(_TEXT) for name in ("data", "which", "split", "verdict", "model", "run")},
    **{name: _optional(_SHARES) for name in ("seconds", "stage_seconds")},
    "calibration": _optional(
        lambda value: (
            isinstance(value, dict) and _SHARES({**value, "attacked": 0}) and _SHARES(value.get("attacked", {}))
        )
    ),
    **{name: _optional(_table_of(_SHARES)) for name in ("stages", "passes")},
    **{name: _optional(_is(dict)) for name in ("environment", "budgets")},
    **{name: _optional(_list_of(_TEXT)) for name in ("warnings", "broken_by")},
    **{name: _optional(_table_of(_or_none(_TEXT))) for name in ("sums", "files")},
    "seed": _optional(_is(int)),
    "intervals": _optional(_table_of(_RANGE)),
    "fairness": _optional(_table_of(_SHARES)),
    "per_class": _optional(_table_of(_list_of(_or_none(is_number)))),
    "sweep": _optional(lambda value: _SWEEP(value) and len(value["epsilons"]) == len(value["accuracy"])),
    "until": _optional(lambda value: value == {} or _UNTIL(value)),
    "calls": _optional(
        lambda value: value == {} or (_CALLS(value) and value["accuracy"].keys() <= value["intervals"].keys())
    ),
    "sample": _optional(_or_none(_SAMPLE)),
    "unseen": _optional(_record_of(accuracy=_SHARES)),
    "corruptions": _optional(_CORRUPTIONS),
    "corruption_files": _optional(_CORRUPTIONS),
    "smoothing": _optional(
        lambda value: (
            _table_of(_SMOOTHING)(value) and all(len(one["at"]) == len(one["certified"]) for one in value.values())
        )
    ),
    "certified": _optional(_record_of(accuracy=is_number, threat=_TEXT, certified_by=_list_of(_TEXT))),
}


def read_record(path: Path) -> dict[str, Any] | None:
    """Read an evaluation; None if there is no such file.

    Raises:
        UserError: it is damaged: its sum is not that of its contents, a value is of another type than it can be, or
            its numbers contradict one another.

    Example:
        >>> read_record(Path("missing/evaluation.json"))
    """
    try:
        record = read_object(path)
    except UserError:
        raise _damaged(path, "it does not hold a JSON object") from None
    if record is None:
        return None
    with nothing_of_links(path, "an evaluation"):
        _check(path, record)
    return record


def _check(path: Path, record: Mapping[str, Any]) -> None:
    form = record.get("format", 1)
    if form not in (1, FORMAT):
        raise UserError(f"{path} has format {form!r}, which this version of uiat does not know")
    if (form == FORMAT or SEAL in record) and not is_sealed(record):
        raise _damaged(path, "its sha256 is not that of its contents")
    if fault := next((name for name, fits in _FITS.items() if not fits(record.get(name, _ABSENT))), None):
        raise _damaged(path, f"what it says of {fault!r} cannot be")
    try:
        parse_threat_record(record["threat"], path)
    except UserError:
        raise _damaged(path, f"{record['threat'][:40]!r} is no threat model") from None
    if contradiction := _contradiction(record):
        raise _damaged(path, contradiction)


def _damaged(path: Path, why: str) -> UserError:
    # A new evaluation takes the place of the latest one alone: a numbered one would be in the way for ever.
    advice = "evaluate the run again" if path.name == EVALUATION_FILE else "remove it"
    return UserError(f"{path} is damaged: {advice} ({why})")


def _contradiction(record: Mapping[str, Any]) -> str:
    """Return in words how the numbers of a record contradict one another; "" where they do not."""
    accuracy, n, apart = record["accuracy"], record["n"], outside_ball(record.get("budgets", {}))
    for name, value in accuracy.items():
        if not -_CLOSE <= value <= 1 + _CLOSE:
            return f"the accuracy {name} is {value:g}, no fraction"
        if abs(value * n - round(value * n)) > 1e-3:
            return f"the accuracy {name}, {value:g}, is no number of its {n} images"
        low, high = record.get("intervals", {}).get(name, (0.0, 1.0))
        if not low - _CLOSE <= value <= high + _CLOSE:
            return f"the accuracy {name}, {value:g}, is outside its interval, {low:g} to {high:g}"
        shares = [share for share in record.get("per_class", {}).get(name, ()) if share is not None]
        if shares and not min(shares) - _CLOSE <= value <= max(shares) + _CLOSE:
            return f"the accuracy {name}, {value:g}, is not between those of its classes"
        if "worst" in accuracy and name not in apart and value < accuracy["worst"] - _CLOSE:
            return f"the accuracy {name}, {value:g}, is below the worst case, {accuracy['worst']:g}"
    index = (record.get("sample") or {}).get("index")
    if index and len(index) != n:
        return f"it has the positions of {len(index)} images and not of {n}"
    broken = record.get("broken_by")
    if broken and len(broken) != n:
        return f"it has verdicts on {len(broken)} images and not on {n}"
    proofs = record.get("certified", {}).get("certified_by", ())
    if broken and any(proof and attack for proof, attack in zip(proofs, broken, strict=False)):
        return "an image is certified and broken"
    if broken and "worst" in accuracy and abs(broken.count("") / n - accuracy["worst"]) > _CLOSE:
        return f"{broken.count('')} of its {n} images are robust, and its worst case is {accuracy['worst']:g}"
    return ""
