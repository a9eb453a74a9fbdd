"""Progress of an evaluation."""

import io

from rich.console import Console

from uiat.cli.evaluation_progress import EvaluationLines, evaluation_progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)


def test_evaluation_has_a_bar_for_each_attack_in_a_terminal():
    out = console(terminal=True)
    with evaluation_progress(("clean", "pgd-20"), out) as shown:
        shown.progress("clean", 5, 5)
        shown.bound("clean", 0.9)
        shown.progress("pgd-20", 2, 4)
        shown.bound("pgd-20", 0.8)
        shown.progress("epsilon 0.1", 3, 8)
    for text in ("clean", "2/4", "at most 80.00 %", "epsilon 0.1", "3/8", "after clean: at most 90.00 % robust"):
        assert text in out.file.getvalue()


def test_evaluation_in_a_pipe_has_a_line_a_stage_and_one_a_minute_with_the_time_left():
    out, clock = console(terminal=False), Clock()
    shown = EvaluationLines(out, clock=clock)
    for second, done in ((0, 0), (30, 10), (60, 20), (61, 21), (120, 40)):
        clock.now = second
        shown.progress("apgd-t", done, 100)
        shown.bound("apgd-t", 0.5)
    shown.bound("apgd-t", 0.45)
    shown.progress("square", 1, 2)
    shown.bound("square", 0.45)
    shown.close()
    shown.close()
    assert out.file.getvalue().splitlines() == [
        "apgd-t: 20 of 100, 0:04:00 left; at most 50.00 % robust",
        "apgd-t: 40 of 100, 0:03:00 left; at most 50.00 % robust",
        "after apgd-t: at most 45.00 % robust",
        "after square: at most 45.00 % robust",
    ]
    with evaluation_progress(("clean",), out) as shown:
        assert isinstance(shown, EvaluationLines)


def test_self_checks_are_announced_with_their_time():
    out, clock = console(terminal=False), Clock()
    shown = EvaluationLines(out, clock=clock)
    shown.bound("pgd-20", 0.5)
    shown.progress("self-checks", 0, 1)
    clock.now = 9.6
    shown.progress("self-checks", 1, 1)
    shown.close()
    assert out.file.getvalue().splitlines() == [
        "after pgd-20: at most 50.00 % robust",
        "self-checks of the result ...",
        "self-checks: 9.6 s",
    ]
