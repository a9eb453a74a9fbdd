"""What the panels are made from."""

from support.run_folders import CLASSES, make_samples
from uiat.report import read_all
from uiat.report.inputs import Inputs


def test_classes_have_names_where_a_model_has_answered(runs):
    inputs = Inputs(read_all(runs), make_samples(runs[2]))
    without, answered = inputs.groups
    assert inputs.class_names(answered, 10) == list(CLASSES)
    assert inputs.class_names(answered, 2) == inputs.class_names(without, 2) == ["0", "1"]
    assert inputs.samples_of(without) is None
