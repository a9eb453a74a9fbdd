"""Intervals of accuracies in figures."""

import pytest
from matplotlib.figure import Figure

from uiat.analyse.marks import bars, draw_line, draw_rows, group_styles, span
from uiat.intervals import wilson


def test_the_interval_is_over_images_and_over_seeds_where_there_are_several():
    assert span([0.3], 50) == (0.3, wilson(15, 50))
    mean, (low, high) = span([0.4, 0.6], 100)
    assert (mean, high - mean) == (pytest.approx(0.5), pytest.approx(1.96 * (0.25 / 100 + 0.02 / 2) ** 0.5))
    assert mean - low == pytest.approx(high - mean)
    assert span([0.3], None) == (0.3, [0.3, 0.3])
    assert span([1.0, 1.0], 10)[1] == [1.0, 1.0]


def test_a_band_has_the_ends_of_the_intervals():
    axes = Figure().subplots()
    draw_line(axes, [0, 1], [(0.5, [0.4, 0.7]), (0.2, [0.1, 0.3])], color="red")
    (band,) = axes.collections
    box = band.get_paths()[0].get_extents()
    assert (box.x0, box.x1, box.y0, box.y1) == (0, 1, 0.1, 0.7)


def test_rows_are_told_apart_and_their_marks_hide_no_other():
    axes = Figure().subplots()
    spans = [(0.5, [0.4, 0.6])] * 3
    draw_rows(axes, list("abc"), {"x": ({"marker": "o"}, spans), "y": ({"marker": "s"}, spans)})
    assert len(axes.patches) == 1  # the second row is shaded
    first, second = (group.lines[0].get_ydata() for group in axes.containers)
    assert len({*first, *second}) == 6
    assert bars(spans)[0] == pytest.approx([0.1] * 3)


def test_seeds_of_a_method_are_one_line_of_its_colour():
    data = {"methods": {"a0": "pgd-at", "a1": "pgd-at", "b": "uiat"}, "groups": {"a": ["a0", "a1"], "b": ["b"]}}
    lines = group_styles(data, ["a0", "a1", "b"])
    assert {label: runs for label, (runs, _) in lines.items()} == {"a (2 seeds)": ["a0", "a1"], "b": ["b"]}
    assert [style["marker"] for _, style in lines.values()] == ["s", "o"]
    assert list(group_styles(data, ["a0", "b"])) == ["a0", "b"]
