"""Words in figures: none is cut, printed over another or too small, however long the names of runs are."""

from itertools import combinations

import pytest
from matplotlib.text import Text

from support.study_data import gallery, make_data, names
from uiat.analyse.figures import SIZES, styled
from uiat.analyse.fitting import fit_texts, fold, fold_names, measure_text
from uiat.analyse.runner import STUDIES

MANY_PANES = ("landscape", "universal", "inverse-gallery")  # one a run or a class: seconds each
SLOW = [("landscape", "two"), ("universal", "two")]


def draw(study, data, width):
    with styled(width):
        figure = STUDIES[study].draw(data)
        fit_texts(figure)
        return figure


def read_words(figure, monkeypatch):
    """Return the words that are drawn, with their boxes in inches and their sizes in points."""
    drawn, draw_text = [], Text.draw

    def note(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent(renderer)
            edges = [edge / figure.dpi for edge in (box.x0, box.y0, box.x1, box.y1)]
            drawn.append((text.get_text(), edges, text.get_fontsize()))
        return draw_text(text, renderer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", note)
        figure.draw_without_rendering()
    return drawn


def overlaps(one, other, slack=0.5 / 72):
    return all(min(one[k + 2], other[k + 2]) - max(one[k], other[k]) > slack for k in (0, 1))


@pytest.mark.parametrize(
    ("study", "width"), [(study, width) for study in STUDIES for width in ("one", "two") if (study, width) not in SLOW]
)
def test_no_word_is_cut_or_printed_over_another_or_too_small(study, width, monkeypatch):
    figure = draw(study, make_data(study, 2 if study in MANY_PANES else 8), width)
    wide, high = figure.get_size_inches()
    assert wide == SIZES[width][0]
    words = read_words(figure, monkeypatch)
    assert len(words) > 5
    for text, (left, low, right, top), size in words:
        assert -0.01 <= left < right <= wide + 0.01, text
        assert -0.01 <= low < top <= high + 0.01, text
        assert size >= 7, text
    assert not [(a[0], b[0]) for a, b in combinations(words, 2) if overlaps(a[1], b[1])]


def test_the_check_of_words_sees_those_that_lie_on_one_another(monkeypatch):
    figure = draw("strength", make_data("strength", 1), "one")
    figure.text(0.5, 0.5, "first")
    figure.text(0.51, 0.5, "second")
    first, second = [word for word in read_words(figure, monkeypatch) if word[0] in ("first", "second")]
    assert overlaps(first[1], second[1])


@pytest.mark.parametrize(("classes", "width"), [(10, "screen"), (10, "one"), (100, "one"), (100, "two")])
def test_a_gallery_is_no_higher_than_a_screen(classes, width):
    wide, high = draw("inverse-gallery", gallery(classes, names(4)), width).get_size_inches()
    assert high <= 1.3 * wide


@pytest.mark.parametrize("width", ["one", "two"])
def test_no_mark_of_an_axis_lies_between_epochs(width):
    figure = draw("overfitting", make_data("overfitting", 1), width)
    marks = [axes.get_xticks() for axes in figure.axes if axes.get_xlabel() == "epoch"]
    assert marks
    assert all(mark == round(mark) for ticks in marks for mark in ticks)


def test_panels_stand_side_by_side_where_a_figure_is_wide_and_else_one_below_the_other():
    boxes = {}
    for width in ("one", "two"):
        boxes[width] = [axes.get_position() for axes in draw("cost", make_data("cost", 2), width).axes]
    assert boxes["one"][1].y1 < boxes["one"][0].y0
    assert boxes["two"][0].x1 < boxes["two"][1].x0


def test_a_name_is_folded_to_its_room_and_keeps_the_end_that_tells_it_apart():
    short = fold_names(names(2), 1.0, size=8)
    assert all(name.count("\n") == 2 for name in short)
    assert [name[-6:] for name in short] == ["seed=0", "seed=1"]
    assert all(measure_text(line, 8) <= 1.0 for name in short for line in name.split("\n"))
    alike = [name.replace("digits", f"digits{i}") + "," + "x" * 90 for i, name in enumerate(names(2))]
    assert len(set(fold_names([name[::-1] + "y" * 90 for name in alike], 1.0, size=8))) == 2
    assert fold("a radius of 0.1", 0.5, size=8, lines=None).split() == ["a", "radius", "of", "0.1"]
