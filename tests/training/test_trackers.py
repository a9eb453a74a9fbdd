"""Trackers are told what listeners are told."""

import sys

import pytest

from uiat import UserError
from uiat.training.trackers import Several, TensorBoard

ROW = {"epoch": 0, "train_adv_ce": 1.5, "robust": 0.25, "seconds": 2.0, "alarms": []}


class Spy:
    def __init__(self):
        self.heard = []

    def step(self, *told):
        self.heard.append(told)

    def epoch(self, row):
        self.heard.append(row)


def test_several_tell_each_in_turn():
    one, two = Spy(), Spy()
    both = Several(one, two)
    both.step(0, 1, 2, {}, 64)
    both.epoch(ROW)
    assert one.heard == two.heard == [(0, 1, 2, {}, 64), ROW]


def test_tensorboard_gets_a_scalar_for_each_measurement(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    board.step(0, 1, 2, {}, 64)
    board.epoch(ROW)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/adv_ce", "validation/robust", "run/seconds"}
    assert [(e.step, e.value) for e in events.Scalars("validation/robust")] == [(1, 0.25)]


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(UserError, match=r"uiat\[tensorboard\]"):
        TensorBoard(tmp_path)
