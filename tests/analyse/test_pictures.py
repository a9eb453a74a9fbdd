"""Tables of numbers as coloured squares, and perturbations as pictures."""

from matplotlib.figure import Figure

from uiat.analyse.fitting import fit_texts
from uiat.analyse.pictures import draw_matrix, draw_pictures


def drawn(inches):
    figure = Figure(figsize=(inches, inches), layout="constrained")
    axes = figure.subplots()
    names = ["short", "long " * 20 + "a", "long " * 20 + "b"]
    draw_matrix(axes, [[0.5, -0.25, 1.0]] * 3, low=-1, high=1, digits=2, names=names)
    fit_texts(figure)
    return axes


def test_numbers_are_written_where_they_fit_into_their_squares():
    assert [text.get_text() for text in drawn(6).texts[:3]] == ["0.50", "-0.25", "1.00"]
    assert not drawn(2).texts


def test_columns_of_long_names_have_the_numbers_of_their_rows():
    axes = drawn(6)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "3"]
    assert axes.get_yticklabels()[0].get_text() == "short (1)"


def test_names_that_are_wider_than_their_pictures_stand_upright():
    panes = Figure().subplots(1, 3)
    pictures = [[[0.1] * 4] * 4] * 2
    draw_pictures(panes, pictures, channels=1, names=["cat", "automobile"], room=0.2)
    assert [axes.title.get_rotation() for axes in panes] == [90, 90, 0]
    assert [len(axes.images) for axes in panes] == [1, 1, 0]
