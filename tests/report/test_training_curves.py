"""Curves by epoch: in one chart, or in one a run where runs are many."""

from support.run_folders import write_run
from uiat.report import read_all
from uiat.report.inputs import Inputs
from uiat.report.training_curves import training


def test_many_runs_get_a_chart_each(tmp_path):
    made = [write_run(tmp_path / str(i), name=f"r{i}", objective={"name": f"r{i}"}) for i in range(8)]
    accuracy, loss, numbers = training(Inputs(read_all(made))).parts
    assert [(part.title, len(part.figures)) for part in (accuracy, loss)] == [
        ("Accuracy by epoch, %", 8),
        ("Loss by epoch", 8),
    ]
    assert accuracy.figures[0].svg.count('class="behind"') == 7
    assert not any(figure.svg for figure in numbers.figures)
    more = [*made, write_run(tmp_path / "8", name="r8", objective={"name": "r8"})]
    (numbers,) = training(Inputs(read_all(more))).parts  # nine are too many to compare
    assert numbers.is_in_markdown
    few = training(Inputs(read_all(made[:3])))
    assert not few.parts
    assert all(figure.svg for figure in few.figures)


def test_markdown_shows_few_of_many_epochs(tmp_path):
    shown = training(Inputs(read_all([write_run(tmp_path / "long", epochs=110)]))).figures[0]
    head = shown.in_markdown.head
    assert (len(head), head[1], head[-1]) == (11, "epoch 1", "epoch 110")
    assert len(shown.values.rows) == 110


def test_without_an_epoch_there_is_nothing_to_draw(tmp_path):
    assert training(Inputs(read_all([write_run(tmp_path / "a", epochs=0)]))).is_empty
