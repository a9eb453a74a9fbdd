"""Define a study: how it measures, what its numbers say, how they look; and the runs and images it is about."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from uiat import evaluation
from uiat.analyse.figures import Width
from uiat.analyse.prose import join_words
from uiat.attacks import PGD
from uiat.checks import checked_fields
from uiat.config.schema import Run
from uiat.data import Folder, ImageSet, as_float, take_images
from uiat.data.notices import warn_once
from uiat.errors import UserError
from uiat.experiments.arithmetic import describe_arithmetic, find_mixture
from uiat.formatting import threat_text
from uiat.runs import checkpoint
from uiat.runs.reader import METRICS_FILE, WEIGHTS_FILES, read_history
from uiat.runs.run_files import find_runs, is_evaluation_alone
from uiat.runs.settings import read_evaluated
from uiat.system.manifest import check_file
from uiat.threat import Threat, parse
from uiat.training.device import pick_device
from uiat.training.setup import load_datasets
from uiat.training.test_set import open_lasting_test_set

USUAL_N = 1000  # number of images where --n is left out and there are more
# The options that decide the numbers of a study; one that a study does not read is refused.
DECIDING = ("n", "seed", "threat", "attack", "epsilons", "which")
Split = Literal["test", "held-out", "train"]
Data = dict[str, Any]


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Study:
    """A study. `measure` gives plain data, and the rest reads nothing else, so that a figure can be drawn again.

    Args:
        name: name on the command line; the module of the study has the same, with underscores.
        about: what the study shows, in a line.
        measure: turns runs and images into plain data.
        sentences: says in words what the data show.
        draw: makes a matplotlib figure of the data.
        table: makes a heading and rows of the data, where a table says more than a paragraph.
        needs_pgd: True if the study makes adversarial examples of its own, for which the attack has to be a PGD.
        reads: which of the options that decide numbers (`DECIDING`) it reads.
    """

    name: str
    about: str
    measure: "Callable[[Context], Data]"
    sentences: Callable[[Data], list[str]]
    draw: Callable[[Data], Any]
    table: Callable[[Data], list[list[str]]] | None = None
    needs_pgd: bool = True
    reads: tuple[str, ...] = ("n", "seed", "threat", "attack", "which")


@checked_fields
@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The options of a study.

    Args:
        n: number of images, the first of their set (of an image folder a stratified sample); by default 1,000, or all
            where there are fewer.
        seed: seed of random starts and directions.
        threat: threat model of the attack, "NORM:RADIUS"; by default that of the first run that has one.
        attack: name of the attack: pgd-K, cw-K or fgsm; for `strength` any that `uiat evaluate` knows.
        epsilons: radii of the studies `strength` and `confidence-gap`, separated by commas.
        which: "best" or "last" weights.
        root: folder of the data sets; by default that of each run.
        device: name of the device; by default that of each run.
        own_code: True to let runs name Python code that builds their model or opens their data.
        recipe: a recipe of UIAT that the study `ablation` trains, with one thing changed at a time, where missing.
        seeds: seeds of the runs that are trained.
        settings: (field, value) pairs that replace fields of the recipe.
        train_dir: folder of the runs that are trained; DIR/runs by default.
        width: what the figure is for: a "screen", "one" column of a paper or "two".
    """

    n: int | None = None
    seed: int = 0
    threat: str | None = None
    attack: str = "pgd-20"
    epsilons: str | None = None
    which: str = "best"
    root: str | None = None
    device: str | None = None
    own_code: bool = False
    recipe: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    settings: tuple[tuple[str, str], ...] = ()
    train_dir: Path | None = None
    width: Width = "screen"


@dataclass(frozen=True)
class StudyRun:
    """A run under study.

    Args:
        label: its name in figures.
        folder: its run folder.
        config: its settings.
    """

    label: str
    folder: Path
    config: Run


@dataclass
class Context:
    """The runs of a study, with their models and images, which are loaded on demand.

    Args:
        runs: the runs.
        options: the options of the study.
        on_progress: called with a line of text whenever a part is done.
        out: folder of the results, if there is one.
        sizes: number of images that were used, by split.
        samples: how they were taken, in words, by split; only where they are a stratified sample.
        is_attacked: True for a study that attacks all runs under one threat model.

    Example:
        >>> Context([], StudyOptions()).notes
        []
    """

    runs: list[StudyRun]
    options: StudyOptions
    on_progress: Callable[[str], None] = lambda line: None
    out: Path | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    is_attacked: bool = True

    @cached_property
    def threat(self) -> Threat:
        """The threat model that every run is attacked under."""
        if self.options.threat is not None:
            return parse(self.options.threat)
        threat = next((run.config.threat for run in self.runs if run.config.threat is not None), None)
        if threat is None:
            raise UserError("no run has a threat model: give one, such as --threat Linf:8/255")
        return threat

    @property
    def notes(self) -> list[str]:
        """Reasons not to compare the runs: other data, other threat models."""
        notes = []
        sets = list(dict.fromkeys(run.config.data.name for run in self.runs))
        if len(sets) > 1:
            notes.append(
                f"Careful: the runs are of different data sets ({join_words(sets)}), each is measured on its own, and "
                "a difference between them is not one of methods."
            )
        trained = (run.config.threat for run in self.runs)
        threats = list(dict.fromkeys(threat_text(threat) for threat in trained if threat))
        if len(threats) > 1:
            here = f"; all of them are attacked under {threat_text(self.threat)} here" if self.is_attacked else ""
            notes.append(f"Careful: the runs were trained for different threat models ({join_words(threats)}){here}.")
        return notes

    def make_attack(self, *, scale: float = 1.0, descend: bool = False) -> PGD:
        """Return the attack that makes examples.

        Args:
            scale: the radius as a multiple of that of the threat model.
            descend: True for an inverse adversary, which lowers the loss.

        Raises:
            UserError: the attack is not a PGD.
        """
        threat = self.threat if scale == 1 else replace(self.threat, epsilon=scale * float(self.threat.epsilon))
        attack = evaluation.attack(self.options.attack, threat=threat)
        if not isinstance(attack, PGD):
            raise UserError(f"a study needs an attack such as pgd-20, cw-20 or fgsm, not {self.options.attack}")
        return replace(attack, descend=descend)

    def load_model(self, run: StudyRun, which: str | None = None) -> nn.Module:
        """Load a run's model onto its device, in eval mode."""
        device = pick_device(self.options.device or run.config.compute.device)
        kind = cast(checkpoint.Which, which or self.options.which)
        return checkpoint.load(run.folder, kind, own_code=self.options.own_code).to(device)

    def load_images(self, run: StudyRun, split: Split = "test") -> tuple[Tensor, Tensor]:
        """Load images of a run's split as `take_images` has it, (n, C, H, W) in [0, 1], and their labels, on the CPU.

        Raises:
            UserError: there are fewer images than the options say.
        """
        whole, n = self._open_split(run, split), self.options.n
        if n is not None and n > len(whole):
            raise UserError(f"n {n} is more than the {len(whole)} {split} images of {run.label}: leave it out")
        self.sizes[split] = min(n or USUAL_N, len(whole))
        part, sample = take_images(whole, self.sizes[split])
        if sample.rule == "stratified" and sample.text:
            self.samples[split] = sample.text
        return as_float(part.images), part.labels

    def _open_split(self, run: StudyRun, split: Split) -> ImageSet | Folder:
        root, data = self.options.root, run.config.data
        if split == "test":
            return open_lasting_test_set(run.config, run.folder, root=root, own_code=self.options.own_code)
        data = data if root is None else replace(data, root=root)
        training_set, held_out = load_datasets(
            data, run.config.seed, received=root is None, own_code=self.options.own_code
        )
        return training_set if split == "train" else held_out

    def count_images(self, run: StudyRun, split: Split) -> int:
        """Return the number of images of a run's split, whatever `n` is."""
        return len(self._open_split(run, split))

    def class_names(self, run: StudyRun) -> list[str]:
        """Return the names of the classes of a run's data."""
        return list(self._open_split(run, "test").classes)

    def read_history(self, run: StudyRun) -> list[dict[str, Any]]:
        """Read the metrics of a run, a row an epoch.

        Raises:
            UserError: there are none, or they are damaged.
        """
        rows = read_history(run.folder)
        if not rows:
            raise UserError(f"{run.folder} has no {METRICS_FILE}: no epoch of it has ended yet")
        return rows


def check_same_arithmetic(groups: Iterable[Sequence[StudyRun]]) -> None:
    """Refuse to average runs that were computed in different arithmetic.

    Args:
        groups: the runs of each group that is averaged.

    Raises:
        UserError: names the runs of a group, and the arithmetic of each.

    Example:
        >>> check_same_arithmetic([[StudyRun("a", Path("a"), Run()), StudyRun("b", Path("b"), Run(seed=1))]])
    """
    for group in groups:
        mixture = find_mixture({run.label: describe_arithmetic(run.config) for run in group})
        if mixture:
            raise UserError(f"{join_words([run.label for run in group])} are {mixture}")


def kept_weights(run: StudyRun) -> dict[int, list[checkpoint.Which]]:
    """Return which weights a run has kept, "best" and "last", by the epoch they are of, counted from 0.

    Raises:
        UserError: there are none.
    """
    kept: dict[int, list[checkpoint.Which]] = {}
    for name in get_args(checkpoint.Which):
        path = run.folder / WEIGHTS_FILES[name]
        check_file(path)  # also of one that is not there, and should be
        if path.is_file():
            meta = checkpoint.read_weights(path)[1]
            if isinstance(meta.get("epoch"), int):
                kept.setdefault(meta["epoch"], []).append(name)
    if not kept:
        raise UserError(f"{run.folder} has no weights that say their epoch ({', '.join(WEIGHTS_FILES.values())})")
    return kept


def open_runs(folders: Sequence[str | Path]) -> list[StudyRun]:
    """Open run folders, labelled by the last part of their path, and by the last two where that is not enough.

    Raises:
        UserError: a folder is no run folder, or is given twice.

    Example:
        >>> open_runs(["missing-run"])
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    found = [path for folder in folders for path in find_runs(Path(folder), alone=len(folders) == 1)]
    paths = [path for path in found if not is_evaluation_alone(path)]
    for path in found:
        if path not in paths:
            warn_once(f"{path} is passed over: it holds an evaluation alone, and a study needs the run's weights")
    if folders and not paths:
        raise UserError(f"none of {', '.join(map(str, folders))} holds a training run")
    resolved = [path.resolve() for path in paths]
    for i, path in enumerate(resolved):
        if path in resolved[:i]:
            raise UserError(f"{paths[i]} is given twice")
    short = [path.name for path in resolved]
    labels = [
        name if short.count(name) == 1 else f"{path.parent.name}/{name}"
        for path, name in zip(resolved, short, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [str(path) for path in paths]
    return [StudyRun(label, path, read_evaluated(path)[0]) for label, path in zip(labels, paths, strict=True)]
