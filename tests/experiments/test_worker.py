"""Several runs of a sweep at a time, in real processes: the same weights as one after another, and saved on a kill."""

import os
import re
import signal
import time

import pytest

from support import tiny
from support.sweeps import SMALL
from uiat.experiments import finish, sweep

pytestmark = pytest.mark.slow


class Notes:
    """Kills the process of the first run that is told to train."""

    def __init__(self, do=lambda run: None):
        self.do, self.told = do, []

    def planned(self, runs):
        pass

    def changed(self, run):
        self.told.append((run.run.seed, run.status))
        self.do(run)


def test_two_at_a_time_come_to_the_same_as_one_after_another(tmp_path):
    one = sweep("digits-uiat", settings=SMALL, seeds=[0, 1, 2], folder=tmp_path / "one")
    two = sweep("digits-uiat", settings=SMALL, seeds=[0, 1, 2], folder=tmp_path / "two", jobs=2)
    assert [run.status for run in two] == ["done"] * 3
    assert [run.accuracy for run in two] == [run.accuracy for run in one]
    for a, b in zip(one, two, strict=True):
        assert tiny.differences(a.folder, b.folder) == []


def test_ctrl_c_saves_what_is_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "SECONDS_BETWEEN_REPORTS", 0.0)
    long = SMALL | {"optimisation.epochs": "300"}

    def interrupt(run):
        epoch = re.match(r"epoch (\d+)/", run.note)
        if epoch and int(epoch[1]) >= 3:  # not each epoch is told of: several can end between two looks
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    with pytest.raises(KeyboardInterrupt):
        sweep("digits-uiat", settings=long, seeds=[0, 1], folder=tmp_path, jobs=2, listener=Notes(interrupt))
    saved = [len(path.read_text().splitlines()) for path in tmp_path.glob("*/metrics.jsonl")]
    assert max(saved) >= 2
    assert max(saved) < 300
    assert all((path.parent / "checkpoint.safetensors").exists() for path in tmp_path.glob("*/metrics.jsonl"))
