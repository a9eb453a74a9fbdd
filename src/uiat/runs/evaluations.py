"""Read the evaluations of a folder: refuse damaged ones, pass over stale ones, and choose what counts as the result.

Evaluations stand side by side, as evaluation.json and evaluation-1.json, -2 and so on. The result of a run is that
under its own threat model on most images, of these the lowest worst case, joined with others on the very same images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uiat.data import open_data
from uiat.data.hf_folder import list_hf_files
from uiat.errors import UserError
from uiat.evaluation.record import EVALUATION_FILE, FITTED, WEIGHTS_FILES, outside_ball
from uiat.formatting import is_doubtful, threat_record
from uiat.intervals import wilson
from uiat.runs.config_file import CUSTOM, read_settings, threat_of
from uiat.runs.evaluation_record import read_record
from uiat.runs.reader import CONFIG_FILE
from uiat.system.home import expand_home
from uiat.system.manifest import sum_of, sum_of_file, sum_of_tensor_file

_SAME = ("data", "split", "threat", "n", "which")  # and sums: what evaluations that are joined have in common
# Fields by attack, which are put together where evaluations are joined.
_BY_ATTACK = ("seconds", "stages", "passes", "stage_seconds", "intervals", "per_class", "fairness", "budgets")


@dataclass(frozen=True)
class Found:
    """An evaluation of a folder.

    Args:
        path: its file.
        record: what the file holds.
        stale: why it is not of what the folder holds now; "" if it is.
    """

    path: Path
    record: Mapping[str, Any]
    stale: str = ""

    @property
    def worst(self) -> float:
        """The accuracy in the worst case; that on the images as they are where nothing was attacked."""
        accuracy = self.record["accuracy"]
        return float(accuracy.get("worst", accuracy["clean"]))

    @property
    def attacks(self) -> set[str]:
        """The names of its attacks in the ball: those that its worst case is over."""
        return set(self.record["accuracy"]) - {"clean", "worst", *outside_ball(self.record.get("budgets", {}))}


def read_evaluation(folder: Path) -> dict[str, Any] | None:
    """Read what counts as the result of a folder; None if there is no evaluation of what it holds now.

    Raises:
        UserError: a file is damaged.

    Example:
        >>> read_evaluation(Path("missing-run"))
    """
    return choose(folder)[0]


def choose(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return what counts as the result of a folder, and notes: which file it is, and which are stale.

    Raises:
        UserError: a file is damaged.

    Example:
        >>> choose(Path("missing-run"))
        (None, [])
    """
    every = find_evaluations(folder)
    notes = [f"stale: {found.path.name} is {found.stale}; it is passed over" for found in every if found.stale]
    fresh = [found for found in every if not found.stale]
    if not fresh:
        return None, notes
    threat, data = _own(folder)
    first = min(fresh, key=lambda found: _rank(found, threat, data))
    rest = [found for found in fresh if found is not first]
    same = [found for found in rest if _has_attacks(found) and _on_same_images(first.record, found.record)]
    others = [found for found in rest if found not in same]
    if same:
        notes.append(f"the result joins {_names([first, *same])}, of the same {first.record['n']:,} images")
    elif others:
        notes.append(f"the result is that of {first.path.name}: the lowest worst case on most images")
    notes += [f"beside it: {_describe(found)}" for found in others]
    result = dict(first.record)
    for found in same:
        result = _join(result, found.record)
    # What is certified may be in a record of its own, without attacks.
    alike = [found.record for found in rest if _are_alike(first.record, found.record)]
    if smoothing := {name: one for record in [*alike, result] for name, one in record.get("smoothing", {}).items()}:
        result["smoothing"] = smoothing
    return result, notes


def _own(folder: Path) -> tuple[str | None, str | None]:
    """Return the threat model and the data of a run, as evaluations name them; None for what is no run."""
    if not (folder / CONFIG_FILE).is_file():
        return None, None
    tree = read_settings(folder)
    threat = threat_of(tree)
    # Data that was passed to `fit` has a name of its own, which no evaluation has.
    data = None if tree["model"].get("name") == CUSTOM else str(tree["data"].get("name"))
    return None if threat is None else threat_record(threat), data


def _rank(found: Found, threat: str | None, data: str | None) -> tuple[Any, ...]:
    record = found.record
    is_own = threat in (None, record["threat"]) and record.get("data", data) in (None, data)
    return not is_own, record.get("which", "best") != "best", not found.attacks, -record["n"], found.worst


def attacks_in_ball(record: Mapping[str, Any]) -> frozenset[str]:
    """Return the attacks of an evaluation over which its worst case is.

    Example:
        >>> attacks_in_ball({"accuracy": {"clean": 1.0, "fgsm": 0.5, "worst": 0.5}})
        frozenset({'fgsm'})
    """
    return frozenset(record["accuracy"]) - {"clean", "worst"} - outside_ball(record.get("budgets", {}))


def _has_attacks(found: Found) -> bool:
    return bool(set(found.record["accuracy"]) - {"clean", "worst"})


def _on_same_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    whole = all(len(each.get("broken_by") or ()) == each["n"] for each in (one, other))
    return whole and _are_alike(one, other)


def _are_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    same = all(one.get(name) == other.get(name) for name in _SAME) and _rule(one) == _rule(other)
    sums, others = (
        {**(each.get("sums") or {}), FITTED: ""} for each in (one, other)
    )  # on whatever attacks were fitted
    return same and bool(one.get("sums")) and sums == others


def _rule(record: Mapping[str, Any]) -> tuple[int, int]:
    """Return in how many calls, and of how many, an image has to be wrong to count as broken."""
    calls = record.get("calls") or {}
    return calls.get("wrong", 1), calls.get("calls", 1)


def _names(found: Sequence[Found]) -> str:
    names = [one.path.name for one in found]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _describe(found: Found) -> str:
    record = found.record
    facts = [f"{record['n']:,} images", str(record["threat"]), f"{100 * found.worst:.2f} % in the worst case"]
    if record.get("which", "best") != "best":
        facts.insert(0, f"{record['which']} weights")
    return f"{found.path.name} ({', '.join(facts)})"


def _join(one: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Join two evaluations of the same images: an image counts as right only if no attack of either breaks it."""
    joined = {**one}
    better = {name: value for name, value in other["accuracy"].items() if value < one["accuracy"].get(name, math.inf)}
    for name in _BY_ATTACK:
        mine, theirs = one.get(name, {}), other.get(name, {})
        joined[name] = {**theirs, **mine, **{attack: theirs[attack] for attack in better if attack in theirs}}
    joined["sums"] = {**other["sums"], **one["sums"]}
    joined["broken_by"] = [mine or theirs for mine, theirs in zip(one["broken_by"], other["broken_by"], strict=True)]
    right, n = joined["broken_by"].count(""), one["n"]
    accuracy = {**other["accuracy"], **one["accuracy"], **better}
    accuracy.pop("worst", None)
    joined["accuracy"] = {**accuracy, "worst": right / n}
    joined["intervals"] = {**joined["intervals"], "worst": wilson(right, n)}
    if right / n != min(one["accuracy"]["worst"], other["accuracy"]["worst"]):
        for by_class in ("per_class", "fairness"):
            joined[by_class].pop("worst", None)  # they would need the labels
    attacked = {**other.get("calibration", {}).get("attacked", {}), **one.get("calibration", {}).get("attacked", {})}
    if attacked:
        joined["calibration"] = {**one["calibration"], "attacked": attacked}
    joined["warnings"] = list(dict.fromkeys([*one.get("warnings", ()), *other.get("warnings", ())]))
    verdicts = [str(each.get("verdict") or "") for each in (one, other)]
    joined["verdict"] = next((text for text in verdicts if is_doubtful(text)), verdicts[0] or verdicts[1])
    return joined


def find_evaluations(folder: Path) -> list[Found]:
    """Read every evaluation of a folder, the latest first.

    Raises:
        UserError: a file is damaged.

    Example:
        >>> find_evaluations(Path("missing-run"))
        []
    """
    latest = folder / EVALUATION_FILE
    stem = latest.stem
    numbered = [path for path in folder.glob(f"{stem}-*.json") if path.stem.removeprefix(f"{stem}-").isdecimal()]
    numbered.sort(key=lambda path: -int(path.stem.removeprefix(f"{stem}-")))
    sums: dict[str, str] = {}
    found = []
    for path in [latest, *numbered]:
        if (record := read_record(path)) is not None:
            found.append(Found(path, record, _staleness(folder, record, sums)))
    return found


def _staleness(folder: Path, record: Mapping[str, Any], sums: dict[str, str]) -> str:
    """Return what a record was made of that is not there any more; "" where nothing else is known.

    Args:
        folder: the folder.
        record: the evaluation.
        sums: of the weights of the folder, by file, as far as they are known; added to.
    """
    made_of, which = (record.get("sums") or {}).get("weights"), record.get("which")
    path = folder / WEIGHTS_FILES[which] if which in WEIGHTS_FILES else None
    if made_of is not None and path is not None and path.is_file():
        if path.name not in sums:
            sums[path.name] = sum_of_tensor_file(path)
        if sums[path.name] != made_of:
            return f"of other weights than {path.name}"
    files = record.get("files") or {}
    weights = None if (folder / CONFIG_FILE).is_file() else record.get("weights")  # a run's lie in its folder
    # Anybody can seal a record that lists any file of this machine: what it is not of is not read.
    for name in sources_of(record.get("data"), record.get("model"), weights):
        found = sum_of_source(name) if name in files else None
        if found is not None and found != files[name]:
            return f"of another {name} than there is now"
    return ""


def sources_of(data: Any, model: Any, weights: Any) -> list[str]:
    """Return the names of what an evaluation is of that can lie in files outside its folder.

    Args:
        data: the name of the images.
        model: the name of the model.
        weights: the file of its weights, where they are no run's.

    Example:
        >>> sources_of("npz:a.npz", "net.py:make", None), sources_of("digits", "small-cnn", "net.pth")
        (['npz:a.npz', 'net.py'], ['digits', 'net.pth'])
    """
    code, colon, _ = str(model).rpartition(":")
    names = [data, code if colon and code.endswith(".py") else None, weights]
    return [name for name in names if isinstance(name, str)]


def sum_of_source(name: str) -> str | None:
    """Return the sha256 of a file of code or weights, or of the list of an image folder's test images.

    Args:
        name: a path, "imagefolder:PATH" (of its images the names, classes and sizes count), "hf:FOLDER" (likewise, of
            its files), "npz:FILE", or "file.py:NAME".

    Returns:
        None for what is not there.

    Example:
        >>> sum_of_source("missing.py")
    """
    kind, _, place = name.partition(":")
    file = expand_home(place if kind == "npz" else kind if kind.endswith(".py") and place else name)
    if kind not in ("imagefolder", "hf") or not place:
        return sum_of_file(file) if file.is_file() else None
    try:
        if kind == "hf":
            files = list_hf_files(place)
            return sum_of("\n".join(f"{path.name}/{path.stat().st_size}" for path in files).encode()) if files else None
        data = open_data(name, "test")
        paths = [Path(path) for path in getattr(data, "paths", ())]
        rows = ["/".join([*path.parts[-2:], str(path.stat().st_size)]) for path in paths]
    except (UserError, OSError):
        return None
    return sum_of("\n".join(rows).encode())
