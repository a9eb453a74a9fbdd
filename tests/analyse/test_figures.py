"""The style of figures."""

from uiat.analyse.figures import line_style


def test_many_runs_are_told_apart_in_a_figure():
    marks = [(one["color"], one["marker"]) for one in map(line_style, range(40))]
    assert len(set(marks)) == 40
