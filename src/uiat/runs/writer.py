"""Write the files of a run folder, each atomically, and read its checkpoint back."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.data import ExtraImages, Folder, ImageSet
from uiat.errors import UserError
from uiat.inverse import load_generator, load_inverse
from uiat.objectives.abilities import generator_in, universal_of
from uiat.runs import checkpoint
from uiat.runs.extension import EXTENDABLE
from uiat.runs.reader import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    GENERATOR_FILE,
    INVERSE_FILE,
    METRICS_FILE,
    WEIGHTS_FILES,
    effect_of,
    is_moved,
    is_number,
    is_row,
    leaves,
    read_history,
)
from uiat.runs.settings import needs_first_checkpoint
from uiat.system.atomic_files import clear_partial
from uiat.system.distributed import current_rank
from uiat.system.manifest import check_file, read_manifest, write_recorded
from uiat.system.tensor_files import read_metadata


@dataclass(frozen=True)
class RunWriter:
    """Writes and reads the files of one run folder; of several processes the first one alone writes.

    Args:
        folder: the run folder, which exists.
        run: the settings of the run.
        spec: the arguments of `models.build`, for the weights files.
        data: the `fingerprint` of the training set; a checkpoint of another one is refused.
        class_names: names of the classes, for the weights files.

    Example:
        >>> RunWriter(Path("runs/mine"), Run(), {}, {}).last_checkpoint
        'none yet'
    """

    folder: Path
    run: Run
    spec: Mapping[str, Any]
    data: Mapping[str, Any]
    class_names: Sequence[str] = ()

    @property
    def last_checkpoint(self) -> str:
        """The path of the last good checkpoint, for messages; "none yet" before the first."""
        path = self.folder / CHECKPOINT_FILE
        return str(path) if path.exists() else "none yet"

    def write_weights(self, which: checkpoint.Which, model: nn.Module, *, epoch: int) -> None:
        """Write best.safetensors or last.safetensors."""
        if not current_rank().first:
            return
        path = self.folder / WEIGHTS_FILES[which]
        facts = {"epoch": epoch, "classes": list(self.class_names)}
        checkpoint.save_weights(path, model, spec=self.spec, threat=self.run.threat, **facts)

    def read_best_weights(self) -> dict[str, Tensor]:
        """Read the state dict in best.safetensors, once the process that writes it is here too."""
        current_rank().gather(None)  # waits for it
        return checkpoint.read_weights(self.folder / WEIGHTS_FILES["best"])[0]

    def write_inverse(self, state: nn.Module) -> None:
        """Write inverse.safetensors or generator.safetensors, if the method has perturbations or a generator."""
        if not current_rank().first:
            return
        if (universal := universal_of(self.run.objective, state)) is not None:
            universal.save(self.folder / INVERSE_FILE)
        if (generator := generator_in(state)) is not None:
            generator.save(self.folder / GENERATOR_FILE)

    def read_inverse(self, state: nn.Module) -> None:
        """Put the perturbations or the generator in their file into the objective's state, if the method has some."""
        if universal_of(self.run.objective, state) is not None:
            checkpoint.restore_buffer(state, "z", load_inverse(self.folder).z, source=self.folder / INVERSE_FILE)
        if (generator := generator_in(state)) is not None:
            kept, source = load_generator(self.folder).state_dict(), self.folder / GENERATOR_FILE
            checkpoint.restore(generator, {**generator.state_dict(), **kept}, source=source)

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl, one line an epoch."""
        if not current_rank().first:
            return
        write_recorded(self.folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in history).encode())

    def save(
        self,
        *,
        modules: Mapping[str, nn.Module],
        optimizer: Optimizer,
        tensors: Mapping[str, Tensor],
        meta: Mapping[str, Any],
    ) -> None:
        """Write the checkpoint."""
        if not current_rank().first:
            return
        facts = {**meta, "run": yaml_io.to_dict(self.run), "data": dict(self.data)}
        path, ended = self.folder / CHECKPOINT_FILE, meta["epoch"] >= self.run.optimisation.epochs or meta["stopped"]
        checkpoint.save_state(path, modules=modules, optimizer=optimizer, tensors=tensors, meta=facts, ended=ended)

    def load(
        self, *, modules: Mapping[str, nn.Module], optimizer: Optimizer
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Restore what `save` wrote; None if the run was stopped before its first checkpoint.

        Raises:
            UserError: the checkpoint is lost or damaged, or config.yaml, the data or another file of the folder are not
                those it was written with.
        """
        if current_rank().first:
            clear_partial(self.folder)
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            self._refuse_lost(path)
            return None
        self._require_same(path)
        tensors, meta = checkpoint.load_state(path, modules=modules, optimizer=optimizer)
        if fault := next((name for name, fits in _position_faults(meta) if not fits), None):
            raise UserError(f"{path} is damaged: its {fault} cannot be that of a run")
        self._check_others(path, meta)
        return tensors, meta

    def read_end(self) -> tuple[list[dict[str, Any]], int] | None:
        """Return the history and the best epoch of a run that has ended and has no checkpoint any more.

        Returns:
            None for any other run.

        Raises:
            UserError: the run has ended, and a file of it is lost or damaged.
        """
        if (self.folder / CHECKPOINT_FILE).exists():
            return None
        manifest, history = read_manifest(self.folder), read_history(self.folder)
        if not (manifest["ended"] if manifest and "ended" in manifest else self._has_last_epoch(history)):
            return None
        epoch = checkpoint.read_weights(self.folder / WEIGHTS_FILES["best"])[1].get("epoch")
        if not isinstance(epoch, int) or not 0 <= epoch < len(history):
            raise UserError(f"{self.folder / METRICS_FILE} has no row of the best epoch: put the whole file back")
        return history, epoch

    def _has_last_epoch(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """True if metrics.jsonl and last.safetensors agree that every epoch was done."""
        epochs, path = self.run.optimisation.epochs, self.folder / WEIGHTS_FILES["last"]
        return len(history) >= epochs and path.is_file() and checkpoint.read_weights(path)[1].get("epoch") == epochs - 1

    def _refuse_lost(self, path: Path) -> None:
        """Refuse a run whose checkpoint is not there although it had one: it is never begun anew over what it has."""
        check_file(path)
        if needs_first_checkpoint(self.run):
            raise UserError(f"{path} is missing, which held what the run began with: start a new run")
        if read_manifest(self.folder) is None:
            names = [name for name in (METRICS_FILE, *WEIGHTS_FILES.values()) if (self.folder / name).is_file()]
            if names:
                raise UserError(
                    f"{path} is missing, and {names[0]} says that epochs were done: put it back, or start a new run"
                )

    def _check_others(self, path: Path, meta: Mapping[str, Any]) -> None:
        """Refuse to go on beside files that are not those of this run."""
        for name in (METRICS_FILE, INVERSE_FILE, GENERATOR_FILE, WEIGHTS_FILES["last"]):
            if (self.folder / name).exists():
                check_file(self.folder / name)
        best = self.folder / WEIGHTS_FILES["best"]
        if meta["best"] is not None or best.exists():
            epoch = checkpoint.read_weights(best)[1].get("epoch")
            # A kill after best.safetensors and before the checkpoint leaves those of the epoch that is repeated.
            if meta["best"] is not None and epoch not in (meta["best"]["epoch"], meta["epoch"]):
                raise UserError(
                    f"{best} and {path} are of different runs: the weights are of epoch {epoch}, and the checkpoint "
                    f"says that {meta['best']['epoch']} was the best"
                )

    def _is_extended(self) -> bool:
        """True for a run that may have got more epochs since its checkpoint; its manifest says so or refuses it."""
        return self.run.optimisation.schedule in EXTENDABLE and read_manifest(self.folder) is not None

    def _require_same(self, path: Path) -> None:
        """Refuse a checkpoint of other settings or other data, naming the setting.

        Comes before anything is loaded: weights of another architecture would only say that they do not fit.
        """
        meta = read_metadata(path).get("meta")
        if not isinstance(meta, dict) or not isinstance(meta.get("run"), dict):
            raise UserError(f"{path} is not a training checkpoint")
        plain = json.loads(json.dumps(yaml_io.to_dict(self.run)))  # as the checkpoint gives the values back
        then, now = (dict(leaves(tree)) for tree in (meta["run"], plain))
        for key in sorted(then.keys() & now.keys()):
            extended = key == "optimisation.epochs" and then[key] < now[key] and self._is_extended()
            allowed = extended or is_moved(key, then[key], now[key])
            if then[key] != now[key] and effect_of(key).weights and not allowed:
                raise UserError(
                    f"{self.folder / CONFIG_FILE} was edited, or {path.name} is of another run: {key} was "
                    f"{then[key]!r} and is {now[key]!r}; "
                    "a run is resumed as it began, so put it back or start a new run"
                )
        if meta.get("data") != dict(self.data):
            raise UserError(
                f"the training set is not the one that {path} was trained on ({meta.get('data')} then, "
                f"{dict(self.data)} now): give the same data or start a new run"
            )


def _position_faults(meta: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield, by name, whether a value of a checkpoint can be that of a run."""
    for name in ("epoch", "position", "stale", "rollbacks"):
        value = meta.get(name)
        yield name, isinstance(value, int) and not isinstance(value, bool) and value >= 0
    yield "seconds", is_number(meta.get("seconds"))
    history, best = meta.get("history"), meta.get("best")
    yield "history", isinstance(history, list) and all(is_row(row) for row in history)
    yield (
        "best",
        best is None
        or (
            isinstance(best, dict)
            and isinstance(best.get("epoch"), int)
            and (best.get("value") is None or is_number(best["value"]))
        ),
    )
    yield "stopped", isinstance(meta.get("stopped"), bool)


def fingerprint(data: ImageSet | Folder, extra: ExtraImages | None = None) -> dict[str, Any]:
    """Return what tells one training set from another: its size, its shape, and a checksum of its labels and pixels.

    Of a `Folder`, the checksum is of the files' names, not of their contents; that of extra images is the one that
    their file says.

    Example:
        >>> from uiat.data import load
        >>> fingerprint(load("digits", "train"))["examples"]
        1258
    """
    check = zlib.crc32(data.labels.cpu().contiguous().numpy().data)
    if isinstance(data, ImageSet):
        check = zlib.crc32(data.images.cpu().contiguous().numpy().data, check)
    else:
        names = ["/".join(Path(path).parts[-2:]) for path in data.paths]
        check = zlib.crc32("\n".join(names).encode(), check)
    shape = list(data.image_shape)
    facts = {"examples": len(data), "classes": data.num_classes, "image_shape": shape, "checksum": f"{check:08x}"}
    return facts if extra is None else facts | {"extra": {"examples": len(extra), "checksum": extra.checksum}}
