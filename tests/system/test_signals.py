"""Ctrl-C and SIGTERM: the first asks to stop, the second stops at once, and the handlers are put back."""

import signal
import threading

import pytest

from uiat.system.signals import Stop, stop_on_signal

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_asks_and_the_second_interrupts(number):
    before, stop = [signal.getsignal(each) for each in BOTH], Stop()
    with stop_on_signal(stop):
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert [signal.getsignal(each) for each in BOTH] == before


def test_outside_the_main_thread_nothing_is_caught():
    seen, before = [], signal.getsignal(signal.SIGINT)

    def work():
        with stop_on_signal(Stop()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
