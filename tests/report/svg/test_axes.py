"""Ticks and labels."""

from uiat.report.svg.axes import around, spread_labels, ticks


def test_ticks_are_round_and_hold_the_data():
    assert ticks(0, 0.73) == [0.0, 0.2, 0.4, 0.6]
    assert ticks(3, 3) == [3]
    assert around(0, 0.271)[-1] > 0.271 > around(0, 0.271)[-2]
    assert around(1.3, 1.7) == [1.3, 1.4, 1.5, 1.6, 1.7]


def test_no_tick_is_between_two_epochs():
    for epochs in range(2, 60):
        for most in (5, 6):
            found = ticks(1, epochs, most, whole=True)
            assert all(tick == round(tick) for tick in found)
            assert 1 < len(found) <= most


def test_labels_do_not_cover_each_other():
    places = spread_labels([5.0, 5.0, 6.0, 40.0], 10)
    assert all(b - a >= 10 - 1e-9 for a, b in zip(sorted(places), sorted(places)[1:], strict=False))
