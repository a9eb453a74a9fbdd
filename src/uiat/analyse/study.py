"""What a study is: numbers, what they say in words, and how they look; and the runs and images it is about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from uiat import evaluation
from uiat.analyse.prose import joined
from uiat.attacks import PGD
from uiat.attacks.random_numbers import keys
from uiat.config.schema import Run
from uiat.data import Folder, ImageSet, as_float, open_data
from uiat.errors import UserError
from uiat.formatting import threat_text
from uiat.models.inspect import device_of
from uiat.models.modes import frozen
from uiat.runs import checkpoint
from uiat.runs.reader import METRICS_FILE, WEIGHTS_FILES, read_history
from uiat.runs.settings import read_run
from uiat.system.atomic_files import read_tensors
from uiat.threat import Threat, parse
from uiat.training.setup import load_datasets, pick_device

USUAL_N = 1000  # images, where --n is left out and there are more
Split = Literal["test", "held-out", "train"]
Data = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study. `measure` gives plain data, and the rest reads nothing else, so that a figure can be drawn again.

    Args:
        name: as on the command line.
        about: what it shows, in a line.
        measure: runs and images to plain data.
        sentences: what the numbers say, built from them.
        draw: a matplotlib figure of them.
        table: a heading and rows, where a table says more than a paragraph.
        examples: whether it looks at adversarial examples, which takes an attack of one kind (PGD), or only counts.
    """

    name: str
    about: str
    measure: "Callable[[Context], Data]"
    sentences: Callable[[Data], list[str]]
    draw: Callable[[Data], Any]
    table: Callable[[Data], list[list[str]]] | None = None
    examples: bool = True


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The options of a study.

    Args:
        n: images, the first of their set; by default 1,000, or all where there are fewer.
        seed: of random starts and directions.
        threat: "NORM:RADIUS" of the attack; by default that of the first run that has one.
        attack: pgd-K, cw-K or fgsm; for `strength` any that `uiat evaluate` knows.
        epsilons: strengths of `strength` and `confidence-gap`.
        which: "best" or "last" weights.
        root: folder of the data sets; by default that of each run.
        device: by default that of each run.
        own_code: whether runs may name Python code that builds their model.
        recipe: of `ablation`: train it, and it with one thing changed, wherever that is missing.
        seeds: seeds of those.
        settings: (field, value) pairs that replace fields of the recipe.
        train_dir: folder of the runs that are trained; DIR/runs by default.
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


@dataclass(frozen=True)
class StudyRun:
    """One run under study: what it is called in figures, its folder and its settings."""

    label: str
    folder: Path
    run: Run


@dataclass
class Context:
    """The runs of a study with their models and images, loaded when they are asked for.

    Args:
        subjects: the runs.
        asked: the options.
        told: called with a line whenever a part is done.
        out: folder of the results, if there is one.

    Example:
        >>> Context([], StudyOptions()).notes
        []
    """

    subjects: list[StudyRun]
    asked: StudyOptions
    told: Callable[[str], None] = lambda line: None
    out: Path | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    @cached_property
    def ball(self) -> Threat:
        """The threat model that every run is attacked under."""
        if self.asked.threat is not None:
            return parse(self.asked.threat)
        found = next((s.run.threat for s in self.subjects if s.run.threat is not None), None)
        if found is None:
            raise UserError("no run has a threat model: give one, such as --threat Linf:8/255")
        return found

    @property
    def notes(self) -> list[str]:
        """What has to be said before such runs are compared: other data, other threat models."""
        found = []
        sets = list(dict.fromkeys(s.run.data.name for s in self.subjects))
        if len(sets) > 1:
            found.append(
                f"Careful: the runs are of different data sets ({joined(sets)}), each is measured on its own, and a "
                "difference between them is not one of methods."
            )
        balls = dict.fromkeys(threat_text(s.run.objective.threat) for s in self.subjects if s.run.objective.threat)
        if len(balls) > 1:
            found.append(
                f"Careful: the runs were trained for different threat models ({joined(list(balls))}); all of them are "
                f"attacked under {threat_text(self.ball)} here."
            )
        return found

    def settings(self, *, step: float | None = None, descend: bool = False) -> PGD:
        """The attack that makes examples, at a share of the radius; with `descend`, an inverse adversary."""
        ball = self.ball if step is None else replace(self.ball, epsilon=step * float(self.ball.epsilon))
        found = evaluation.attack(self.asked.attack, threat=ball)
        if not isinstance(found, PGD):
            raise UserError(f"a study needs an attack such as pgd-20, cw-20 or fgsm, not {self.asked.attack}")
        return replace(found, descend=descend)

    def model(self, subject: StudyRun, which: str | None = None) -> nn.Module:
        """A run's model on its device, in eval mode."""
        device = pick_device(self.asked.device or subject.run.compute.device)
        kind = cast(checkpoint.Which, which or self.asked.which)
        return checkpoint.load(subject.folder, kind, own_code=self.asked.own_code).to(device)

    def images(self, subject: StudyRun, split: Split = "test", *, n: int | None = None) -> tuple[Tensor, Tensor]:
        """The first n images of a run's split in [0, 1], and their labels, on the CPU.

        Raises:
            UserError: there are fewer images than were asked for.
        """
        whole = self._whole(subject, split)
        wanted = n or self.asked.n
        if wanted is not None and wanted > len(whole):
            raise UserError(f"n {wanted} is more than the {len(whole)} {split} images of {subject.label}: leave it out")
        count = min(wanted or USUAL_N, len(whole))
        if n is None:
            self.sizes[split] = count
        part = whole.subset(range(count)).decode()
        return as_float(part.images), part.labels

    def _whole(self, subject: StudyRun, split: Split) -> ImageSet | Folder:
        data = replace(subject.run.data, root=self.asked.root or subject.run.data.root)
        if split == "test":
            return open_data(data.name, "test", root=data.root, image_size=data.image_size)
        training_set, held_out = load_datasets(data, subject.run.seed)
        return training_set if split == "train" else held_out

    def classes(self, subject: StudyRun) -> list[str]:
        """The names of the classes of a run's data."""
        return list(self._whole(subject, "test").classes)

    def history(self, subject: StudyRun) -> list[dict[str, Any]]:
        """The rows of a run's metrics.

        Raises:
            UserError: there are none, or they are damaged.
        """
        rows = read_history(subject.folder)
        if not rows:
            raise UserError(f"{subject.folder} has no {METRICS_FILE}: no epoch of it has ended yet")
        return rows


def kept_weights(subject: StudyRun) -> dict[int, list[checkpoint.Which]]:
    """The weights that a run has kept, "best" and "last", by the epoch, from 0, that they say they are of.

    Raises:
        UserError: there are none.
    """
    found: dict[int, list[checkpoint.Which]] = {}
    for name in get_args(checkpoint.Which):
        path = subject.folder / WEIGHTS_FILES[name]
        if path.is_file():
            meta = read_tensors(path)[1]
            if meta.get("kind") == checkpoint.WEIGHTS and isinstance(meta.get("epoch"), int):
                found.setdefault(meta["epoch"], []).append(name)
    if not found:
        raise UserError(f"{subject.folder} has no weights that say their epoch ({', '.join(WEIGHTS_FILES.values())})")
    return found


def open_runs(folders: Sequence[str | Path]) -> list[StudyRun]:
    """The runs, named by their folders: by the last part of the path, with the one above where that is not enough.

    Raises:
        UserError: not a run folder, or one that is named twice.

    Example:
        >>> open_runs(["missing-run"])
        Traceback (most recent call last):
        uiat.errors.UserError: missing-run is not a run folder: it has no config.yaml
    """
    paths = [Path(folder) for folder in folders]
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
    return [StudyRun(label, path, read_run(path)) for label, path in zip(labels, paths, strict=True)]


BATCH = 250  # images at a time


def compute_logits(model: nn.Module, x: Tensor) -> Tensor:
    """What the model says of images, (n, k) on the CPU.

    Example:
        >>> compute_logits(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)).shape
        torch.Size([3, 2])
    """
    device = device_of(model)
    with torch.no_grad(), frozen(model):
        return torch.cat([model(part.to(device)).float().cpu() for part in x.split(BATCH)])


def craft(model: nn.Module, x: Tensor, y: Tensor, settings: PGD, *, seed: int) -> Tensor:
    """Adversarial or inverse examples, on the CPU; each image has random numbers of its own.

    Example:
        >>> from uiat import Linf
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.full((3, 1, 2, 2), 0.5)
        >>> x_adv = craft(model, x, torch.tensor([0, 1, 0]), PGD(threat=Linf(0.1), step_size=0.1), seed=0)
        >>> round((x_adv - x).abs().max().item(), 4)
        0.1
    """
    device, found = device_of(model), []
    for part in torch.arange(len(x)).split(BATCH):
        key = keys(seed, part).to(device)
        found.append(settings.perturb(model, x[part].to(device), y[part].to(device), key=key).cpu())
    return torch.cat(found)
