"""The loop of a run and everything it must remember to go on bit for bit."""

import itertools
import json
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from uiat.attacks import PGD
from uiat.checkpoint import load_state, restore, save_state, save_weights
from uiat.config import Run
from uiat.data import Batch, ImageSet, Loader, StreamingLoader, as_float
from uiat.errors import UserError
from uiat.evaluation import correct_under
from uiat.files import read_tensors, write_text
from uiat.guards import Alarm, at_chance, catastrophic_overfitting, require_finite
from uiat.inverse import UniversalInverse, UniversalPerturbation
from uiat.inverse.universal import FILE as INVERSE_FILE
from uiat.optim import make_optimizer, make_scheduler
from uiat.step import make_step
from uiat.weights import averaged, refresh_statistics

logger = logging.getLogger("uiat")
CHECKPOINT = "checkpoint.safetensors"
# Batches between looks at the running sums: each look waits for the device.
LOOK_EVERY = 50
# Batches that re-measure the BatchNorm statistics of averaged weights.
REFRESH_BATCHES = 50
MAX_ROLLBACKS = 3


@runtime_checkable
class Listener(Protocol):
    """Who is told how training goes; every method may be called often."""

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, Tensor], images: int) -> None:
        """A step is done; the terms are scalars on the device, and reading them waits for it."""

    def epoch(self, row: Mapping[str, Any]) -> None:
        """An epoch is done and validated."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal after finishing its step and saving."""


class Training:
    """A run in progress: the model, its optimiser, the position, and what has been measured.

    Args:
        run: every setting.
        model: on its device, in its memory format.
        loader: the training batches.
        held_out: images for validation; None for none.
        spec: how to build the model again, for the weights files.
        folder: where to write; None keeps everything in memory.
        listener: told about each step and epoch.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        loader: Loader | StreamingLoader,
        held_out: ImageSet | None,
        *,
        spec: Mapping[str, Any],
        folder: Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.run, self.model, self.loader, self.held_out = run, model, loader, held_out
        self.spec, self.folder, self.listener = spec, folder, listener
        config = run.optimisation
        self.optimizer = make_optimizer(model, config)
        self.scheduler = make_scheduler(self.optimizer, config, steps_per_epoch=len(loader))
        self.step = make_step(
            model,
            run.objective,
            self.optimizer,
            num_classes=loader.num_classes,
            image_shape=loader.image_shape,
            num_examples=loader.num_examples,
            precision=run.compute.precision,
            clip_norm=config.clip_norm,
            awp=config.awp,
            awp_from_epoch=config.awp_from_epoch,
        )
        self.average = None if config.average == "none" else averaged(model, config.average, decay=config.average_decay)
        self.epoch, self.position, self.seconds = 0, 0, 0.0
        self.sums: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.stale, self.rollbacks, self.stopped = 0, 0, False
        self._signalled = False

    def fit(self) -> None:
        """Train to the end, or to where a guard or the patience stops it.

        Raises:
            NotFinite: a loss term is not finite.
            Interrupted: a signal asked to stop; the state is saved.
        """
        with self._signals():
            while self.epoch < self.run.optimisation.epochs and not self.stopped:
                self._train_epoch()
                self._end_epoch()

    def _train_epoch(self) -> None:
        started = saved = time.perf_counter()
        before, compute = self.seconds, self.run.compute
        for batch in self.loader.epoch(self.epoch, self.position):
            terms = self._one_step(batch)
            self.seconds = before + time.perf_counter() - started
            if self.listener is not None:
                self.listener.step(self.epoch, self.position, len(self.loader), terms, len(batch.y))
            by_step = compute.checkpoint_steps is not None and self.position % compute.checkpoint_steps == 0
            by_time = time.perf_counter() - saved > 60 * compute.checkpoint_minutes
            if self.position % LOOK_EVERY == 0 or self.position == len(self.loader):
                self._means()
            if self._signalled or ((by_step or by_time) and self.position < len(self.loader)):
                self.save()
                saved = time.perf_counter()
            if self._signalled:
                raise Interrupted

    def _one_step(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.step(batch, epoch=self.epoch)
        self.scheduler.step()
        if self.average is not None and self.epoch >= self.run.optimisation.average_from_epoch:
            self.average.update_parameters(self.model)
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.position += 1
        return terms

    def _means(self) -> dict[str, float]:
        """Mean of each term over the epoch so far; waits for the device, and stops the run where one is not finite."""
        means = {name: (value / self.position).item() for name, value in self.sums.items()}
        kept = "none: training ran without a folder" if self.folder is None else str(self.folder / CHECKPOINT)
        if self.folder is not None and not (self.folder / CHECKPOINT).exists():
            kept = "none yet"
        require_finite(means, epoch=self.epoch, step=self.position, kept=kept)
        return means

    def _end_epoch(self) -> None:
        row: dict[str, Any] = {"epoch": self.epoch, "learning_rate": self.scheduler.get_last_lr()[0]}
        row |= {f"train_{name}": value for name, value in self._means().items()}
        row |= {"seconds": self.seconds, "images_per_second": self.position * self.loader.batch_size / self.seconds}
        last = self.epoch + 1 == self.run.optimisation.epochs
        judge = self.held_out is not None and ((self.epoch + 1) % self.run.validation.every == 0 or last)
        judged = self.judged_model()
        if judge:
            row |= self._validate(judged)
        self.history.append(row)
        row["alarms"] = [alarm.message for alarm in self._alarms()]
        self._keep_best(judged, row)
        self.epoch, self.position, self.seconds, self.sums = self.epoch + 1, 0, 0.0, {}
        if self.folder is not None:
            self._write(judged)
        if self.listener is not None:
            self.listener.epoch(row)

    def judged_model(self) -> nn.Module:
        """The model that is validated and saved: the averaged one where there is one, with its statistics measured."""
        average = self.average
        if average is None or int(average.n_averaged) == 0:
            return self.model
        batches = itertools.islice(self.loader.epoch(self.epoch), REFRESH_BATCHES)
        refresh_statistics(average.module, (batch.x for batch in batches))
        return average.module

    def _validate(self, model: nn.Module) -> dict[str, float]:
        assert self.held_out is not None
        start = time.perf_counter()
        device = next(model.parameters()).device
        x, y = as_float(self.held_out.images).to(device), self.held_out.labels.to(device)
        clean = correct_under(model, x, y, None)
        row = {"clean": clean.double().mean().item()}
        if (threat := self.run.threat) is not None:
            steps = self.run.validation.steps
            size = min(2.5 / steps, 1.0) * float(threat.epsilon)
            attack = PGD(threat=threat, step_size=size, steps=steps)
            right = correct_under(model, x, y, attack, among=clean, seed=self.run.seed)
            row["robust"] = right.double().mean().item()
        return row | {"validation_seconds": time.perf_counter() - start}

    def _alarms(self) -> Iterator[Alarm]:
        classes, guards = self.loader.num_classes, self.run.guards
        if (alarm := at_chance(self.history, num_classes=classes, epochs=guards.chance_epochs)) is not None:
            logger.warning(alarm.message)
            yield alarm
        if (alarm := catastrophic_overfitting(self.history, num_classes=classes)) is not None:
            logger.warning(alarm.message)
            yield alarm
            self.stopped = guards.overfitting == "stop" or self.rollbacks >= MAX_ROLLBACKS
            if guards.overfitting == "rollback" and not self.stopped:
                self._roll_back()

    def _roll_back(self) -> None:
        """Go on from the best weights, without the optimiser's momentum, at the schedule's present learning rate."""
        weights = self.best_weights
        if self.folder is not None:
            weights = read_tensors(self.folder / "best.safetensors")[0]
        if weights is None:
            return
        restore(self.model, weights, source=Path("best.safetensors"))
        self.optimizer.state.clear()
        if self.average is not None:
            self.average.n_averaged.zero_()
        self.rollbacks += 1
        logger.warning("rolled back to the best weights (%d of at most %d times)", self.rollbacks, MAX_ROLLBACKS)

    def _keep_best(self, model: nn.Module, row: Mapping[str, Any]) -> None:
        """Remember the epoch if it is the best by the run's metric; without validation the last is the best."""
        value = metric(row, self.run.validation.metric)
        if value is not None and self.best is not None and value <= self.best["value"]:
            self.stale += 1
            patience = self.run.validation.patience
            if patience is not None and self.stale >= patience:
                logger.warning("no better %s for %d validations: stopped", self.run.validation.metric, self.stale)
                self.stopped = True
            return
        if value is None and self.held_out is not None:
            return  # an epoch without validation
        self.stale, self.best = 0, {"epoch": row["epoch"], "value": value}
        if self.folder is None:
            self.best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self._write_weights("best", model)

    def _write(self, model: nn.Module) -> None:
        """The files of an epoch, the checkpoint last: a kill before it repeats the epoch and writes the same again."""
        assert self.folder is not None
        self._write_weights("last", model)
        z, objective = getattr(self.step.state, "z", None), self.run.objective
        inverse = getattr(objective, "inverse", None)
        if z is not None and isinstance(inverse, UniversalInverse) and objective.threat is not None:
            ball = type(objective.threat)(inverse.radius)
            UniversalPerturbation(z, ball).save(self.folder / INVERSE_FILE)
        self.write_history()
        self.save()

    def write_history(self) -> None:
        """metrics.jsonl: a line an epoch."""
        if self.folder is not None:
            write_text(self.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in self.history))

    def _write_weights(self, which: str, model: nn.Module) -> None:
        assert self.folder is not None
        path = self.folder / f"{which}.safetensors"
        save_weights(path, model, spec=self.spec, threat=self.run.threat, epoch=self.history[-1]["epoch"])

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"model": self.model, "objective": self.step.state}
        return modules if self.average is None else modules | {"average": self.average}

    def save(self) -> None:
        """Write the checkpoint, unless a loss term is not finite."""
        if self.folder is None:
            return
        if self.position:
            self._means()
        names = ("epoch", "position", "seconds", "history", "best", "stale", "rollbacks", "stopped")
        meta = {name: getattr(self, name) for name in names} | {"steps_per_epoch": len(self.loader)}
        path = self.folder / CHECKPOINT
        save_state(path, modules=self._modules(), optimizer=self.optimizer, tensors=self.sums, meta=meta)

    def resume(self) -> None:
        """Put back what the folder's checkpoint holds; without one, the run starts over.

        Raises:
            UserError: the checkpoint is damaged or belongs to another run.
        """
        assert self.folder is not None
        if not (self.folder / CHECKPOINT).exists():
            return
        sums, meta = load_state(self.folder / CHECKPOINT, modules=self._modules(), optimizer=self.optimizer)
        if meta.pop("steps_per_epoch") != len(self.loader):
            raise UserError(f"{self.folder / CHECKPOINT} belongs to a run with other data or another batch size")
        for name, value in meta.items():
            setattr(self, name, value)
        device = next(self.model.parameters()).device
        self.sums = {name: value.to(device) for name, value in sums.items()}
        done = self.epoch * len(self.loader) + self.position
        groups = [dict(group) for group in self.optimizer.param_groups]
        config = self.run.optimisation
        self.scheduler = make_scheduler(self.optimizer, config, steps_per_epoch=len(self.loader), done=done)
        for group, saved in zip(self.optimizer.param_groups, groups, strict=True):
            group["lr"] = saved["lr"]
        self.write_history()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends the step and saves; a second one stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: object) -> None:
            if self._signalled:
                raise KeyboardInterrupt
            self._signalled = True

        previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, handler in previous.items():
                signal.signal(s, handler)


def metric(row: Mapping[str, Any], name: str) -> float | None:
    """The value a run is selected by, from an epoch's row; robust accuracy falls back to clean without a threat model.

    Example:
        >>> metric({"clean": 0.8, "robust": 0.4}, "mean")
        0.6000000000000001
    """
    clean, robust = row.get("clean"), row.get("robust", row.get("clean"))
    if clean is None or robust is None:
        return None
    return float({"clean": clean, "robust": robust, "mean": (clean + robust) / 2}[name])
