"""The loop of a run and everything it must remember to go on bit for bit."""

import itertools
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from uiat.config.schema import Run
from uiat.data import Batch, ImageSet, Loader, StreamingLoader
from uiat.errors import NotFinite, UserError
from uiat.runs.checkpoint import restore
from uiat.runs.reader import CHECKPOINT_FILE, WEIGHTS_FILES
from uiat.runs.writer import RunWriter
from uiat.system.distributed import current_rank
from uiat.system.signals import Stop, stop_on_signal
from uiat.training.averaging import make_average, refresh_statistics, update_average
from uiat.training.guards import (
    Alarm,
    require_finite,
    require_finite_weights,
    warn_at_chance,
    warn_catastrophic_overfitting,
)
from uiat.training.optimizer import make_optimizer, make_scheduler
from uiat.training.step import make_step
from uiat.training.validation import selection_metric, validate

logger = logging.getLogger("uiat")
# Batches between looks at the running sums: each look waits for the device.
LOOK_EVERY = 50
# Batches that re-measure the BatchNorm statistics of averaged weights.
REFRESH_BATCHES = 50
MAX_ROLLBACKS = 3
# What a checkpoint says about the position of a run, as JSON.
_REMEMBERED: dict[str, Any] = {
    **{"epoch": int, "position": int, "seconds": float, "history": list, "best": dict | None},
    **{"stale": int, "rollbacks": int, "stopped": bool},
}


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
        listener: told about each step and epoch.

    `store` says where to write, and is set by whoever has made a folder; None keeps everything in memory.
    """

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        loader: Loader | StreamingLoader,
        held_out: ImageSet | None,
        *,
        listener: Listener | None = None,
    ) -> None:
        self.run, self.model, self.loader, self.held_out, self.listener = run, model, loader, held_out, listener
        self.store: RunWriter | None = None
        config = run.optimisation
        self.optimizer = make_optimizer(model, config, plain=run.compute.plain)
        self.scheduler = make_scheduler(self.optimizer, config, steps_per_epoch=len(loader))
        self.step = make_step(
            model,
            run.objective,
            self.optimizer,
            num_classes=loader.num_classes,
            image_shape=loader.image_shape,
            num_examples=loader.num_examples,
            precision=run.compute.levers.precision,
            clip_norm=config.clip_norm,
            awp=config.awp,
            awp_from_epoch=config.awp_from_epoch,
            compile=run.compute.levers.compile,
            accumulate=config.accumulate,
            replays=config.replays,
            recompute=run.compute.recompute,
            cuda_graphs=run.compute.levers.cuda_graphs,
            try_kernels=not run.compute.plain,
        )
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

    def fit(self) -> None:
        """Train to the end, or to where a guard or the patience stops it.

        Raises:
            NotFinite: a loss term or a weight is not finite; without a folder the model holds its best weights so far.
            Interrupted: a signal asked to stop; the state is saved.
        """
        try:
            with stop_on_signal(self._stop):
                while self.epoch < self.run.optimisation.epochs and not self.stopped:
                    self._train_epoch()
                    self._end_epoch()
        except NotFinite:
            if self.best_weights is not None:
                self.model.load_state_dict(self.best_weights)
            raise

    def _train_epoch(self) -> None:
        started = saved = time.perf_counter()
        before, compute = self.seconds, self.run.compute
        for batch in self.loader.epoch(self.epoch, self.position):
            terms = self._one_step(batch)
            self.seconds = before + time.perf_counter() - started
            if self.listener is not None:
                self.listener.step(
                    self.epoch, self.position, len(self.loader), terms, len(batch.y) * current_rank().size
                )
            due = compute.checkpoint_steps is not None and self.position % compute.checkpoint_steps == 0
            if look := self.position % LOOK_EVERY == 0 or self.position == len(self.loader):
                self._means()
            if look or current_rank().size == 1:
                late = time.perf_counter() - saved > 60 * compute.checkpoint_minutes
                # A signal to one process stops all of them, at the same step; they save together likewise.
                told = current_rank().gather((self._stop.requested, late))
                self._stopping, due = any(asked for asked, _ in told), due or any(late for _, late in told)
            if self._stopping or (due and self.position < len(self.loader)):
                self.save()
                saved = time.perf_counter()
            if self._stopping:
                raise Interrupted(f"stopped in epoch {self.epoch + 1} after step {self.position} of {len(self.loader)}")

    def _one_step(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.step(batch, epoch=self.epoch)
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.scheduler.step()
        if self.average is not None and self.epoch >= self.run.optimisation.average_from_epoch:
            update_average(self.average, self.model)
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.position += 1
        return terms

    @property
    def _kept(self) -> str:
        if self.store is not None:
            return self.store.last_checkpoint
        held = "the model holds its best weights so far" if self.best is not None else "it had no epoch yet"
        return f"none, since training ran without a folder; {held}"

    def _means(self) -> dict[str, float]:
        """Mean of each term over the epoch so far; waits for the device, and stops the run where one is not finite."""
        names = sorted(self.sums)
        values = current_rank().mean(torch.stack([self.sums[name] / self.position for name in names])).tolist()
        return self._finite(dict(zip(names, values, strict=True)))

    def _finite(self, means: dict[str, float]) -> dict[str, float]:
        require_finite(means, epoch=self.epoch, step=self.position, kept=self._kept)
        return means

    def _end_epoch(self) -> None:
        row: dict[str, Any] = {"epoch": self.epoch, "learning_rate": self.learning_rate}
        row |= {f"train_{name}": value for name, value in self._means().items()}
        row |= {"seconds": self.seconds, "images_per_second": self.position * self.loader.batch_size / self.seconds}
        require_finite_weights(self.model, epoch=self.epoch, step=self.position, kept=self._kept)
        self.step.rest()
        last = self.epoch + 1 == self.run.optimisation.epochs
        judge = self.held_out is not None and ((self.epoch + 1) % self.run.validation.every == 0 or last)
        judged = self.judged_model()
        if judge:
            assert self.held_out is not None
            row |= validate(judged, self.held_out, run=self.run)
        self.history.append(row)
        alarms = list(self._alarms())
        row["alarms"] = [alarm.message for alarm in alarms]
        judged = self._settle(judged, row, overfitting=any(alarm.kind == "overfitting" for alarm in alarms))
        self.epoch, self.position, self.seconds, self.sums = self.epoch + 1, 0, 0.0, {}
        if self.store is not None:
            self._write(self.store, judged)
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

    def _alarms(self) -> Iterator[Alarm]:
        classes, guards = self.loader.num_classes, self.run.guards
        found = [warn_at_chance(self.history, num_classes=classes, epochs=guards.chance_epochs)]
        if self.run.objective.threat is not None:  # trained under attack
            found.append(warn_catastrophic_overfitting(self.history, num_classes=classes))
        for alarm in found:
            if alarm is not None:
                logger.warning(alarm.message)
                yield alarm

    def _settle(self, judged: nn.Module, row: Mapping[str, Any], *, overfitting: bool) -> nn.Module:
        """Keep the epoch if it is the best, or roll it back; returns the model to go on record as the last."""
        guard = self.run.guards.overfitting
        if overfitting and guard == "rollback" and self.rollbacks < MAX_ROLLBACKS and self._roll_back():
            return self.model
        self._keep_best(judged, row)
        self.stopped |= overfitting and guard != "warn"
        return judged

    def _roll_back(self) -> bool:
        """Go on from the best weights, without the optimiser's momentum, at the schedule's present learning rate."""
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
        """The files of an epoch, the checkpoint last: a kill before it repeats the epoch and writes the same again."""
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
            self._means()
        require_finite_weights(self.model, epoch=self.epoch, step=self.position, kept=self._kept)
        meta = {name: getattr(self, name) for name in _REMEMBERED}
        meta |= {"steps_per_epoch": len(self.loader), "processes": current_rank().size}
        # Of each process's sums the mean is kept, which all of them go on from.
        sums = {name: current_rank().mean(self.sums[name].clone()) for name in sorted(self.sums)}
        self.store.save(modules=self._modules(), optimizer=self.optimizer, tensors=sums, meta=meta)

    def resume(self) -> None:
        """Put back what the folder's checkpoint holds; without one, the run starts over.

        Raises:
            UserError: the checkpoint is damaged or belongs to another run.
        """
        assert self.store is not None
        loaded = self.store.load(modules=self._modules(), optimizer=self.optimizer)
        if loaded is None:
            return
        sums, meta = loaded
        self._set_position(meta)
        if (then := meta.get("processes", 1)) != current_rank().size:
            logger.warning(
                "this run began in %s processes and goes on in %d: BatchNorm sees other parts of a batch, and sums "
                "have another order, so its weights will not be bit for bit those of an undisturbed run",
                then,
                current_rank().size,
            )
        device = next(self.model.parameters()).device
        self.sums = {name: value.to(device) for name, value in sums.items()}
        done = self.epoch * len(self.loader) + self.position
        rates = [group["lr"] for group in self.optimizer.param_groups]
        config = self.run.optimisation
        self.scheduler = make_scheduler(self.optimizer, config, steps_per_epoch=len(self.loader), done=done)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.store.write_history(self.history)

    def _set_position(self, meta: Mapping[str, Any]) -> None:
        """The JSON values of a checkpoint, none of them taken on trust."""
        fits = all(isinstance(meta.get(name), kind) for name, kind in _REMEMBERED.items())
        fits = fits and 0 <= meta["epoch"] <= self.run.optimisation.epochs and 0 <= meta["position"] <= len(self.loader)
        if not fits or meta.get("steps_per_epoch") != len(self.loader):
            raise UserError(f"the position in {CHECKPOINT_FILE} is not one of this run: the file is damaged or foreign")
        for name in _REMEMBERED:
            setattr(self, name, meta[name])
