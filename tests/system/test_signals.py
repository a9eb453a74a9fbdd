"""Ctrl-C and SIGTERM: the first asks to stop, the second stops at once, and the handlers are put back."""

import signal
import threading

import pytest

from uiat.system.signals import Stop, interrupt_on_signal, stop_on_signal

BOTH = (signal.SIGINT, signal.SIGTERM)
ALL = (*BOTH, signal.SIGHUP, signal.SIGUSR1)


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


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_the_warning_of_a_cluster_asks_however_often_it_comes(number):
    before, stop = [signal.getsignal(each) for each in ALL], Stop()
    with stop_on_signal(stop):
        for _ in range(3):
            signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(each) for each in ALL] == before


@pytest.mark.parametrize("number", ALL[1:])
def test_between_steps_of_nothing_they_interrupt_as_ctrl_c_does(number):
    before = [signal.getsignal(each) for each in ALL]
    with pytest.raises(KeyboardInterrupt), interrupt_on_signal():
        signal.raise_signal(number)
    assert [signal.getsignal(each) for each in ALL] == before


@pytest.mark.parametrize("inside", [lambda: stop_on_signal(Stop()), interrupt_on_signal])
def test_a_hangup_that_is_ignored_stays_ignored(inside):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with inside():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
