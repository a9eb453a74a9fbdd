"""Trackers by name: each receives what listeners receive, in a folder of its own."""

import sys

import pytest

from uiat import UserError
from uiat.system.distributed import Rank
from uiat.training.trackers import TRACKERS, TensorBoard, make_trackers

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
