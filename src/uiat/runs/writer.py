"""Write the files of a run folder, each atomically, and read its checkpoint back."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from uiat.config import yaml_io
from uiat.config.schema import Run
from uiat.data import Folder, ImageSet
from uiat.errors import UserError
from uiat.objectives.abilities import universal_of
from uiat.runs import checkpoint
from uiat.runs.reader import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    INVERSE_FILE,
    METRICS_FILE,
    WEIGHTS_FILES,
    effect_of,
    leaves,
)
from uiat.system.atomic_files import clear_partial, read_tensors, write_text
from uiat.system.distributed import current_rank


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
        return read_tensors(self.folder / WEIGHTS_FILES["best"])[0]

    def write_inverse(self, state: nn.Module) -> None:
        """Write inverse.safetensors, if the method has universal inverse perturbations."""
        if not current_rank().first:
            return
        if (universal := universal_of(self.run.objective, state)) is not None:
            universal.save(self.folder / INVERSE_FILE)

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.jsonl, one line an epoch."""
        if not current_rank().first:
            return
        write_text(self.folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in history))

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
        path = self.folder / CHECKPOINT_FILE
        checkpoint.save_state(path, modules=modules, optimizer=optimizer, tensors=tensors, meta=facts)

    def load(
        self, *, modules: Mapping[str, nn.Module], optimizer: Optimizer
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Restore what `save` wrote; None if the run was stopped before its first checkpoint.

        Raises:
            UserError: the checkpoint is damaged, or config.yaml or the data are not those it was written with.
        """
        if current_rank().first:
            clear_partial(self.folder)
        path = self.folder / CHECKPOINT_FILE
        if not path.exists():
            return None
        self._require_same(path)
        return checkpoint.load_state(path, modules=modules, optimizer=optimizer)

    def _require_same(self, path: Path) -> None:
        """Refuse a checkpoint of other settings or other data, naming the setting.

        Comes before anything is loaded: weights of another architecture would only say that they do not fit.
        """
        meta = read_tensors(path)[1].get("meta")
        if not isinstance(meta, dict) or not isinstance(meta.get("run"), dict):
            raise UserError(f"{path} is not a training checkpoint")
        plain = json.loads(json.dumps(yaml_io.to_dict(self.run)))  # as the checkpoint gives the values back
        then, now = (dict(leaves(tree)) for tree in (meta["run"], plain))
        for key in sorted(then.keys() & now.keys()):
            if then[key] != now[key] and effect_of(key).weights:
                raise UserError(
                    f"{self.folder / CONFIG_FILE} was edited: {key} was {then[key]!r} and is {now[key]!r}; "
                    "a run is resumed as it began, so put it back or start a new run"
                )
        if meta.get("data") != dict(self.data):
            raise UserError(
                f"the training set is not the one that {path} was trained on ({meta.get('data')} then, "
                f"{dict(self.data)} now): give the same data or start a new run"
            )


def fingerprint(data: ImageSet | Folder) -> dict[str, Any]:
    """Return what tells one training set from another: its size, its shape, and a checksum of its labels and pixels.

    Of a `Folder`, the checksum is of the files' names, not of their contents.

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
    return {"examples": len(data), "classes": data.num_classes, "image_shape": shape, "checksum": f"{check:08x}"}
