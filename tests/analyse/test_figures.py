"""The style of figures."""

import pytest

from uiat.analyse.figures import SIZES, is_wide, line_style, make_panels, scale, styled, text_size


def test_many_runs_are_told_apart_in_a_figure():
    marks = [(one["color"], one["marker"]) for one in map(line_style, range(40))]
    assert len(set(marks)) == 40


@pytest.mark.parametrize("width", SIZES)
def test_a_figure_is_as_wide_as_asked_and_its_text_can_be_read(width):
    with styled(width):
        figure, (axes,) = make_panels(2.0)
        axes.set_xlabel("epoch")
        assert figure.get_size_inches().tolist() == pytest.approx([SIZES[width][0], 2.0 * scale()])
        assert min(text_size("least"), *(label.get_fontsize() for label in axes.get_xticklabels())) >= 7
        assert axes.xaxis.label.get_fontsize() == text_size("text")
        assert is_wide() == (width == "two")
