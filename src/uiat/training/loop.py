"""The training loop of a run, and all that it must remember to resume bit for bit."""

import itertools
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uiat.config.schema import Run
from uiat.data import Batch, ImageSet, Loader, StreamingLoader
from uiat.errors import NotFinite
from uiat.objectives.abilities import without_warm_start
from uiat.runs.checkpoint import restore
from uiat.runs.folder import restore_environment
from uiat.runs.reader import WEIGHTS_FILES
from uiat.runs.writer import RunWriter
from uiat.system.distributed import current_rank
from uiat.system.signals import Stop, stop_on_signal
from uiat.training.averaging import make_average, refresh_statistics, update_average
from uiat.training.guards import Alarm, find_alarms, require_finite, require_finite_weights
from uiat.training.listener import Listener
from uiat.training.optimizer import make_optimizer, make_scheduler
from uiat.training.position import POSITION, read_position
from uiat.training.resumption import own_sum, warn_of_changes
from uiat.training.step import Step
from uiat.training.step_options import StepOptions
from uiat.training.teacher import TeacherSource
from uiat.training.teachers import Teachers
from uiat.training.validation import selection_metric, validate

logger = logging.getLogger("uiat")
# Steps between checks that the running sums are finite: each of them waits for the device.
CHECK_EVERY = 50
# Batches on which the BatchNorm statistics of averaged weights are measured anew.
REFRESH_BATCHES = 50
MAX_ROLLBACKS = 3


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal after finishing its step and saving."""


class Training:
    """A run in progress: the model, its optimiser, the position, and what has been measured.

    Args:
        run: every setting.
        model: the model, on its device and in its memory format.
        loader: the training batches.
        held_out: images for validation; None for none.
        listener: receives each step and epoch.
        resumed: True for a run whose state comes from its checkpoint.

    `store` writes the run folder, None keeps everything in memory; `teachers` is what is asked before the next step.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        loader: Loader | StreamingLoader,
        held_out: ImageSet | None,
        *,
        listener: Listener | None = None,
        resumed: bool = False,
    ) -> None:
        self.run, self.model, self.loader, self.held_out, self.listener = run, model, loader, held_out, listener
        self.store: RunWriter | None = None
        self.teachers = Teachers()
        self.start: dict[str, Any] = {}  # what manifest.json says of the weights that a new run starts from
        config = run.optimisation
        self.optimizer = make_optimizer(model, config, plain=run.compute.plain)
        self.step = Step(
            model,
            without_warm_start(run.objective) if resumed else run.objective,
            self.optimizer,
            num_classes=loader.num_classes,
            image_shape=loader.image_shape,
            num_examples=loader.num_examples,
            options=StepOptions.from_run(run),
        )
        self.scheduler = make_scheduler(self.optimizer, config, steps_per_epoch=len(loader))
        self.average = (
            None if config.average == "none" else make_average(model, config.average, decay=config.average_decay)
        )
        self.epoch, self.position, self.seconds, self.learning_rate = 0, 0, 0.0, config.learning_rate
        self.sums: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.stale, self.rollbacks, self.stopped = 0, 0, False
        self._stop, self._stopping = Stop(), False
        self._measured: tuple[tuple[int, int], dict[str, float]] | None = None  # (epoch, position), means there

    @property
    def untrained_teachers(self) -> list[TeacherSource]:
        """The teachers that are to be trained before the next step."""
        ended = self.epoch >= self.run.optimisation.epochs or self.stopped
        return [] if ended else self.teachers.untrained(getattr(self.store, "folder", None))

    def prepare_teacher(self, listener: Listener | None = None, *, only: TeacherSource | None = None) -> None:
        """Prepare the run's teachers (`Teachers.prepare`); `fit` does so first where nobody has."""
        folder = getattr(self.store, "folder", None)
        self.teachers.prepare(self.step, self.loader, folder, listener=listener, only=only)

    def fit(self) -> None:
        """Train to the end, or to where a guard or the patience stops it.

        Raises:
            NotFinite: a loss term or a weight is not finite; without a folder the model holds its best weights so far.
            Interrupted: a signal asked to stop; the state is saved.
        """
        try:
            with stop_on_signal(self._stop):
                while self.epoch < self.run.optimisation.epochs and not self.stopped:
                    self.prepare_teacher()
                    self._train_epoch()
                    self._end_epoch()
        except NotFinite:
            if self.best_weights is not None:
                self.model.load_state_dict(self.best_weights)
            raise

    def _train_epoch(self) -> None:
        started = saved = time.perf_counter()
        before = self.seconds
        for batch in self.loader.epoch(self.epoch, self.position):
            terms = self._train_step(batch)
            self.seconds = before + time.perf_counter() - started
            if self.listener is not None:
                self.listener.step(
                    self.epoch, self.position, len(self.loader), terms, len(batch.y) * current_rank().size
                )
            if self._is_checkpoint_due(saved):
                self.save()
                saved = time.perf_counter()
            if self._stopping:
                raise Interrupted(f"stopped in epoch {self.epoch + 1} after step {self.position} of {len(self.loader)}")

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.step(batch, epoch=self.epoch)
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.scheduler.step()
        if self.average is not None and self.epoch >= self.run.optimisation.average_from_epoch:
            update_average(self.average, self.model)
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.position += 1
        return terms

    def _is_checkpoint_due(self, saved: float) -> bool:
        """True if a checkpoint is due after this step: by its number, by the time since `saved`, or by a signal.

        The last step of an epoch has none of its own: the end of the epoch writes one.
        """
        compute, last = self.run.compute, self.position == len(self.loader)
        due = compute.checkpoint_steps is not None and self.position % compute.checkpoint_steps == 0
        if check := self.position % CHECK_EVERY == 0 or last:
            self._epoch_means()  # for its check alone
        if check or current_rank().size == 1:
            late = time.perf_counter() - saved > 60 * compute.checkpoint_minutes
            # A signal to one process stops all of them, at the same step; they save together likewise.
            answers = current_rank().gather((self._stop.requested, late))
            self._stopping = any(stop for stop, _ in answers)
            due = due or any(late for _, late in answers)
        return self._stopping or (due and not last)

    @property
    def _kept(self) -> str:
        """The last good checkpoint, in words for messages."""
        if self.store is not None:
            return self.store.last_checkpoint
        held = "the model holds its best weights so far" if self.best is not None else "it had no epoch yet"
        return f"none, since training ran without a folder; {held}"

    def _epoch_means(self) -> dict[str, float]:
        """Return the mean of each loss term over the epoch so far; stops the run if one is not finite.

        Computed once a step, whoever asks: it waits for the device and for the other processes.
        """
        now = (self.epoch, self.position)
        if self._measured is None or self._measured[0] != now:
            names = sorted(self.sums)
            values = current_rank().mean(torch.stack([self.sums[name] / self.position for name in names])).tolist()
            means: dict[str, float] = dict(zip(names, values, strict=True))
            require_finite(means, epoch=self.epoch, step=self.position, kept=self._kept)
            self._measured = now, means
        return self._measured[1]

    def _end_epoch(self) -> None:
        row: dict[str, Any] = {"epoch": self.epoch, "learning_rate": self.learning_rate}
        row |= {f"train_{name}": value for name, value in self._epoch_means().items()}
        row |= {"seconds": self.seconds, "images_per_second": self.position * self.loader.batch_size / self.seconds}
        require_finite_weights(self.model, self.step.state, epoch=self.epoch, step=self.position, kept=self._kept)
        self.step.release()
        done, evaluated = self.epoch + 1, self.evaluated_model()
        due = done % self.run.validation.every == 0 or done == self.run.optimisation.epochs
        if due and self.held_out is not None:
            row |= validate(evaluated, self.held_out, run=self.run)
        self.history.append(row)
        alarms = self._raise_alarms()
        row["alarms"] = [alarm.message for alarm in alarms]
        evaluated = self._select(evaluated, row, overfitting=any(alarm.kind == "overfitting" for alarm in alarms))
        self.epoch, self.position, self.seconds, self.sums = done, 0, 0.0, {}
        if self.store is not None:
            self._write(self.store, evaluated)
        if self.listener is not None:
            self.listener.epoch(row)

    def evaluated_model(self) -> nn.Module:
        """Return the model that is validated and saved: the averaged one, its statistics measured, if there is one."""
        average = self.average
        if average is None or int(average.n_averaged) == 0:
            return self.model
        batches = itertools.islice(self.loader.epoch(self.epoch), REFRESH_BATCHES)
        refresh_statistics(average.module, (batch.x for batch in batches), set_aside=self.step.set_aside)
        return average.module

    def _raise_alarms(self) -> list[Alarm]:
        alarms = find_alarms(self.history, self.run, num_classes=self.loader.num_classes)
        for alarm in alarms:
            logger.warning(alarm.message)
        return alarms

    def _select(self, model: nn.Module, row: Mapping[str, Any], *, overfitting: bool) -> nn.Module:
        """Keep the epoch if it is the best, or roll it back; returns the model to save as the last."""
        guard = self.run.guards.overfitting
        if overfitting and guard == "rollback" and self.rollbacks < MAX_ROLLBACKS and self._roll_back():
            return self.model
        self._keep_best(model, row)
        self.stopped |= overfitting and guard != "warn"
        return model

    def _roll_back(self) -> bool:
        """Put back the best weights, without the optimiser's momentum; the schedule's learning rate stays.

        Returns:
            False if there are no best weights yet.
        """
        if self.best is None:
            return False
        weights = self.best_weights if self.store is None else self.store.read_best_weights()
        assert weights is not None
        restore(self.model, weights, source=Path(WEIGHTS_FILES["best"]))
        self.optimizer.state.clear()
        if self.average is not None:
            self.average.n_averaged.zero_()
        self.rollbacks += 1
        logger.warning("rolled back to the best weights (%d of at most %d times)", self.rollbacks, MAX_ROLLBACKS)
        return True

    def _keep_best(self, model: nn.Module, row: Mapping[str, Any]) -> None:
        """Remember the epoch if it is the best by the run's metric; without validation the last is the best."""
        value = selection_metric(row, self.run.validation.metric)
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
        if self.store is None:
            self.best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        else:
            self.store.write_weights("best", model, epoch=row["epoch"])

    def _write(self, store: RunWriter, model: nn.Module) -> None:
        """Write the files of an epoch, the checkpoint last: a kill before it repeats the epoch and its files."""
        store.write_weights("last", model, epoch=self.history[-1]["epoch"])
        store.write_inverse(self.step.state)
        store.write_history(self.history)
        self.save()

    def _modules(self) -> dict[str, nn.Module]:
        modules = {"model": self.model, "objective": self.step.state}
        return modules if self.average is None else modules | {"average": self.average}

    def save(self) -> None:
        """Write the checkpoint, unless a loss term or a weight is not finite."""
        if self.store is None:
            return
        if self.position:
            self._epoch_means()
        require_finite_weights(self.model, self.step.state, epoch=self.epoch, step=self.position, kept=self._kept)
        meta = {name: getattr(self, name) for name in POSITION}
        meta |= {"steps_per_epoch": len(self.loader), "processes": current_rank().size}
        meta["learning_rate"] = self.learning_rate  # of the last step, which the row of an epoch says
        # Those of each process, a row each: a sum that is resumed from a mean has other last digits.
        sums = {name: current_rank().concatenate(self.sums[name].reshape(1)) for name in sorted(self.sums)}
        self.store.save(modules=self._modules(), optimizer=self.optimizer, tensors=sums, meta=meta)

    def resume(self) -> None:
        """Restore the state in the folder's checkpoint; a run that was stopped before its first one starts over."""
        assert self.store is not None
        if (end := self.store.read_end()) is not None:
            self._set_end(*end)
            return
        loaded = self.store.load(modules=self._modules(), optimizer=self.optimizer)
        then = restore_environment(self.store.folder, begins=loaded is None)
        if loaded is None:
            return
        sums, meta = loaded
        epochs, steps = self.run.optimisation.epochs, len(self.loader)
        for name, value in read_position(meta, epochs=epochs, steps_per_epoch=steps).items():
            setattr(self, name, value)
        self.learning_rate = float(meta.get("learning_rate", self.learning_rate))
        device = self.step.device
        warn_of_changes(then, device, processes=meta.get("processes", 1))
        self.sums = {name: own_sum(value).to(device) for name, value in sums.items()}
        done = self.epoch * len(self.loader) + self.position
        rates = [group["lr"] for group in self.optimizer.param_groups]
        config = self.run.optimisation
        self.scheduler = make_scheduler(self.optimizer, config, steps_per_epoch=len(self.loader), done=done)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.store.write_history(self.history)

    def _set_end(self, history: list[dict[str, Any]], best: int) -> None:
        """Take over what a run has measured that has ended and lost its checkpoint: nothing is trained or written."""
        assert self.store is not None
        self.store.read_inverse(self.step.state)
        self.history, self.epoch, self.stopped = history, len(history), True
        self.best = {"epoch": best, "value": selection_metric(history[best], self.run.validation.metric)}
