"""Trackers by name: each receives what listeners receive, in a folder of its own."""

import sys

import pytest

from uiat import UserError
from uiat.system.distributed import Rank
from uiat.training.trackers import TRACKERS, Lenient, TensorBoard, Tracker, make_trackers

ROW = {"epoch": 0, "train_adv_ce": 1.5, "robust": 0.25, "seconds": 2.0, "alarms": []}


def test_tensorboard_gets_a_scalar_for_each_measurement(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (board,) = make_trackers(["tensorboard"], tmp_path)
    assert isinstance(board, TensorBoard)
    board.step(0, 1, 2, {}, 64)
    board.epoch(ROW)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/adv_ce", "validation/robust", "run/seconds"}
    assert [(e.step, e.value) for e in events.Scalars("validation/robust")] == [(1, 0.25)]


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(UserError, match=r"uiat\[tensorboard\]"):
        make_trackers(["tensorboard"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_does_not_exist_is_refused_and_the_first_process_alone_has_one(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="unknown tracker 'board'"):
        make_trackers(["board"], tmp_path)
    monkeypatch.setattr("uiat.training.trackers.current_rank", lambda: Rank(rank=1, size=2))
    assert make_trackers(list(TRACKERS), tmp_path) == []


class Failing:
    """A tracker that fails from some call on."""

    def __init__(self, after):
        self.after, self.calls = after, 0

    def step(self, *args):
        self.calls += 1
        if self.calls > self.after:
            raise OSError(28, "No space left on device")

    def epoch(self, row):
        self.step()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_tracker_that_fails_costs_its_records_and_is_said_once(caplog, after):
    failing = Failing(after)
    tracker = Lenient(failing)
    for number in range(5):
        tracker.step(0, number, 5, {}, 64)
        tracker.epoch(ROW)
    assert failing.calls == after + 1
    assert [record.getMessage() for record in caplog.records] == [
        "the run goes on without Failing: OSError: [Errno 28] No space left on device"
    ]


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), RuntimeError("no server"), ValueError("bad")])
def test_a_tracker_that_cannot_be_made_is_done_without(tmp_path, monkeypatch, caplog, error):
    def fail(folder):
        raise error

    monkeypatch.setitem(TRACKERS, "broken", Tracker(make=fail, extra="broken"))
    assert make_trackers(["broken"], tmp_path) == []
    assert f"the run goes on without broken: {type(error).__name__}" in caplog.text
