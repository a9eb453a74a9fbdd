"""Each tracker writes without a network, and what it wrote is read back with its own package.

In processes of their own: the packages warn, start services and keep the folders of their first use.
"""

import json
import subprocess
import sys

import pytest

from support.commands import environment
from uiat import UserError
from uiat.training.tracker_kinds import MLflow, TensorBoard, Tracked, _wandb_mode

WRITE = """
import sys
from pathlib import Path
import numpy as np
from uiat.training.trackers import TRACKERS
from uiat.training.tracker_kinds import Tracked

for part in (0, 1):  # training, and an evaluation after it
    run = TRACKERS[sys.argv[1]].make(Tracked(Path("runs/a"), "mine", {"seed": 3, "objective.name": "uiat"}))
    if part == 0:
        run.log_numbers({"validation/robust": 0.25, "train/adv_ce": 2.0}, 1)
        run.log_numbers({"validation/robust": 0.5, "train/adv_ce": 1.0}, 2)
    else:
        run.log_numbers({"evaluation/worst": 0.125}, 2)
        run.log_picture("evaluation/classes", np.full((4, 6, 3), 200, np.uint8), 2)
    run.close()
"""
READ = {
    "tensorboard": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator("runs/a/tensorboard")
events.Reload()
picture = events.Images("evaluation/classes")[0]
numbers = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
seed = "seed: 3" in str(events.Tensors("settings/text_summary")[0].tensor_proto.string_val)
size = (picture.width, picture.height)
""",
    "wandb": """
import json
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record

def records(data, at=7):  # LevelDB's log: blocks of 32 KiB with (checksum, length, whole/first/middle/last) before each
    parts = b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts, at = parts + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""

numbers, seed, ids, size = {}, False, set(), None
for file in sorted(Path("runs/a/wandb").glob("offline-run-*/*.wandb")):
    for record in records(file.read_bytes()):
        if record.HasField("run"):
            ids.add(record.run.run_id)
            seed |= any(u.key == "seed" and u.value_json == "3" for u in record.run.config.update)
        values = {tuple(item.nested_key) or (item.key,): json.loads(item.value_json) for item in record.history.item}
        if ("evaluation/classes", "width") in values:
            size = [values["evaluation/classes", side] for side in ("width", "height")]
        for (name, *rest), value in values.items():
            if not rest and not name.startswith("_"):
                numbers.setdefault(name, []).append((values[("_step",)], value))
assert len(ids) == 1, ids
""",
    "mlflow": """
from mlflow import MlflowClient
from PIL import Image
client = MlflowClient(tracking_uri="sqlite:///runs/mlflow.db")
(run,) = client.search_runs([client.get_experiment_by_name("uiat").experiment_id])
numbers = {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
           for name in run.data.metrics}
seed = run.data.params["seed"] == "3" and run.info.status == "FINISHED"
size = Image.open(client.download_artifacts(run.info.run_id, "evaluation/classes-2.png")).size
""",
    "trackio": """
import os
from pathlib import Path
from PIL import Image
from trackio.sqlite_storage import SQLiteStorage
(name,) = SQLiteStorage.get_runs("uiat")
numbers = {}
for row in SQLiteStorage.get_logs("uiat", name):
    for key, value in row.items():
        if isinstance(value, float) and "/" in key:
            numbers.setdefault(key, []).append((row["step"], value))
seed = SQLiteStorage.get_run_config("uiat", name)["seed"] == 3
size = Image.open(next(Path(os.environ["TRACKIO_DIR"]).rglob("*.png"))).size
""",
}
SHOW = "\nimport json\nprint(json.dumps([numbers, seed, size]))"
EXPECTED = {
    "validation/robust": [[1, 0.25], [2, 0.5]],
    "train/adv_ce": [[1, 2.0], [2, 1.0]],
    "evaluation/worst": [[2, 0.125]],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_what_is_tracked_offline_is_read_back(name, tmp_path):
    _require(name)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    env = {key: value for key, value in environment().items() if not key.startswith(("WANDB_", "MLFLOW_"))}
    env |= {"TRACKIO_DIR": str(tmp_path / "trackio"), "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    asked = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True, "timeout": 200}
    wrote = subprocess.run([sys.executable, "-c", WRITE, name], stdin=subprocess.DEVNULL, **asked)
    assert (wrote.returncode, wrote.stdout) == (0, ""), wrote.stderr
    read = subprocess.run([sys.executable, "-c", READ[name] + SHOW], **asked)
    assert read.returncode == 0, read.stderr
    numbers, seed, size = json.loads(read.stdout.splitlines()[-1])
    assert numbers == EXPECTED
    assert (seed, size) == (True, [6, 4])


def _require(name):
    from importlib.util import find_spec

    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_MODE": "online"}, "offline"),  # it would ask for a key
        ({"WANDB_API_KEY": "k"}, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_wandb_is_online_only_for_somebody_who_is_logged_in(environment, mode, tmp_path):
    assert _wandb_mode({"NETRC": str(tmp_path / "none"), **environment}) == mode
    file = tmp_path / "netrc"
    file.write_text("machine api.wandb.ai login user password k\n")
    logged_in = _wandb_mode({"NETRC": str(file), **environment})
    assert logged_in == environment.get("WANDB_MODE", "online")


@pytest.mark.parametrize("use", [Tracked.own_folder, Tracked.read_id, lambda run, name: run.write_id(name, "new")])
def test_a_folder_of_a_tracker_that_is_a_link_is_refused(use, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wandb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="wandb is a link, and nothing is written through one"):
        use(Tracked(tmp_path, "mine", {}), "wandb")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name"), [(TensorBoard, "run/tensorboard"), (MLflow, "mlflow.db"), (MLflow, "mlflow-files")]
)
def test_no_tracker_begins_at_a_link(kind, name, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for folder in ("elsewhere", "run"):
        (tmp_path / folder).mkdir()
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link, and nothing is written through one"):
        kind(Tracked(tmp_path / "run", "mine", {"seed": 3}))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_id_that_is_a_link_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "id.txt").symlink_to(tmp_path / "secret")
    assert Tracked(tmp_path, "mine", {}).read_id("wandb") is None
