"""Clean against robust accuracy, and that runs of different data share no chart."""

from support.run_folders import ACCURACY, write_run
from uiat.report import read_all
from uiat.report.figures import strength
from uiat.report.inputs import Inputs
from uiat.report.tradeoff import tradeoff
from uiat.report.training_curves import training


def test_runs_of_different_data_are_never_in_one_chart(tmp_path):
    made = [
        write_run(
            tmp_path / f"{name}{data}", name=name, objective={"name": name}, data=data, accuracy=ACCURACY, sweep=True
        )
        for data in ("cifar10", "svhn")
        for name in ("uiat", "trades")
    ]
    inputs = Inputs(read_all(made))
    charts = [figure.svg for panel in (tradeoff(inputs), strength(inputs)) for figure in panel.figures]
    parts = training(inputs).parts
    assert [part.title for part in parts] == ["Trained on cifar10", "Trained on svhn"]
    charts += [figure.svg for part in parts for figure in part.figures]
    assert len(charts) == 2 + 2 + 2 * 4
    for svg in charts:
        labels = [group.label for group in inputs.groups if f"<title>{group.label}" in svg]
        assert len(labels) == 2, labels
        assert len({group.data for group in inputs.groups if group.label in labels}) == 1
    assert "clean accuracy, %: 82.0, worst case, %: 48.5" in charts[0]
