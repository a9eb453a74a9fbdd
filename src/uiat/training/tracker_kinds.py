"""The trackers themselves: TensorBoard, Weights & Biases, MLflow and Trackio behind one protocol.

Each one's package is imported where it is made. None asks anything on a terminal, and none needs a network.
"""

import logging
import netrc
import os
import uuid
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlparse

import numpy as np
from numpy.typing import NDArray

from uiat.system.atomic_files import write_text
from uiat.system.atomic_folder import refuse_link
from uiat.system.locks import locked

PROJECT = "uiat"  # under which the runs of a machine stand together
SECONDS_TO_LOG_IN = 20.0  # before Weights & Biases goes on offline
Pixels = NDArray[np.uint8]  # (H, W, 3)


@runtime_checkable
class Tracker(Protocol):
    """Receives numbers and pictures of one run. What a method raises ends the tracker and never the run."""

    def log_numbers(self, values: Mapping[str, float], step: int) -> None:
        """Receive numbers by name, such as "validation/robust", after so many epochs."""

    def log_picture(self, name: str, pixels: Pixels, step: int) -> None:
        """Receive a picture (H, W, 3) in uint8."""

    def close(self) -> None:
        """Write what is still to be written."""


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker is of.

    Args:
        folder: the run folder.
        name: the name of the run.
        settings: every setting by its dotted path.

    Example:
        >>> Tracked(Path("runs/a"), "digits-uiat", {"seed": 0}).own_folder("wandb")
        PosixPath('runs/a/wandb')
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]

    def own_folder(self, tracker: str) -> Path:
        """Return the folder of a tracker in that of the run; a link, which may lead anywhere, is refused."""
        return refuse_link(self.folder / tracker)

    def read_id(self, tracker: str) -> str | None:
        """Return the id that the tracker knows the run by, from its folder; None before the first time."""
        path = self._id_file(tracker)
        return path.read_text(encoding="utf-8").strip() if path.is_file() and not path.is_symlink() else None

    def write_id(self, tracker: str, name: str) -> str:
        """Keep the id that the tracker knows the run by, so that a resumption and an evaluation go to the same one."""
        path = self._id_file(tracker)
        path.parent.mkdir(exist_ok=True)
        write_text(path, f"{name}\n")
        return name

    def _id_file(self, tracker: str) -> Path:
        return self.own_folder(tracker) / "id.txt"


class TensorBoard:
    """Writes event files to RUN/tensorboard; look at them with `tensorboard --logdir RUN`."""

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = run.own_folder("tensorboard")
        begins = not folder.exists()
        self.writer = SummaryWriter(str(folder))
        if begins:
            self.writer.add_text("settings", "".join(f"- {path}: {value}\n" for path, value in run.settings.items()))

    def log_numbers(self, values: Mapping[str, float], step: int) -> None:
        """Write a scalar each."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def log_picture(self, name: str, pixels: Pixels, step: int) -> None:
        """Write the picture, which needs Pillow."""
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


class WandB:
    """Sends to Weights & Biases where somebody is logged in there, and writes to RUN/wandb otherwise.

    `WANDB_MODE` decides if it is set, except that nobody is asked to log in. What was written offline is sent later by
    `wandb sync --append RUN/wandb/offline-run-*`: all parts of a run have one id.
    """

    def __init__(self, run: Tracked) -> None:
        import wandb

        self._make_picture = wandb.Image
        options: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "name": run.name,
            "id": run.read_id("wandb") or run.write_id("wandb", uuid.uuid4().hex),
            "dir": str(run.folder),
            "config": dict(run.settings),
            "reinit": "create_new",  # beside a run of the user's own, or another one of a sweep
            "settings": wandb.Settings(console="off", silent=True, init_timeout=SECONDS_TO_LOG_IN),
        }
        mode = _wandb_mode(os.environ)
        try:
            self.run = wandb.init(**options, mode=mode, resume="allow" if mode == "online" else None)
        except wandb.errors.CommError as error:
            if mode != "online":
                raise
            logging.getLogger("uiat").warning("wandb goes on offline: %s", " ".join(str(error).split()))
            self.run = wandb.init(**options, mode="offline")

    def log_numbers(self, values: Mapping[str, float], step: int) -> None:
        """Log them together."""
        self.run.log(dict(values), step=step)

    def log_picture(self, name: str, pixels: Pixels, step: int) -> None:
        """Log the picture, which needs Pillow."""
        self.run.log({name: self._make_picture(pixels)}, step=step)

    def close(self) -> None:
        """Write or send the rest."""
        self.run.finish()


def _wandb_mode(environment: Mapping[str, str]) -> Any:
    """Return the mode of Weights & Biases: "online" only for somebody who is logged in, so that it never asks."""
    wanted = environment.get("WANDB_MODE", "online")
    if wanted != "online":
        return wanted
    host = urlparse(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        known = netrc.netrc(environment.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        known = False
    return "online" if known or environment.get("WANDB_API_KEY") else "offline"


class MLflow:
    """Writes to the server at `MLFLOW_TRACKING_URI`, by default to mlflow.db and mlflow-files beside the run's folder.

    They hold all runs that lie beside each other, for `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`.
    """

    def __init__(self, run: Tracked) -> None:
        server, beside = os.environ.get("MLFLOW_TRACKING_URI"), run.folder.absolute().parent
        if not server:
            for name in ("mlflow.db", "mlflow-files"):
                refuse_link(beside / name)
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # which tables it makes
        with locked(beside / "mlflow.db", "", on_wait=lambda: None):  # its tables are made at the first use
            self.client = MlflowClient(tracking_uri=server or f"sqlite:///{beside / 'mlflow.db'}")
            place = None if server else (beside / "mlflow-files").as_uri()
            self.id = run.read_id("mlflow") or run.write_id("mlflow", self._begin(run, place))
        self.client.update_run(self.id, status="RUNNING")

    def _begin(self, run: Tracked, place: str | None) -> str:
        """Make the run there, with its settings; returns its id."""
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(name)
        experiment = self.client.create_experiment(name, place) if known is None else known.experiment_id
        made: str = self.client.create_run(experiment, run_name=run.name).info.run_id
        self.client.log_batch(made, params=[Param(path, str(value)[:500]) for path, value in run.settings.items()])
        return made

    def log_numbers(self, values: Mapping[str, float], step: int) -> None:
        """Log a metric each."""
        for name, value in values.items():
            self.client.log_metric(self.id, name, value, step=step)

    def log_picture(self, name: str, pixels: Pixels, step: int) -> None:
        """Keep the picture, which needs Pillow."""
        self.client.log_image(self.id, pixels, artifact_file=f"{name}-{step}.png")

    def close(self) -> None:
        """Say that the run has ended."""
        self.client.set_terminated(self.id)


class Trackio:
    """Writes to Trackio's own folder, `TRACKIO_DIR`, which `trackio show` reads; a Space or a server if it names one.

    The run is named as its folder, so that the runs of a sweep stand apart.
    """

    def __init__(self, run: Tracked) -> None:
        import trackio

        self._make_picture = trackio.Image
        name = run.read_id("trackio") or run.write_id("trackio", f"{run.folder.name}-{uuid.uuid4().hex[:8]}")
        with redirect_stdout(StringIO()):  # it prints what nobody asked for
            self.run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=name,
                config=dict(run.settings),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        trackio.context_vars.current_run.set(None)  # which would be finished again, with a line, as the process ends

    def log_numbers(self, values: Mapping[str, float], step: int) -> None:
        """Log them together."""
        self.run.log(dict(values), step=step)

    def log_picture(self, name: str, pixels: Pixels, step: int) -> None:
        """Log the picture, which needs Pillow."""
        self.run.log({name: self._make_picture(pixels)}, step=step)

    def close(self) -> None:
        """Write the rest."""
        with redirect_stdout(StringIO()):
            self.run.finish()
