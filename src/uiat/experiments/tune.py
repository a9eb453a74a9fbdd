"""Search settings for high natural and robust accuracy on held-out training images, by Optuna; never on test images."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from uiat import recipes
from uiat.checks import Count, Seed, checked
from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.errors import Busy, UserError
from uiat.experiments.finish import finish_training
from uiat.experiments.space import Axis, describe_space, parse_space
from uiat.runs.reader import leaves, read_history
from uiat.system.atomic_files import ensure_folder, write_json, write_text
from uiat.system.extras import from_extra
from uiat.system.locks import locked
from uiat.training.idle_settings import warned_once

logger = logging.getLogger("uiat")
STUDY, STUDY_FILE, RECORD_FILE, FIGURE_FILE = "uiat-tune", "study.db", "tune.json", "pareto.svg"
LEAST_FINISHED = 3  # trials, before a median is one to stop another trial by
STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "training", "WAITING": "waiting"}


@dataclass(frozen=True)
class Trial:
    """One trial: the settings that it tried, and what came of them.

    Args:
        number: its number, from 0; its folder is trial-NUMBER.
        settings: the fields that were searched, as they are written in an override.
        status: "done", "pruned", "failed" or "training", by another process.
        clean: natural accuracy on held-out training images, at the best epoch; None unless it is done.
        robust: robust accuracy there.
        curve: its robust accuracies so far, by epoch.
        reason: why it failed, in a line.
        best: True on the Pareto front: no other trial is better in one of the two and at least as good in the other.

    Example:
        >>> Trial(0, {"objective.weight": "2"}, "done", 0.9, 0.5).name
        'trial-000'
    """

    number: int
    settings: Mapping[str, str]
    status: str
    clean: float | None = None
    robust: float | None = None
    curve: Sequence[float] = ()
    reason: str = ""
    best: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"trial-{self.number:03d}"


class Pruned(Exception):
    """A trial was stopped because it fell behind."""


@checked
def tune(
    recipe: str | Run,
    *,
    trials: Count,
    space: Sequence[str] = (),
    folder: str | Path | None = None,
    seed: Seed = 0,
    root: str | None = None,
    on_change: Callable[[Trial], None] | None = None,
) -> list[Trial]:
    """Train a recipe under settings that Optuna proposes, for high natural and robust accuracy.

    Both are measured on held-out training images, at the epoch that `validation.metric` chooses; test images are never
    read. The first trial has the recipe's own settings. A trial whose robust accuracy after an epoch is below the
    median of the finished trials after the same epoch is stopped, once three trials have finished (the median rule of
    Golovin et al., KDD 2017, for the robust of the two objectives: Optuna itself prunes searches with one alone).

    The same call resumes: trials that a kill has stopped go on from their checkpoints, and more `trials` add to those
    that there are. Several processes may share a folder.

    Args:
        recipe: the name of a recipe, or a run.
        trials: number of trials, those of earlier calls included.
        space: what to search: "objective.weight=0.5..4", "optimisation.learning_rate=log:0.01..0.3",
            "model.activation=relu,silu"; `default_space` by default.
        folder: each trial has a folder in it, beside study.db, tune.json and pareto.svg; runs/NAME-tune by default.
        seed: seed of the proposals; that of the trials is the recipe's.
        root: folder of the data sets; that of the recipe by default.
        on_change: called with each trial as it begins and as it ends.

    Returns:
        All trials, by number.

    Raises:
        UserError: no such recipe, field or value; a folder of another search; Optuna is not installed.

    Example:
        >>> tune("digits-uiat", trials=1, space=["objective.wieght=1..2"])
        Traceback (most recent call last):
        uiat.errors.UserError: unknown field 'objective.wieght'; did you mean 'objective.weight' or ...
    """
    base = recipes.get(recipe) if isinstance(recipe, str) else recipe
    base = base if root is None else yaml_io.override(base, [("data.root", root)])
    where = Path("runs") / f"{base.name}-tune" if folder is None else Path(folder)
    search = _Search(base, parse_space(base, space), where, seed)
    tell = on_change or (lambda trial: None)
    with warned_once([base]):
        while (trial := search.next(trials)) is not None:
            tell(_describe(trial))
            try:
                with locked(where / _describe(trial).name, "another process works on it"):
                    search.finish(trial)
            except Busy:
                continue
            found = search.write()
            tell(found[trial.number])
    return search.write()


class _Search:
    """The study of a folder: proposes trials, trains them, and writes down what came of them."""

    def __init__(self, base: Run, space: Mapping[str, Axis], folder: Path, seed: int) -> None:
        with from_extra("tune", "uiat tune"):
            import optuna
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna, self.base, self.space, self.folder, self.seed = optuna, base, space, folder, seed
        ensure_folder(folder)
        self.waited: set[int] = set()
        with self._locked():
            self.study = self._open()

    def _locked(self) -> Any:
        return locked(self.folder / STUDY_FILE, "", on_wait=lambda: None)

    def _open(self) -> Any:
        """Make the study, or open the one that is there if it is of the same search."""
        path = (self.folder / STUDY_FILE).absolute()
        there = [name for name in (RECORD_FILE, FIGURE_FILE) if (self.folder / name).exists()]
        if there and not path.exists():
            raise UserError(f"{self.folder / there[0]} is there without {STUDY_FILE}: choose another folder")
        try:
            study = self.optuna.create_study(
                study_name=STUDY,
                storage=f"sqlite:///{path}",
                directions=["maximize", "maximize"],
                load_if_exists=True,
            )
        except Exception as error:  # whatever a damaged file leads to, in two libraries
            raise UserError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from None
        own = dict(leaves(yaml_io.to_dict(self.base)))
        decisive = {k: v for k, v in own.items() if not k.startswith(("name", "data.root"))}
        asked = {"space": describe_space(self.space), "seed of the search": self.seed, **decisive}
        then = study.user_attrs.get("asked")
        if then is None:
            study.set_user_attr("asked", asked)
            if all(axis.holds(own.get(name)) for name, axis in self.space.items()):
                names = {n: yaml_io.write_value(own[n]) if a.choices else own[n] for n, a in self.space.items()}
                study.enqueue_trial(names)
            return study
        for name, value in asked.items():
            if then.get(name) != value:
                raise UserError(
                    f"{self.folder} holds another search: {name} is {then.get(name)!r} there and {value!r} here; "
                    "choose another folder"
                )
        return study

    def next(self, trials: int) -> Any:
        """Return the next trial to train: one that nobody works on any more, or a new one; None in the end."""
        with self._locked():
            there = self.study.get_trials(deepcopy=False)
            for trial in there:
                if trial.state.name == "RUNNING" and trial.number not in self.waited and self._is_free(trial):
                    return trial
            if sum(trial.state.name != "WAITING" for trial in there) >= trials:
                return None
            # A seed of its own for each: a search that is resumed proposes what one without a stop would have.
            self.study.sampler = self.optuna.samplers.TPESampler(seed=self.seed * 1_000_003 + len(there))
            asked = self.study.ask(self._distributions())
            return self.study.get_trials(deepcopy=False)[asked.number]

    def _is_free(self, trial: Any) -> bool:
        try:
            with locked(self.folder / _describe(trial).name, "busy"):
                return True
        except Busy:
            self.waited.add(trial.number)
            return False

    def _distributions(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        kinds = self.optuna.distributions
        for path, axis in self.space.items():
            if axis.choices:
                made[path] = kinds.CategoricalDistribution(axis.choices)
            elif axis.whole:
                made[path] = kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
            else:
                made[path] = kinds.FloatDistribution(axis.low, axis.high, log=axis.log)
        return made

    def finish(self, trial: Any) -> None:
        """Train a trial to its end, or to where it falls behind, and tell the study."""
        described = _describe(trial)
        folder, state = self.folder / described.name, self.optuna.trial.TrialState
        self.waited.add(trial.number)
        try:
            run = yaml_io.override(self.base, [("name", described.name), *described.settings.items()])
            trained = finish_training(run, folder, listener=_Pruner(self._finished_curves(), run.optimisation.epochs))
            row = trained.history[trained.best["epoch"] if trained.best else -1]
            if row.get("robust") is None or row.get("clean") is None:
                raise UserError("its best epoch has no robust accuracy: tune with validation.every=1")
            self._tell(trial, folder, values=[row["clean"], row["robust"]])
        except Pruned:
            self._tell(trial, folder, state=state.PRUNED)
        except Exception as error:  # the other trials go on
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            self._tell(trial, folder, state=state.FAIL, reason=kind + " ".join(str(error).split()))

    def _tell(self, trial: Any, folder: Path, *, reason: str = "", **outcome: Any) -> None:
        with self._locked():
            storage, number = self.study._storage, trial._trial_id
            curve = [] if reason else [row.get("robust") for row in read_history(folder)]
            storage.set_trial_user_attr(number, "curve", curve)
            storage.set_trial_user_attr(number, "reason", reason)
            self.study.tell(trial.number, **outcome)

    def _finished_curves(self) -> list[list[float | None]]:
        there = self.study.get_trials(deepcopy=False)
        return [trial.user_attrs["curve"] for trial in there if trial.state.name == "COMPLETE"]

    def write(self) -> list[Trial]:
        """Write tune.json and the figure; returns all trials."""
        with self._locked():
            there = [t for t in self.study.get_trials(deepcopy=False) if t.state.name != "WAITING"]
            front = {trial.number for trial in self.study.best_trials}
            found = [_describe(trial, best=trial.number in front) for trial in there]
            rows = [{name: getattr(trial, name) for name in Trial.__dataclass_fields__} for trial in found]
            facts = {"kind": "uiat.tune", "recipe": self.base.name, "space": describe_space(self.space)}
            write_json(self.folder / RECORD_FILE, {**facts, "trials": rows})
            try:
                write_text(self.folder / FIGURE_FILE, draw_pareto(found))
            except UserError as error:  # the packages of reports are not installed: no figure
                logger.warning("no %s: %s", FIGURE_FILE, error)
        return found


class _Pruner:
    """Stops a trial after an epoch in which it is below the median of the finished trials."""

    def __init__(self, finished: Sequence[Sequence[float | None]], epochs: int) -> None:
        self.finished, self.epochs = finished, epochs

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """Do nothing."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Stop the trial, unless this is its last epoch."""
        if row["epoch"] + 1 < self.epochs and is_behind(row.get("robust"), row["epoch"], self.finished):
            raise Pruned


def is_behind(robust: float | None, epoch: int, finished: Sequence[Sequence[float | None]]) -> bool:
    """True if a robust accuracy is below the median of the finished trials after the same epoch.

    Example:
        >>> is_behind(0.2, 0, [[0.1], [0.3], [0.4]]), is_behind(0.3, 0, [[0.1], [0.3], [0.4]])
        (True, False)
        >>> is_behind(0.2, 0, [[0.3], [0.4]])
        False
    """
    values = [curve[epoch] for curve in finished if len(curve) > epoch and curve[epoch] is not None]
    return robust is not None and len(values) >= LEAST_FINISHED and robust < median(v for v in values if v is not None)


def _describe(trial: Any, *, best: bool = False) -> Trial:
    settings = {name: _write(value) for name, value in sorted(trial.params.items())}
    clean, robust = trial.values if trial.values else (None, None)
    curve = [value for value in trial.user_attrs.get("curve", []) if value is not None]
    reason = trial.user_attrs.get("reason", "")
    return Trial(trial.number, settings, STATES[trial.state.name], clean, robust, curve, reason, best)


def _write(value: Any) -> str:
    """Write a proposed value as it is set and shown: of a number, four digits."""
    if isinstance(value, str):
        return value
    return yaml_io.write_value(float(f"{value:.4g}") if isinstance(value, float) else value)


def draw_pareto(trials: Sequence[Trial]) -> str:
    """Draw robust against natural accuracy of the trials, the Pareto front as a line; returns an SVG.

    Raises:
        UserError: the extra `report` is not installed.

    Example:
        >>> svg = draw_pareto([Trial(0, {}, "done", 0.9, 0.5, best=True), Trial(1, {}, "done", 0.8, 0.4)])
        >>> "Pareto front" in svg and "trial-001" in svg
        True
    """
    from uiat.report.svg.charts import Series, curves

    done = [t for t in trials if t.clean is not None and t.robust is not None]
    at = {t.number: (100 * (t.clean or 0.0), t.robust or 0.0) for t in done}
    series = [Series("Pareto front", tuple(sorted(at[t.number] for t in done if t.best)), 0)]
    series += [Series(t.name, (at[t.number],), 1) for t in done if not t.best]
    title = f"{len(done)} trials: robust against natural accuracy on held-out training images"
    x, y = "natural accuracy, %", "robust accuracy, %"
    svg = str(curves(title, series, x=x, y=y, percent=True))
    head, mark, rest = svg.partition(">")
    xmlns = "" if "xmlns=" in head else ' xmlns="http://www.w3.org/2000/svg"'
    return f"{head}{xmlns}{mark}{STYLE}{rest}\n"


STYLE = (
    "<style>text{font:11px sans-serif}.grid{stroke:#ddd}.hit{fill:transparent}.s0{stroke:#0072B2;fill:#0072B2}"
    ".s1{stroke:#7F7F7F;fill:#7F7F7F}polyline{fill:none}</style>"
)
