"""Group runs that differ only in the seed into one row, and tell the rows apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uiat.formatting import UNCHECKED, is_doubtful, was_checked
from uiat.report.labels import common_beginning, method_words
from uiat.runs.evaluations import attacks_in_ball
from uiat.runs.methods import assign_slots, method_name
from uiat.runs.reader import leaves, shared_by_repeats, tells_apart
from uiat.runs.run_files import RunFiles, find_copies


@dataclass(frozen=True)
class Group:
    """Runs of one method: equal in all but the seed, and evaluated on the same images under the same threat model.

    Args:
        runs: at least one run.
        label: a name that no other group has.
        slot: number of its colour, dash and marker, which its method has on every page (`uiat.runs.methods`).
        copies: sentences on runs that are left out because they are copies of these.

    Example:
        >>> from pathlib import Path
        >>> runs = [RunFiles(Path(f"runs/{seed}"), {"name": "a", "seed": seed}) for seed in (0, 1)]
        >>> Group(tuple(runs), "a").seeds
        '0, 1'
    """

    runs: tuple[RunFiles, ...]
    label: str
    slot: int = 0
    copies: tuple[str, ...] = ()

    @property
    def seeds(self) -> str:
        """The seeds, separated by commas."""
        return ", ".join(str(run.setting("seed", "?")) for run in self.runs)

    @property
    def first(self) -> RunFiles:
        """The run that stands for the group where one is shown, as in pictures."""
        return self.runs[0]

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """The result of the first run; None for runs that were not evaluated."""
        return self.first.evaluation

    @property
    def data(self) -> str:
        """The data set of the evaluation; of runs that were not evaluated, that of training."""
        return str((self.evaluation or {}).get("data") or self.first.setting("data.name", "?"))

    @property
    def attack_sets(self) -> set[frozenset[str]]:
        """The attacks in the ball that each run was evaluated under; one set where all have the same."""
        return {attacks_in_ball(run.evaluation) for run in self.runs if run.evaluation is not None}

    def values(self, attack: str) -> list[float]:
        """Return the accuracy of each run under an attack, in percent.

        There is no worst case where the runs were attacked differently: it would be a mean over different things.
        """
        if attack == "worst" and len(self.attack_sets) > 1:
            return []
        accuracies = [(run.evaluation or {}).get("accuracy", {}).get(attack) for run in self.runs]
        return [100 * value for value in accuracies if value is not None]

    @property
    def training_seconds(self) -> list[float]:
        """Seconds that the training of each run took, validation included."""
        return [run.seconds for run in self.runs]

    @property
    def evaluation_seconds(self) -> list[float]:
        """Seconds that the evaluation of each run took; runs that were not evaluated are left out."""
        return [sum(run.evaluation.get("seconds", {}).values()) for run in self.runs if run.evaluation is not None]

    @property
    def verdicts(self) -> list[str]:
        """Verdicts of the self-checks, each once, with the seeds where it is not the same for all."""
        by_text: dict[str, list[str]] = {}
        for run in self.runs:
            text = str((run.evaluation or {}).get("verdict") or "")
            by_text.setdefault(text, []).append(str(run.setting("seed", "?")))
        if len(by_text) == 1:
            return [text for text in by_text if text]
        return [f"seed {', '.join(seeds)}: {text}" for text, seeds in by_text.items() if text]

    @property
    def verdict(self) -> str:
        """The verdicts in two words: "doubtful" if one run is, "credible" if all were checked, or "not checked"."""
        verdicts = [str((run.evaluation or {}).get("verdict") or "") for run in self.runs]
        if any(map(is_doubtful, verdicts)):
            return "doubtful"
        return "credible" if all(map(was_checked, verdicts)) else UNCHECKED


def group_runs(runs: Sequence[RunFiles]) -> list[Group]:
    """Group runs, in the order in which they first appear, each group with a label of its own; copies count once.

    Example:
        >>> from pathlib import Path
        >>> config = {"name": "a", "objective": {"weight": 1}}
        >>> one, two = (RunFiles(Path(f"runs/{w}"), config | {"objective": {"weight": w}}) for w in (1, 2))
        >>> [group.label for group in group_runs([one, two])]
        ['a, weight=1', 'a, weight=2']
    """
    by_method: dict[str, list[RunFiles]] = {}
    for run in runs:
        by_method.setdefault(_key(run), []).append(run)
    every = list(by_method.values())
    found = [find_copies(group) for group in every]
    members = [[run for run in group if run.folder not in known] for group, known in zip(every, found, strict=True)]
    notes = [tuple(f"{copy} has the seed and the weights of {of}" for copy, of in known.items()) for known in found]
    labels = [_label(group[0], [group[0] for group in members]) for group in members]
    for i, label in enumerate(labels):
        if labels.count(label) > 1:  # equal settings, and evaluated differently
            labels[i] = f"{label} ({members[i][0].folder.name})"
    slots = assign_slots([method_name(group[0].config) for group in members])
    rows = zip(members, labels, slots, notes, strict=True)
    return [Group(tuple(group), label, slot, copies) for group, label, slot, copies in rows]


def _key(run: RunFiles) -> str:
    return json.dumps([shared_by_repeats(run.config), _facts(run)], default=str, sort_keys=True)


def _facts(run: RunFiles) -> list[Any]:
    """Return what two results must have in common to be those of one group."""
    if run.evaluation is None:
        return []
    sample = run.evaluation.get("sample")
    index = sample.get("index") if isinstance(sample, Mapping) else None  # None for the first images, and for all
    return [*(run.evaluation.get(name) for name in ("data", "split", "threat", "n", "which")), index]


def run_name(run: RunFiles) -> str:
    """Return the name of a run, or that of its folder.

    Example:
        >>> from pathlib import Path
        >>> run_name(RunFiles(Path("runs/a"), {}))
        'a'
    """
    return str(run.setting("name", run.folder.name))


def shared_beginning(runs: Sequence[RunFiles]) -> str:
    """Return the words with which the names of all runs begin: their setting, such as "cifar10-small-".

    Example:
        >>> from pathlib import Path
        >>> names = ["digits-n-fgsm", "digits-n-fgsm-uiat"]
        >>> objective = {"name": "pgd-at", "attack": {"steps": 1, "bounded": False}}
        >>> shared_beginning([RunFiles(Path(name), {"objective": objective}) for name in names])
        'digits-'
    """
    methods = set[str]().union(*(method_words(run.config) for run in runs))
    return common_beginning([run_name(run) for run in runs], methods)


def _label(run: RunFiles, firsts: Sequence[RunFiles]) -> str:
    """Return the name without what all have in common, and the settings by which namesakes are told apart.

    Of these, what most namesakes have is left out: in an ablation each label says what is unusual about its run.

    Args:
        run: the first run of a group.
        firsts: the first run of every group.
    """
    name = run_name(run)
    namesakes = [other for other in firsts if run_name(other) == name]
    unusual = {}
    for path, values in find_differences(namesakes):
        value = run.setting(path)
        if value is not None and 2 * values.count(value) <= len(values):
            unusual[path] = value
    fields = [path.rpartition(".")[2] for path in unusual]
    short = name.removeprefix(shared_beginning(firsts))
    settings = [
        f"{field if fields.count(field) == 1 else path}={value}"
        for field, (path, value) in zip(fields, unusual.items(), strict=True)
    ]
    return ", ".join([short or name, *settings])


def find_differences(runs: Sequence[RunFiles]) -> list[tuple[str, list[Any]]]:
    """List the settings in which runs differ, with the value of each run; None where it has no such setting.

    Example:
        >>> from pathlib import Path
        >>> runs = [RunFiles(Path("runs/a"), {"seed": s, "data": {"name": "digits"}, "x": s}) for s in (0, 1)]
        >>> find_differences(runs)
        [('x', [0, 1])]
    """
    flat = [dict(leaves(run.config)) for run in runs]
    paths = list(dict.fromkeys(path for settings in flat for path in settings))
    rows = [(path, [settings.get(path) for settings in flat]) for path in paths if tells_apart(path)]
    return [(path, values) for path, values in rows if any(value != values[0] for value in values)]


def attack_names(groups: Sequence[Group]) -> list[str]:
    """List the attacks of all runs: clean first, ensembles after single attacks, the worst case last.

    Example:
        >>> attack_names([])
        []
    """
    results = [run.evaluation["accuracy"] for group in groups for run in group.runs if run.evaluation is not None]
    names = list(dict.fromkeys(name for accuracy in results for name in accuracy))
    return sorted(names, key=lambda name: (name != "clean", name == "worst", name.startswith("autoattack")))
