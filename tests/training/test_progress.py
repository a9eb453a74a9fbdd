"""Progress of training."""

import io
import logging
import sys

import pytest
import torch
from rich.console import Console

import uiat
from support import tiny
from uiat import Run
from uiat.experiments.finish import finish_training
from uiat.training.progress import TrainingBars, TrainingLines, epoch_line, training_progress

ROW = {
    **{"epoch": 1, "train_adv_ce": 1.25, "train_correct": 0.5, "clean": 0.9, "robust": 0.4},
    **{"seconds": 2.0, "validation_seconds": 0.5, "images_per_second": 1234.4},
}


class Scalar:
    """A loss term that counts how often it is read."""

    reads = 0

    def item(self):
        Scalar.reads += 1
        return 1.5


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)


def drawn(bars):
    out = Console(file=io.StringIO(), width=100)
    out.print(bars)
    return out.file.getvalue()


def test_an_epoch_is_one_line_with_all_that_was_measured():
    assert epoch_line(ROW, epochs=10) == (
        "epoch  2/10: adv_ce 1.2500, accuracy on attacked batches 50.00 %; validation clean 90.00 %, robust 40.00 %; "
        "1,234 images/s, 2.5 s"
    )


def test_an_epoch_without_validation_says_nothing_of_it():
    row = {key: value for key, value in ROW.items() if key not in ("clean", "robust")}
    assert "validation" not in epoch_line(row, epochs=10)


def test_lines_mark_each_new_best_epoch_and_only_those():
    out = console(terminal=False)
    lines = TrainingLines(Run(), out, best=0.3)
    for robust in (0.2, 0.4, 0.4, 0.5):
        lines.epoch(ROW | {"robust": robust})
    assert ["best so far" in line for line in out.file.getvalue().splitlines()] == [False, True, False, True]


def test_terms_are_read_at_most_four_times_a_second(unchecked):
    clock = Clock()
    bars = TrainingBars(Run(), TrainingLines(Run(), console(terminal=False)), clock=clock)
    Scalar.reads = 0
    for step in range(1, 1001):  # ten seconds
        clock.now += 0.01
        bars.step(0, step, 2000, {"adv_ce": Scalar()}, 64)
    assert 30 <= Scalar.reads <= 41
    assert bars.terms == {"adv_ce": 1.5}
    assert bars.rate == pytest.approx(6400, rel=0.01)


def test_bars_show_position_rate_time_left_terms_and_validation():
    clock = Clock()
    bars = TrainingBars(Run(), TrainingLines(Run(), console(terminal=False)), clock=clock)
    assert "first step" in drawn(bars)
    for step in (1, 2):
        clock.now += 1.0
        bars.step(0, step, 10, {"adv_ce": torch.tensor(1.5), "correct": torch.tensor(0.25)}, 64)
    text = drawn(bars)
    assert "epoch 1/30" in text
    assert "step 2/10" in text
    assert "64 images/s" in text
    assert "0:04:58 left" in text  # 298 steps of a second
    assert "adv_ce 1.5000, accuracy on attacked batches 25.00 %" in text
    bars.step(0, 10, 10, {"adv_ce": torch.tensor(1.5)}, 64)
    assert "validating" in drawn(bars)
    bars.epoch(ROW)
    assert "validating" not in drawn(bars)
    assert "validation clean 90.00 %, robust 40.00 %" in drawn(bars)


def test_bars_fit_the_screen_however_narrow():
    bars = TrainingBars(Run(), TrainingLines(Run(), console(terminal=False)))
    bars.step(0, 1, 10, {f"a_long_term_{i}": torch.tensor(1.0) for i in range(20)}, 64)
    assert len(drawn(bars).splitlines()) == 2


def test_a_terminal_gets_bars_and_keeps_the_lines(capsys):
    out = console(terminal=True)
    with training_progress(Run(), out) as listener:
        assert isinstance(listener, TrainingBars)
        listener.step(0, 1, 10, {"adv_ce": torch.tensor(1.5)}, 64)
        listener.epoch(ROW)
        logging.getLogger("uiat").info("quiet")
    assert "step 1/10" in out.file.getvalue()
    assert "epoch  2/30" in out.file.getvalue()


def test_a_pipe_gets_a_line_an_epoch_and_nothing_else():
    out = console(terminal=False)
    with training_progress(Run(), out, best={"epoch": 0, "value": None}) as listener:
        listener.step(0, 1, 10, {"adv_ce": torch.tensor(1.5)}, 64)
        listener.epoch(ROW)
    assert len(out.file.getvalue().splitlines()) == 1


class Screen(io.StringIO):
    """A terminal, or a file."""

    def __init__(self, *, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def small_fit(**options):
    objective, one = uiat.PGDAT(attack=tiny.attack(1)), uiat.Optimisation(epochs=1)
    return uiat.fit(tiny.linear(), tiny.tensors(), objective=objective, optimisation=one, batch_size=16, **options)


@pytest.mark.parametrize(
    ("terminal", "options", "shown"),
    [(True, {}, True), (True, {"progress": False}, False), (False, {}, False), (False, {"progress": True}, False)],
)
def test_fit_shows_a_bar_in_a_terminal_alone(monkeypatch, terminal, options, shown):
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    trained = small_fit(**options)
    assert ("epoch 1/1: adv_ce" in screen.getvalue()) == shown
    assert bool(screen.getvalue()) == shown
    assert len(trained.history) == 1


def test_a_listener_hears_of_fit_beside_the_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Screen(terminal=True))
    killer = tiny.Killer(at=10**9)
    small_fit(listener=killer)
    assert killer.steps == 3


def test_train_shows_it_too_and_a_sweep_does_not(monkeypatch, tmp_path):
    screen = Screen(terminal=True)
    monkeypatch.setattr(sys, "stderr", screen)
    uiat.train(tiny.run(epochs=1), run_dir=tmp_path / "a")
    assert "epoch 1/1: adv_ce" in screen.getvalue()
    screen.truncate(0)
    finish_training(tiny.run(epochs=1), tmp_path / "b")
    assert "epoch" not in screen.getvalue()
