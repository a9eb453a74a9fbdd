"""Runs that differ only in the seed as one row, and what tells the rows apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from uiat.report.labels import beginning
from uiat.runs.reader import INDIFFERENT, RunFiles, leaves

DOUBT = "do not believe"  # how the verdict of the self-checks begins where they speak against a number


@dataclass(frozen=True)
class Group:
    """Runs of one method: equal in all but the seed, and judged by the same images under the same threat model.

    Args:
        runs: at least one.
        label: tells the group from the others.

    Example:
        >>> from pathlib import Path
        >>> runs = [RunFiles(Path(f"runs/{seed}"), {"name": "a", "seed": seed}) for seed in (0, 1)]
        >>> Group(tuple(runs), "a").seeds
        '0, 1'
    """

    runs: tuple[RunFiles, ...]
    label: str

    @property
    def seeds(self) -> str:
        """The seeds, with commas."""
        return ", ".join(str(run.setting("seed", "?")) for run in self.runs)

    @property
    def first(self) -> RunFiles:
        """The run of which there are pictures."""
        return self.runs[0]

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """The result of the first run; None for runs that were not evaluated."""
        return self.first.evaluation

    def values(self, attack: str) -> list[float]:
        """Accuracy of each run under an attack, in percent."""
        found = [(run.evaluation or {}).get("accuracy", {}).get(attack) for run in self.runs]
        return [100 * value for value in found if value is not None]

    @property
    def training_seconds(self) -> list[float]:
        """Of each run."""
        return [run.seconds for run in self.runs]

    @property
    def evaluation_seconds(self) -> list[float]:
        """Of each run that was evaluated."""
        return [sum(run.evaluation.get("seconds", {}).values()) for run in self.runs if run.evaluation is not None]

    @property
    def verdicts(self) -> list[str]:
        """What the self-checks said, each once, with the seeds where it is not the same for all."""
        said: dict[str, list[str]] = {}
        for run in self.runs:
            text = str((run.evaluation or {}).get("verdict") or "")
            said.setdefault(text, []).append(str(run.setting("seed", "?")))
        if len(said) == 1:
            return [text for text in said if text]
        return [f"seed {', '.join(seeds)}: {text}" for text, seeds in said.items() if text]

    @property
    def verdict(self) -> str:
        """In two words: "doubtful" as soon as one run is."""
        verdicts = [str((run.evaluation or {}).get("verdict") or "") for run in self.runs]
        if any(text.startswith(DOUBT) for text in verdicts):
            return "doubtful"
        return "credible" if all(verdicts) else "not checked"


def group_runs(runs: Sequence[RunFiles]) -> list[Group]:
    """The runs in groups, in the order in which they first appear, each with a label of its own.

    Example:
        >>> from pathlib import Path
        >>> config = {"name": "a", "objective": {"weight": 1}}
        >>> one, two = (RunFiles(Path(f"runs/{w}"), config | {"objective": {"weight": w}}) for w in (1, 2))
        >>> [group.label for group in group_runs([one, two])]
        ['a, weight=1', 'a, weight=2']
    """
    parts: dict[str, list[RunFiles]] = {}
    for run in runs:
        parts.setdefault(_key(run), []).append(run)
    members = list(parts.values())
    labels = [_label(group[0], members) for group in members]
    for i, label in enumerate(labels):
        if labels.count(label) > 1:  # equal settings, and judged differently
            labels[i] = f"{label} ({members[i][0].folder.name})"
    return [Group(tuple(group), label) for group, label in zip(members, labels, strict=True)]


def _key(run: RunFiles) -> str:
    settings = [
        (path, value) for path, value in leaves(run.config) if not path.startswith((*INDIFFERENT, "evaluation"))
    ]
    return json.dumps([settings, _facts(run)], default=str, sort_keys=True)


def _facts(run: RunFiles) -> list[Any]:
    """What a result is of."""
    if run.evaluation is None:
        return []
    return [run.evaluation.get(name) for name in ("data", "split", "threat", "n", "which")]


def run_name(run: RunFiles) -> str:
    """The name of a run, or that of its folder.

    Example:
        >>> from pathlib import Path
        >>> run_name(RunFiles(Path("runs/a"), {}))
        'a'
    """
    return str(run.setting("name", run.folder.name))


def _label(run: RunFiles, members: list[list[RunFiles]]) -> str:
    """The name without what all have in common, and the settings by which namesakes are told apart.

    Of these, what most namesakes have is left out: in an ablation each label says what is unusual about its run.
    """
    name = run_name(run)
    namesakes = [other[0] for other in members if run_name(other[0]) == name]
    told = {}
    for path, values in find_differences(namesakes):
        value = run.setting(path)
        if value is not None and 2 * values.count(value) <= len(values):
            told[path] = value
    ends = [path.rpartition(".")[2] for path in told]
    short = name.removeprefix(beginning([run_name(other[0]) for other in members]))
    settings = [
        f"{end if ends.count(end) == 1 else path}={value}"
        for end, (path, value) in zip(ends, told.items(), strict=True)
    ]
    return ", ".join([short or name, *settings])


def find_differences(runs: Sequence[RunFiles]) -> list[tuple[str, list[Any]]]:
    """Settings in which runs differ, with the value of each; a value that a run does not have is None.

    Example:
        >>> from pathlib import Path
        >>> runs = [RunFiles(Path("runs/a"), {"seed": s, "data": {"name": "digits"}, "x": s}) for s in (0, 1)]
        >>> find_differences(runs)
        [('x', [0, 1])]
    """
    flat = [dict(leaves(run.config)) for run in runs]
    paths = list(dict.fromkeys(path for settings in flat for path in settings))
    rows = [(path, [settings.get(path) for settings in flat]) for path in paths if not path.startswith(INDIFFERENT)]
    return [(path, values) for path, values in rows if any(value != values[0] for value in values)]


def attack_names(groups: Sequence[Group]) -> list[str]:
    """The names under which any run was judged: clean first, ensembles after single attacks, the worst case last.

    Example:
        >>> attack_names([])
        []
    """
    results = [run.evaluation["accuracy"] for group in groups for run in group.runs if run.evaluation is not None]
    names = list(dict.fromkeys(name for accuracy in results for name in accuracy))
    return sorted(names, key=lambda name: (name != "clean", name == "worst", name.startswith("autoattack")))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean, with the standard deviation of a sample where there are several values; a dash for none.

    Example:
        >>> spread([50.0, 52.0]), spread([50.0]), spread([])
        ('51.00 ± 1.41', '50.00', '–')
    """
    if not values:
        return "–"
    centre = f"{mean(values):,.{digits}f}"
    return centre if len(values) == 1 else f"{centre} ± {stdev(values):,.{digits}f}"
