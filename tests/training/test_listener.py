"""Several listeners are one."""

from uiat.training.listener import Listener, Listeners

ROW = {"epoch": 0, "train_adv_ce": 1.5}


class Spy:
    def __init__(self):
        self.received = []

    def step(self, *values):
        self.received.append(values)

    def epoch(self, row):
        self.received.append(row)


def test_several_listeners_receive_each_in_turn():
    one, two = Spy(), Spy()
    both = Listeners(one, two)
    assert isinstance(both, Listener)
    both.step(0, 1, 2, {}, 64)
    both.epoch(ROW)
    assert one.received == two.received == [(0, 1, 2, {}, 64), ROW]
